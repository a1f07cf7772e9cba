"""The event log: append, read, wait. Everything else in eventjobs reads it by position."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from eventjobs.errors import InvalidInput, LogUnavailable
from eventjobs.events import Event, Recorded

#: Events in one page of follow().
#: Of the name of an actor, or the id of a job.
TEXT_CHARS_MAX = 200
PAGE_MAX = 512


class EventLog(Protocol):
    """An ordered, append-only record of every job's events.

    Positions are dense from 1 and become visible in order. One contract suite,
    tests/test_log.py, says what every log does.
    """

    @property
    def log_id(self) -> str:
        """A random name given when the log was made: two logs never share it."""

    @property
    def reserved_after(self) -> int:
        """The position after which derived ids are reserved ones (identity.py); 0 in a new log."""

    @property
    def head(self) -> int:
        """The newest position; 0 when empty."""

    async def append(self, job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        """Record *event* as number *version* + 1 of its job; return when it is durable.

        Raises Conflict when the job is not at *version*; Overloaded, DiskFull or LogUnavailable
        when nothing was written; OutcomeUnknown when that cannot be told; TypeError or
        ValueError for what cannot be stored. A cancelled append may have happened.
        """

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        """Up to *limit* events of all jobs with positions above *after*."""

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        """One job's events with positions above *after*, oldest first."""

    async def wait(self, after: int, job_id: str | None = None) -> int:
        """The head, once it is above *after* (and, given *job_id*, that job may have moved)."""

    async def close(self) -> None:
        """Finish what was accepted, then refuse. Waiters get LogUnavailable. Idempotent."""


async def follow(log: EventLog, after: int, limit: int = PAGE_MAX) -> AsyncIterator[list[Recorded]]:
    """Everything after position *after*, in batches, for ever."""
    while True:
        if batch := await log.read(after, limit):
            after = batch[-1].position
            yield batch
        else:
            await log.wait(after)


def check_text(text: str) -> None:
    """Raises InvalidInput for what an engine cannot keep as it is: NUL, half a surrogate pair."""
    if not isinstance(text, str) or "\0" in text or len(text) > TEXT_CHARS_MAX:
        raise InvalidInput(f"only text of up to {TEXT_CHARS_MAX} characters without NUL is stored")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"this text cannot be stored: {error.reason}") from None


class Tail:
    """The newest events, kept decoded in memory, and everyone who waits for the next.

    A reader at the head is served from here and never touches the disk; one that is further
    behind gets None from *since* and reads pages from the store.
    """

    def __init__(
        self, head: int = 0, events_max: int | None = 2048, bytes_max: int = 64 * 2**20
    ) -> None:
        self.head = head
        self._events: list[Recorded] = []
        self._bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._everyone: set[asyncio.Future[None]] = set()
        self._by_job: dict[str, set[asyncio.Future[None]]] = {}
        self._closed = False

    def publish(self, batch: Sequence[Recorded]) -> None:
        """Add events that are now durable, and wake who waits for them: once each."""
        self._events.extend(batch)
        self._bytes += _weight(batch)
        self.head = batch[-1].position
        self._trim()
        _wake(self._everyone)
        if self._by_job:
            for each in batch:
                if waiting := self._by_job.get(each.job_id):
                    _wake(waiting)

    def since(self, after: int, limit: int) -> list[Recorded] | None:
        """Events above *after*, or None when the oldest of them is no longer in memory."""
        first = self.head - len(self._events)  # position before the oldest kept
        if after >= self.head:
            return []
        return None if after < first else self._events[after - first : after - first + limit]

    async def wait(self, after: int, job_id: str | None = None) -> int:
        while self.head <= after:
            if self._closed:
                raise LogUnavailable("the log is closed")
            turn = asyncio.get_running_loop().create_future()
            waiting = self._everyone if job_id is None else self._by_job.setdefault(job_id, set())
            waiting.add(turn)
            try:
                await turn
            finally:
                waiting.discard(turn)
                if job_id is not None and not waiting:
                    self._by_job.pop(job_id, None)
        return self.head

    def close(self) -> None:
        self._closed = True
        for waiting in (self._everyone, *self._by_job.values()):
            _wake(waiting)

    def _trim(self) -> None:
        if self._events_max is None:
            return
        if len(self._events) > 2 * self._events_max:
            self._drop(len(self._events) - self._events_max)
        if self._bytes > self._bytes_max:
            self._drop(len(self._events) // 2)

    def _drop(self, count: int) -> None:
        self._bytes -= _weight(self._events[:count])
        del self._events[:count]


def _weight(events: Sequence[Recorded]) -> int:
    return sum(len(each.facts) + len(each.body or b"") for each in events)


def _wake(waiting: set[asyncio.Future[None]]) -> None:
    for turn in waiting:
        if not turn.done():
            turn.set_result(None)

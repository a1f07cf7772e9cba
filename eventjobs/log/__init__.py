"""The event log: append, read, wait. Everything else in eventjobs reads it by position."""

from collections.abc import AsyncIterator
from typing import Protocol

from eventjobs.domain.events import Event
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import InvalidInput

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

"""The newest events of a log in memory, and the readers that wait for more."""

import asyncio
from collections.abc import Sequence

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import LogUnavailable


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

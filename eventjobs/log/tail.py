"""The newest events of a log in memory, and the tasks that wait for the next."""

import asyncio
from collections.abc import Sequence

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import LogUnavailable

CLOSED = "the log is closed"


class Tail:
    """The newest events, decoded, and the tasks that wait for the next.

    A reader near the head is served from memory. For a reader further behind *since* returns
    None, and it reads pages from the database.
    """

    def __init__(self, head: int = 0, events_max: int = 2048, bytes_max: int = 64 * 2**20) -> None:
        self.head = head
        self._events: list[Recorded] = []
        self._bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._waiting: set[asyncio.Future[None]] = set()
        self._waiting_by_job: dict[str, set[asyncio.Future[None]]] = {}
        self._closed = False

    def publish(self, batch: Sequence[Recorded]) -> None:
        """Add durable events, and wake each task that waits for one of them once."""
        self._events.extend(batch)
        self._bytes += _memory_size(batch)
        self.head = batch[-1].position
        self._trim()
        _wake(self._waiting)
        if self._waiting_by_job:
            for job_id in {event.job_id for event in batch}:
                if waiting := self._waiting_by_job.get(job_id):
                    _wake(waiting)

    def since(self, after: int, limit: int) -> list[Recorded] | None:
        """Events above *after*; None when the oldest of them is no longer in memory."""
        first = self.head - len(self._events)  # the position before the oldest event in memory
        if after >= self.head:
            return []
        return None if after < first else self._events[after - first : after - first + limit]

    async def wait(self, after: int, job_id: str | None = None) -> int:
        if job_id is not None:
            if not self._may_have(job_id, after):
                waiting = self._waiting_by_job.setdefault(job_id, set())
                try:
                    await self._wait_in(waiting)
                finally:
                    if not waiting:
                        self._waiting_by_job.pop(job_id, None)
            return self.head
        while self.head <= after:
            await self._wait_in(self._waiting)
        return self.head

    def _may_have(self, job_id: str, after: int) -> bool:
        """Whether an event of the job is above *after*, or may be and is not in memory."""
        recent = self.since(after, self.head)
        return recent is None or any(event.job_id == job_id for event in recent)

    async def _wait_in(self, waiting: set[asyncio.Future[None]]) -> None:
        if self._closed:
            raise LogUnavailable(CLOSED)
        future = asyncio.get_running_loop().create_future()
        waiting.add(future)
        try:
            await future
        finally:
            waiting.discard(future)

    def close(self) -> None:
        self._closed = True
        for waiting in (self._waiting, *self._waiting_by_job.values()):
            for future in waiting:
                if not future.done():
                    future.set_exception(LogUnavailable(CLOSED))

    def _trim(self) -> None:
        if len(self._events) > 2 * self._events_max:
            self._drop(len(self._events) - self._events_max)
        # The older half may be of small events: once would not be enough. The newest event stays.
        while self._bytes > self._bytes_max and len(self._events) > 1:
            self._drop(len(self._events) // 2)

    def _drop(self, count: int) -> None:
        self._bytes -= _memory_size(self._events[:count])
        del self._events[:count]


def _memory_size(events: Sequence[Recorded]) -> int:
    return sum([event.memory_size for event in events])


def _wake(waiting: set[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)

"""The reference implementation of a log: lists in memory."""

import sys
from collections.abc import Sequence
from uuid import uuid4

from eventjobs.clock import Clock, SystemClock
from eventjobs.domain.events import Event
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, LogUnavailable
from eventjobs.log import PAGE_MAX, NewEvent, without_position
from eventjobs.log.tail import Tail


class MemoryLog:
    """An EventLog without a thread or a file. It passes the contract suite, test_log.py."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.log_id = uuid4().hex
        self.reserved_after = 0
        self._clock = clock or SystemClock()
        self._tail = Tail(events_max=sys.maxsize, bytes_max=sys.maxsize)
        self._by_job: dict[str, list[Recorded]] = {}
        self._closed = False

    @property
    def head(self) -> int:
        return self._tail.head

    async def append(self, job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        (outcome,) = await self.append_many([NewEvent(job_id, version, event, actor)])
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    async def append_many(self, events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        return [self._append(each) for each in without_position(events, self._clock.now_us())]

    def _append(self, recorded: Recorded) -> Recorded | Conflict:
        events = self._by_job.setdefault(recorded.job_id, [])
        if recorded.version != len(events) + 1:
            version = recorded.version - 1
            return Conflict(f"job {recorded.job_id} is at version {len(events)}, not {version}")
        recorded.position = self.head + 1
        events.append(recorded)
        self._tail.publish([recorded])
        return recorded

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        return self._tail.since(after, limit) or []

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        events = self._by_job.get(job_id, [])
        return [event for event in events if event.position > after][:limit]

    async def wait(self, after: int, job_id: str | None = None) -> int:
        return await self._tail.wait(after, job_id)

    async def close(self) -> None:
        self._closed = True
        self._tail.close()

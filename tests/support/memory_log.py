"""The reference implementation of a log: lists in memory."""

import sys
from uuid import uuid4

from eventjobs.clock import Clock, SystemClock
from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, LogUnavailable
from eventjobs.log import PAGE_MAX, check_text
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
        if self._closed:
            raise LogUnavailable("the log is closed")
        check_text(job_id)
        check_text(actor)
        events = self._by_job.setdefault(job_id, [])
        if version != len(events):
            raise Conflict(f"job {job_id} is at version {len(events)}, not {version}")
        type, facts, body = encode(event)
        recorded = Recorded(
            self.head + 1,
            job_id,
            version + 1,
            self._clock.now_us(),
            actor,
            event,
            type,
            facts,
            body,
        )
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

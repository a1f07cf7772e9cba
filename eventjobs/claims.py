"""Who may run what: the one gate through which every attempt begins, here or elsewhere."""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

import structlog

from eventjobs.clock import Clock, sleep
from eventjobs.errors import LogError, OutcomeUnknown, Rejected
from eventjobs.job import Job
from eventjobs.jobs import Jobs
from projections import Views
from projections.touched import Touched

#: A wall clock that jumps must not keep a scheduled job waiting longer than this.
LOOK_AGAIN_S = 30.0


class Room(NamedTuple):
    """How many more jobs of these types somebody can take."""

    types: Collection[str]
    free: int


class Claims:
    """Picks due jobs and claims them; what was picked is not picked again."""

    def __init__(self, jobs: Jobs, views: Views, clock: Clock) -> None:
        self._jobs = jobs
        self._views = views
        self._clock = clock
        #: Claims the views may not show yet, and the position at which they will.
        self._taken: dict[str, int | None] = {}
        self._waiting: set[asyncio.Event] = set()
        self._log = structlog.get_logger("eventjobs.claims")
        views.listen(self._noticed)

    async def pick(self, now_us: int, rooms: Sequence[Room], limit: int) -> list[tuple[str, str]]:
        """Up to *limit* (job id, type) that are due and fit, best first. Each is to be claimed."""
        left: dict[str, list[int]] = {}
        for room in rooms:
            shared = [room.free]  # by all types of the room
            left.update({type: shared for type in room.types if room.free > 0})
        if not left or limit <= 0:
            return []
        position = self._views.position
        for job_id, visible in list(self._taken.items()):
            if visible is not None and visible <= position:
                del self._taken[job_id]
        picked = []
        for job_id, type in await self._views.due(now_us, left, self._taken, limit):
            if job_id in self._taken or left[type][0] <= 0:
                continue  # somebody else picked it meanwhile, or its room is full now
            left[type][0] -= 1
            self._taken[job_id] = None
            picked.append((job_id, type))
        return picked

    async def claim(self, job_id: str, *, worker: str, lease_s: float | None = None) -> Job | None:
        """The job that was picked, now held by *worker*; None when it is not to be had."""
        unknown = False
        while True:
            try:
                job = await self._jobs.start(job_id, worker=worker, lease_s=lease_s)
            except Rejected:
                claimed = await self._jobs.current(job_id) if unknown else None
                if claimed is None or claimed.worker != worker:
                    # Cancelled or claimed since the views were read; they will show it by then.
                    self._taken[job_id] = self._jobs.log.head
                    return None
                job = claimed  # by the append that could not be answered
            except LogError as error:
                self._log.warning("claim failed", job_id=job_id, error=error.code)
                unknown = unknown or isinstance(error, OutcomeUnknown)
                await sleep(self._clock, 0.5)
                if unknown:
                    continue  # it may be ours by now, and then nobody else will run it
                self._taken[job_id] = 0
                return None
            except BaseException:
                self._taken[job_id] = self._jobs.log.head + 1
                raise
            self._taken[job_id] = job.position
            return job

    def news(self) -> asyncio.Event:
        """Set from now on whenever something may have become due; to be given to *wait*."""
        news = asyncio.Event()
        self._waiting.add(news)
        return news

    async def wait(self, news: asyncio.Event, looked_us: int) -> None:
        """Return when it makes sense to *pick* again, having looked in vain at *looked_us*."""
        # Later than when we looked, not later than now: between the two a job may have become due.
        next_us = await self._views.next_due_us(looked_us)
        wait_s = LOOK_AGAIN_S
        if next_us is not None:
            wait_s = max(0.0, (next_us - self._clock.now_us()) / 1e6)
        timer = self._clock.call_later(min(wait_s, LOOK_AGAIN_S), news.set)
        try:
            await news.wait()
        finally:
            timer.cancel()

    def forget(self, news: asyncio.Event) -> None:
        self._waiting.discard(news)

    def _noticed(self, touched: list[Touched]) -> None:
        for each in self._waiting:
            each.set()

"""Workers elsewhere that wait for something to do, and how they get it."""

import asyncio
from collections.abc import Callable

from eventjobs.claims import Room
from eventjobs.http.polls import Polls
from eventjobs.http.reported import Claim
from eventjobs.job import Job
from eventjobs.logs import get_logger
from eventjobs.outcomes import Released
from eventjobs.service import Service
from eventjobs.settlement import log_start

_LOG = get_logger("eventjobs.work")


class Takers:
    """Workers that wait for something to do."""

    def __init__(self, service: Service, polls: Polls) -> None:
        self._service = service
        self._polls = polls
        #: How to end the waits of each worker.
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        #: Of each claim by a worker, whether it is to wait no more; it may be looking just now.
        self._over: dict[str, set[asyncio.Event]] = {}
        # A worker that is deaf may have a claim open all the same: what came of it would be lost.
        service.leases.listen(self._end_waits)

    async def take(self, asked: Claim, gone: Callable[[], bool]) -> list[Job]:
        """Jobs that now are the worker's; none once it has waited in vain."""
        service = self._service
        if asked.wait_s == 0:
            self._end_waits(asked.worker)
        over = asyncio.Event()
        overs = self._over.setdefault(asked.worker, set())
        overs.add(over)
        until_s = service.clock.monotonic_s() + asked.wait_s
        news = service.claims.news()
        try:
            if asked.holds is not None:
                lost = await service.fence.lost_claims(asked.worker, set(asked.holds))
                if lost:
                    return lost[: asked.max]
            while True:
                news.clear()
                now_us = service.claims.now_us()
                picked, jobs = await self._taken(asked, now_us, gone)
                if jobs or gone():
                    return jobs
                if picked:
                    continue  # somebody was faster: look again at once
                left_s = until_s - service.clock.monotonic_s()
                if (
                    left_s <= 0
                    or over.is_set()
                    or not await self._wait(asked, news, now_us, left_s)
                ):
                    return []
        finally:
            service.claims.forget(news)
            overs.remove(over)
            if not overs:
                self._over.pop(asked.worker, None)

    async def _taken(
        self, asked: Claim, now_us: int, gone: Callable[[], bool]
    ) -> tuple[int, list[Job]]:
        """How many jobs were there, and those of them that could be had."""
        service = self._service
        if not asked.types or gone():
            return 0, []
        picked = await service.claims.pick(now_us, _rooms(asked), asked.max)
        lease_s = asked.lease_s or service.settings.lease_s
        claims = [
            service.claims.claim(job_id, worker=asked.worker, lease_s=lease_s)
            for job_id, _ in picked
        ]
        jobs = [job for job in await asyncio.gather(*claims) if job is not None]
        for job in jobs:
            service.leases.begin(job)
            log_start(_LOG, job)
        if gone():  # nobody will ever know of these claims
            why = Released("the worker had gone before it was answered")
            for job in jobs:
                await service.settlement.settle(job, why, actor="service")
            return 0, []
        return len(picked), jobs

    async def _wait(self, asked: Claim, news: asyncio.Event, looked_us: int, wait_s: float) -> bool:
        """Whether there may be something to do; not when it is time to say that there was not."""
        try:
            async with self._polls.patience(wait_s) as end:
                waiting = self._waiting.setdefault(asked.worker, [])
                waiting.append(end)
                try:
                    await self._service.claims.wait(news, looked_us, _rooms(asked))
                finally:
                    waiting.remove(end)
                    if not waiting:
                        self._waiting.pop(asked.worker, None)
        except TimeoutError:
            return False
        return True

    def _end_waits(self, worker: str) -> None:
        for over in self._over.get(worker, ()):
            over.set()
        for end in self._waiting.get(worker, ()):
            end()


def _rooms(asked: Claim) -> list[Room]:
    types = set(asked.types)
    rooms = []
    for limit in asked.limits:
        rooms.append(
            Room(types.intersection(limit.types), limit.max, children_only=asked.children_only)
        )
        types.difference_update(limit.types)
    return [*rooms, Room(types, asked.max, children_only=asked.children_only)]

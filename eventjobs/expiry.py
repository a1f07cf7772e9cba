"""Hiding jobs that ended long enough ago: lists forget them, reads answer that they are gone."""

import asyncio
from contextlib import suppress

from eventjobs.clock import sleep
from eventjobs.errors import Rejected
from eventjobs.jobs import Jobs
from eventjobs.supervision import Isolation
from projections import Views

ACTOR = "service"
#: Between two looks, when there was nothing to hide; so late may a job be hidden.
LOOK_AGAIN_S = 5.0
#: Jobs hidden at one time: few, so that nobody waits long for the log because of them.
PAGE = 25


class Expiry:
    """Jobs that do not say so themselves expire *ttl_s* after their end; infinite is never."""

    def __init__(self, jobs: Jobs, views: Views, ttl_s: float) -> None:
        self._jobs = jobs
        self._views = views
        self._ttl_s = ttl_s
        self._isolation = Isolation(jobs.clock, "eventjobs.expiry", "hiding")

    async def run(self) -> None:
        while True:
            now_us = self._jobs.clock.now_us()
            began_s = self._jobs.clock.monotonic_s()
            ended_us = int(max(0.0, now_us - self._ttl_s * 1e6))
            # Those that cannot be hidden now must not keep the ones behind them from it.
            limit = PAGE + len(self._isolation)
            expiring = await self._views.expiring(now_us, ended_us, limit)
            hidden = await asyncio.gather(*map(self._hide, filter(self._isolation.may, expiring)))
            if any(hidden):
                await self._views.reached(self._jobs.log.head)
                # As long again: after a time away very many are due, and none of them is urgent.
                await sleep(self._jobs.clock, self._jobs.clock.monotonic_s() - began_s)
            else:
                await sleep(self._jobs.clock, LOOK_AGAIN_S)

    async def _hide(self, job_id: str) -> bool:
        async def hide() -> None:
            with suppress(Rejected):  # queued again meanwhile
                await self._jobs.expire(job_id, "ttl", actor=ACTOR)

        return await self._isolation.attempt(job_id, hide(), job_id=job_id)

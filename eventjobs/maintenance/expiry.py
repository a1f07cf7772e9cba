"""Hiding jobs that ended long enough ago: lists forget them, reads answer that they are gone."""

import asyncio

from eventjobs.clock import STEADY_S, Step, Timeline, sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import JobUnreadable, Rejected
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.supervision import Isolation

ACTOR = "service"
#: Between two looks, when there was nothing to hide; so late may a job be hidden.
INTERVAL_S = 5.0
#: Jobs hidden at one time: few, so that nobody waits long for the log because of them.
PAGE = 25


class JobExpirer:
    """Jobs that do not say so themselves expire *ttl_s* after their end; infinite is never."""

    def __init__(self, jobs: Jobs, views: Views, ttl_s: float, timeline: Timeline) -> None:
        self._timeline = timeline
        #: The step of the clock that jobs wait for, once that was logged.
        self._logged: Step | None = None
        self._jobs = jobs
        self._views = views
        self._ttl_s = ttl_s
        self._log = get_logger("eventjobs.expiry")
        self._isolation = Isolation(jobs.clock, "eventjobs.expiry", "hiding")

    async def run(self) -> None:
        while True:
            began_s = self._jobs.clock.monotonic_s()
            expiring = await self._jobs_to_hide()
            hidden = await asyncio.gather(
                *map(self._hide, filter(self._isolation.may_run, expiring))
            )
            if any(hidden):
                await self._views.reached(self._jobs.log.head)
                # As long again: after a time away very many are due, and none of them is urgent.
                await sleep(self._jobs.clock, self._jobs.clock.monotonic_s() - began_s)
            else:
                await sleep(self._jobs.clock, INTERVAL_S)

    async def _jobs_to_hide(self) -> list[str]:
        # Those that cannot be hidden now must not keep the ones behind them from it.
        limit = PAGE + len(self._isolation)
        now_us = self._timeline.now_us()
        if (step := self._recent_clock_step()) is None:
            return await self._views.expiring(now_us, self._ended_before_us(now_us), limit)
        from_us = min(step.from_us, now_us)  # it may have been set back since
        before = await self._views.expiring(from_us, self._ended_before_us(from_us), limit)
        after = await self._views.expiring(
            now_us,
            self._ended_before_us(now_us),
            limit,
            after_us=step.to_us,
            ended_after_us=self._ended_before_us(step.to_us),
        )
        return [*before, *after]

    def _ended_before_us(self, now_us: int) -> int:
        """Who ended by then, and says nothing, expires at *now_us*."""
        return int(max(0.0, now_us - self._ttl_s * 1e6))

    def _recent_clock_step(self) -> Step | None:
        """A jump of the wall clock that has not lasted. The jobs that expired in it are many, and
        are hidden for good: they wait until the clock has shown that it is right.
        """
        step = self._timeline.forward
        if step is None or self._jobs.clock.monotonic_s() - step.at_s >= STEADY_S:
            return None
        if self._logged is not step:
            self._logged = step
            self._log.warning(
                "the wall clock was set forward; what expires by that is hidden later",
                by_s=round((step.to_us - step.from_us) / 1e6),
                wait_s=STEADY_S,
            )
        return step

    async def _hide(self, job_id: str) -> bool:
        async def hide() -> None:
            try:
                await self._jobs.expire(job_id, "ttl", actor=ACTOR)
            except JobUnreadable:
                raise  # the views do not know, and would name it again at once
            except Rejected:
                pass  # queued again meanwhile

        return await self._isolation.attempt(job_id, hide(), job_id=job_id)

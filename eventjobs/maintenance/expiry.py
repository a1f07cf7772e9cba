"""Expiry: hides jobs some time after their end. Lists leave them out, and reads answer 410 Gone."""

import asyncio

from eventjobs.clock import STEADY_S, ClockStep, Timeline, sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import JobUnreadable, Rejected
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.supervision import Isolation

ACTOR = "service"
#: Seconds between two searches while no job expires. A job is hidden that much late.
INTERVAL_S = 5.0
#: Jobs hidden at a time. Few, because other writers wait for the log behind them.
PAGE = 25


class JobExpirer:
    """Hides each job *ttl_s* after its end, unless it has a ttl of its own. Infinite is never."""

    def __init__(self, jobs: Jobs, views: Views, ttl_s: float, timeline: Timeline) -> None:
        self._timeline = timeline
        #: The step of the wall clock that is logged already.
        self._logged: ClockStep | None = None
        self._jobs = jobs
        self._views = views
        self._ttl_s = ttl_s
        self._log = get_logger("eventjobs.expiry")
        self._isolation = Isolation(jobs.clock, "eventjobs.expiry", "hiding")

    async def run(self) -> None:
        """Hide jobs until cancelled."""
        while True:
            started_s = self._jobs.clock.monotonic_s()
            job_ids = await self._jobs_to_hide()
            hidden = await asyncio.gather(
                *map(self._hide, filter(self._isolation.may_run, job_ids))
            )
            if any(hidden):
                await self._views.wait_for_position(self._jobs.log.head)
                # Work half of the time: after a long downtime very many jobs expire.
                await sleep(self._jobs.clock, self._jobs.clock.monotonic_s() - started_s)
            else:
                await sleep(self._jobs.clock, INTERVAL_S)

    async def _jobs_to_hide(self) -> list[str]:
        # Jobs that cannot be hidden now must not take the places of those behind them.
        limit = PAGE + len(self._isolation)
        now_us = self._timeline.now_us()
        if (step := self._recent_clock_step()) is None:
            return await self._views.expiring(now_us, self._ended_until_us(now_us), limit)
        from_us = min(step.from_us, now_us)  # the clock may have been set back since
        before = await self._views.expiring(from_us, self._ended_until_us(from_us), limit)
        after = await self._views.expiring(
            now_us,
            self._ended_until_us(now_us),
            limit,
            after_us=step.to_us,
            ended_after_us=self._ended_until_us(step.to_us),
        )
        return [*before, *after]

    def _ended_until_us(self, now_us: int) -> int:
        """The latest end of a job without a ttl of its own that expires *now_us*."""
        return int(max(0.0, now_us - self._ttl_s * 1e6))

    def _recent_clock_step(self) -> ClockStep | None:
        """A recent jump forward of the wall clock, None without one.

        It may be wrong, and would hide many jobs for good. The jobs that expire by the jump wait
        until the clock has been steady for STEADY_S.
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
                raise  # the views would name it again at once
            except Rejected:
                pass  # it has been queued again

        return await self._isolation.attempt(job_id, hide(), job_id=job_id)

"""Submitting recurring jobs when they are due: each firing once."""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import structlog

from eventjobs.clock import sleep
from eventjobs.errors import LogError, Rejected
from eventjobs.events import JobSpec
from eventjobs.job import Job
from eventjobs.jobs import Jobs
from eventjobs.schedules import SECOND_US, Schedule
from eventjobs.switches import Switches
from projections import Views

#: A firing that is no later than this was not missed: whatever catch_up_s says, it is submitted.
PUNCTUAL_S = 60.0
#: A wall clock that jumps must not go unnoticed for longer.
LOOK_AGAIN_S = 30.0
#: After the log refused a firing.
TRY_AGAIN_S = 1.0


class Told(NamedTuple):
    """A schedule, when it fires next, and its job of last time."""

    schedule: Schedule
    next_us: int | None
    last: Job | None


class Recurring:
    """Submits the jobs of *schedules* when they are due; *run* goes on until it is cancelled.

    A firing that was missed by more than *catch_up_s* is left out, and of several the newest is
    submitted alone. A schedule that never fired has missed nothing, nor has one that is paused.
    """

    def __init__(
        self,
        schedules: Iterable[Schedule],
        submit: Callable[[JobSpec, str, str], Awaitable[object]],
        jobs: Jobs,
        views: Views,
        switches: Switches,
        catch_up_s: float,
    ) -> None:
        self._schedules = list(schedules)
        self._submit = submit
        self._jobs = jobs
        self._views = views
        self._switches = switches
        self._clock = jobs.clock
        self._catch_up_s = catch_up_s
        self._made_us = jobs.clock.now_us()
        #: By name, up to when nothing is left to be submitted.
        self._done_us: dict[str, int] = {}
        self._log = structlog.get_logger("eventjobs.schedules")

    async def run(self) -> None:
        for each in self._schedules:
            last = await self._last(each)
            fired_us = None if last is None else last.spec.run_at_us
            self._done_us[each.name] = self._made_us if fired_us is None else fired_us
        while self._schedules:
            now_us = self._clock.now_us()
            fired = [await self._fire(each, now_us) for each in self._schedules]
            wait_s = LOOK_AGAIN_S if all(fired) else TRY_AGAIN_S
            for each in self._schedules:
                if (next_us := each.next_us(now_us)) is not None:
                    wait_s = min(wait_s, (next_us - self._clock.now_us()) / SECOND_US)
            await sleep(self._clock, max(0.0, wait_s))

    async def told(self) -> list[Told]:
        """All schedules, by name."""
        now_us = self._clock.now_us()
        named = sorted(self._schedules, key=lambda each: each.name)
        return [Told(each, each.next_us(now_us), await self._last(each)) for each in named]

    async def _fire(self, schedule: Schedule, now_us: int) -> bool:
        """Submit what is due; False when that has to be tried again."""
        # A clock that was set back comes to the same times again, and finds them submitted.
        done_us = min(self._done_us[schedule.name], now_us)
        own_s = schedule.catch_up_s
        window_s = max(self._catch_up_s if own_s is None else own_s, PUNCTUAL_S)
        begin_us = max(done_us, now_us - int(window_s * SECOND_US), 0)
        due_us = schedule.newest_us(begin_us, now_us)
        if due_us is not None:
            job_id = schedule.job_id(due_us)
            try:
                if await self._is_wanted(schedule, due_us):
                    await self._submit(schedule.job(due_us), job_id, schedule.tag)
            except Rejected:
                pass  # it was submitted before the code was changed, or is hidden by now
            except LogError as error:
                self._log.warning("firing waits", schedule=schedule.name, error=error.code)
                return False
        self._done_us[schedule.name] = max(done_us, due_us or 0)
        return True

    async def _is_wanted(self, schedule: Schedule, due_us: int) -> bool:
        """Not when it is paused, or was: a firing of that time is not made up for."""
        switch = await self._switches.now("schedule", schedule.name)
        return not switch.paused and due_us > switch.since_us

    async def _last(self, schedule: Schedule) -> Job | None:
        job_id = await self._views.newest_tagged(schedule.tag)
        job = None if job_id is None else await self._jobs.current(job_id)
        if job is None or job.job_id != schedule.job_id(job.spec.run_at_us or 0):
            return None  # somebody else uses the tag
        return job

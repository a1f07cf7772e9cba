"""Submitting recurring jobs when they are due: each firing once."""

from collections.abc import Iterable
from typing import NamedTuple

from eventjobs.clock import sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.commands.pauses import Pauses
from eventjobs.commands.submissions import Submissions
from eventjobs.domain.ids import legacy_firing_id
from eventjobs.domain.job import Job
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import EventjobsError, JobGone, LogError
from eventjobs.handlers.schedule import SECOND_US, CronSchedule
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe
from eventjobs.projections import Views
from eventjobs.supervision import is_cancellation

#: A firing that is no later than this was not missed: whatever catch_up_s says, it is submitted.
ON_TIME_S = 60.0
#: A wall clock that jumps must not go unnoticed for longer.
WAIT_MAX_S = 30.0
#: Its last job is known as one of a schedule, though the clock came so often to its time.
REPEATS_MAX = 100
#: After the log refused a firing.
RETRY_DELAY_S = 1.0


class FiringError(NamedTuple):
    """A firing that failed: when that was, with which code, and why."""

    at_us: int
    code: str
    message: str


class ScheduleStatus(NamedTuple):
    """A schedule, when it fires next, its last job, and why its newest firing failed, if it did."""

    schedule: CronSchedule
    next_us: int | None
    last: Job | None
    error: FiringError | None


class CronScheduler:
    """Submits the jobs of *schedules* when they are due; *run* goes on until it is cancelled.

    A firing that was missed by more than *catch_up_s* is left out, and of several the newest is
    submitted alone. A schedule that never fired has missed nothing, nor has one that is paused.
    """

    def __init__(
        self,
        schedules: Iterable[CronSchedule],
        submissions: Submissions,
        jobs: Jobs,
        views: Views,
        pauses: Pauses,
        catch_up_s: float,
    ) -> None:
        self._schedules = list(schedules)
        self._submissions = submissions
        self._jobs = jobs
        self._views = views
        self._pauses = pauses
        self._clock = jobs.clock
        self._catch_up_s = catch_up_s
        self._opened_us = jobs.clock.now_us()
        #: By name, up to when nothing is left to be submitted.
        self._done_us: dict[str, int] = {}
        self._opened_s = jobs.clock.monotonic_s()
        #: By name, the latest time that was submitted, and when the newest submission was.
        self._fired: dict[str, tuple[int, float]] = {}
        #: By name, the newest time that was submitted once more, and how often it had been.
        self._repeated: dict[str, tuple[int, int]] = {}
        #: By name, of those whose newest firing failed.
        self._errors: dict[str, FiringError] = {}
        self._log = get_logger("eventjobs.schedules")

    async def run(self) -> None:
        while self._schedules:
            waits_s = [await self._fire(each) for each in self._schedules]
            await sleep(self._clock, max(0.0, min(waits_s)))

    async def statuses(self) -> list[ScheduleStatus]:
        """All schedules, by name."""
        now_us = self._clock.now_us()
        named = sorted(self._schedules, key=lambda each: each.name)
        return [
            ScheduleStatus(
                each,
                each.next_us(now_us),
                await self._readable_last_job(each),
                self._errors.get(each.name),
            )
            for each in named
        ]

    async def _readable_last_job(self, schedule: CronSchedule) -> Job | None:
        """Its last job; None also when that cannot be read: the others are shown all the same."""
        try:
            return await self._last_job(schedule)
        except LogError as error:
            self._log.error("last job not read", schedule=schedule.name, error=error.code)
            return None

    async def _fire(self, schedule: CronSchedule) -> float:
        """Submit what is due; the seconds until the next look. A failure ends neither this
        schedule nor another one: it is logged, and the schedule goes on at its next time.
        """
        now_us = self._clock.now_us()
        try:
            if schedule.name not in self._done_us:
                self._done_us[schedule.name] = await self._newest_fired_us(schedule)
            await self._submit_due(schedule, now_us)
            next_us = schedule.next_us(now_us)
        except LogError as error:
            self._log.warning("firing waits", schedule=schedule.name, error=error.code)
            return RETRY_DELAY_S
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._record_failure(schedule, error)
            return RETRY_DELAY_S
        if next_us is None:
            return WAIT_MAX_S
        return min(WAIT_MAX_S, (next_us - self._clock.now_us()) / SECOND_US)

    def _record_failure(self, schedule: CronSchedule, error: BaseException) -> None:
        known = error.code if isinstance(error, EventjobsError) else None
        self._errors[schedule.name] = FiringError(
            self._clock.now_us(), known or "firing_failed", describe(error)
        )
        self._log.error(
            "firing failed",
            schedule=schedule.name,
            type=schedule.spec.type,
            error=describe(error),
            exc_info=None if known else error,
        )

    async def _newest_fired_us(self, schedule: CronSchedule) -> int:
        """The time of its newest job; without one, that of the start of this service."""
        last = await self._last_job(schedule)
        fired_us = None if last is None else last.spec.run_at_us
        if fired_us is not None:
            self._fired[schedule.name] = fired_us, self._opened_s
        return self._opened_us if fired_us is None else fired_us

    async def _submit_due(self, schedule: CronSchedule, now_us: int) -> None:
        """Submit its newest time that is due and not too old, if there is one."""
        # A clock that was set back comes to the same times again, and finds them submitted.
        done_us = min(self._done_us[schedule.name], now_us)
        own_s = schedule.catch_up_s
        window_s = max(self._catch_up_s if own_s is None else own_s, ON_TIME_S)
        begin_us = max(done_us, now_us - int(window_s * SECOND_US), 0)
        due_us = schedule.newest_us(begin_us, now_us)
        if due_us is not None:
            try:
                again = await self._repeat_number(schedule, due_us)
                if again is not None and await self._is_active_at(schedule, due_us):
                    job_id = schedule.job_id(due_us, again)
                    await self._submissions.submit(
                        schedule.job(due_us), actor=schedule.tag, job_id=job_id
                    )
                    newest_us, _ = self._fired.get(schedule.name, (0, 0.0))
                    latest_us = max(due_us, newest_us)
                    self._fired[schedule.name] = latest_us, self._clock.monotonic_s()
                self._errors.pop(schedule.name, None)
            except JobGone:
                pass  # it was submitted, and is hidden by now
            except LogError:
                raise  # it is tried again
            except BaseException as error:
                if is_cancellation(error):
                    raise
                self._record_failure(
                    schedule, error
                )  # validators are the user's, and raise anything
        self._done_us[schedule.name] = max(done_us, due_us or 0)

    async def _repeat_number(self, schedule: CronSchedule, due_us: int) -> int | None:
        """0 for a time that was not yet. A clock that was set back comes to a time once more: then
        None, unless the schedule would be silent for long, and has been so for one interval.
        """
        newest_us, fired_s = self._fired.get(schedule.name, (0, self._opened_s))
        if not schedule.is_silent(due_us, newest_us):
            return 0
        if self._repeated.get(schedule.name, (0, 0))[0] == due_us:
            return self._repeated[schedule.name][1]  # it is tried once more
        interval_s = ((schedule.next_us(due_us) or due_us) - due_us) / SECOND_US
        if self._clock.monotonic_s() - fired_s < 0.75 * interval_s:
            return None
        number = 0
        while await self._jobs.load_even_parked(schedule.job_id(due_us, number)) is not None:
            number += 1
        self._repeated[schedule.name] = due_us, number
        return number

    async def _is_active_at(self, schedule: CronSchedule, due_us: int) -> bool:
        """Not when it is paused, or was: a firing of that time is not made up for."""
        switch = await self._pauses.state("schedule", schedule.name)
        return not switch.paused and due_us > switch.since_us

    async def _last_job(self, schedule: CronSchedule) -> Job | None:
        job_id = await self._views.newest_tagged(schedule.tag)
        job = None if job_id is None else await self._jobs.load_even_parked(job_id)
        if job is None:
            return None
        at_us = job.spec.run_at_us or 0
        if job.job_id == legacy_firing_id(schedule.name, rfc3339(at_us)):
            # Anybody can give a job this id; that of a firing was submitted by its schedule.
            [submitted] = await self._jobs.log.read_job(job.job_id, 0, 1)
            return job if submitted.actor == schedule.tag else None
        # Else a client uses the tag.
        ours = {schedule.job_id(at_us, again) for again in range(REPEATS_MAX)}
        return job if job.job_id in ours else None

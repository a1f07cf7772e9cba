"""The cron scheduler: submits the jobs of schedules when they are due, each firing once."""

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

#: A firing that is late by at most this many seconds is submitted, also with a smaller catch_up_s.
ON_TIME_S = 60.0
#: The longest wait. A wall clock that jumps is noticed within this many seconds.
WAIT_MAX_S = 30.0
#: How often one firing can be repeated, by a clock that is set back again and again.
REPEATS_MAX = 100
#: Seconds before a firing that the log refused is tried again.
RETRY_DELAY_S = 1.0


class FiringError(NamedTuple):
    """A failed firing: the time of the failure, its code and message."""

    at_us: int
    code: str
    message: str


class ScheduleStatus(NamedTuple):
    """A schedule, its next firing, its last job, and the error of a newest firing that failed."""

    schedule: CronSchedule
    next_us: int | None
    last: Job | None
    error: FiringError | None


class CronScheduler:
    """Submits the jobs of *schedules* when they are due.

    A firing that is late by more than *catch_up_s* is left out, and of several late ones only the
    newest is submitted. The firings during a pause are left out. A schedule that has never fired
    begins with its first firing after the start of the service.
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
        self._opened_s = jobs.clock.monotonic_s()
        #: By name: the time up to which all firings are submitted or left out.
        self._done_us: dict[str, int] = {}
        #: By name: the latest firing, and the monotonic time of the newest submission.
        self._fired: dict[str, tuple[int, float]] = {}
        #: By name: the newest firing that was repeated, and its number.
        self._repeated: dict[str, tuple[int, int]] = {}
        #: By name: the error of the newest firing, if it failed.
        self._errors: dict[str, FiringError] = {}
        self._log = get_logger("eventjobs.schedules")

    async def run(self) -> None:
        """Submit jobs until cancelled."""
        while self._schedules:
            waits_s = [await self._fire(schedule) for schedule in self._schedules]
            await sleep(self._clock, max(0.0, min(waits_s)))

    async def statuses(self) -> list[ScheduleStatus]:
        """The status of each schedule, sorted by name."""
        now_us = self._clock.now_us()
        return [
            ScheduleStatus(
                schedule,
                schedule.next_us(now_us),
                await self._readable_last_job(schedule),
                self._errors.get(schedule.name),
            )
            for schedule in sorted(self._schedules, key=lambda schedule: schedule.name)
        ]

    async def _readable_last_job(self, schedule: CronSchedule) -> Job | None:
        """The last job. None also when the log cannot read it: the other schedules are listed."""
        try:
            return await self._last_job(schedule)
        except LogError as error:
            self._log.error("last job not read", schedule=schedule.name, error=error.code)
            return None

    async def _fire(self, schedule: CronSchedule) -> float:
        """Submit the firing that is due, if any. Returns the seconds until the next call.

        A failure is logged and ends no schedule: this one goes on with its next firing.
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
        code = error.code if isinstance(error, EventjobsError) else None
        self._errors[schedule.name] = FiringError(
            self._clock.now_us(), code or "firing_failed", describe(error)
        )
        self._log.error(
            "firing failed",
            schedule=schedule.name,
            type=schedule.spec.type,
            error=describe(error),
            exc_info=None if code else error,
        )

    async def _newest_fired_us(self, schedule: CronSchedule) -> int:
        """The firing of the newest job. Without one, the start of this service."""
        job = await self._last_job(schedule)
        fired_us = None if job is None else job.spec.run_at_us
        if fired_us is not None:
            self._fired[schedule.name] = fired_us, self._opened_s
        return self._opened_us if fired_us is None else fired_us

    async def _submit_due(self, schedule: CronSchedule, now_us: int) -> None:
        """Submit the newest firing that is due and not too late, if there is one."""
        # After the clock was set back, the same firings are due again.
        done_us = min(self._done_us[schedule.name], now_us)
        catch_up_s = self._catch_up_s if schedule.catch_up_s is None else schedule.catch_up_s
        window_us = int(max(catch_up_s, ON_TIME_S) * SECOND_US)
        due_us = schedule.newest_us(max(done_us, now_us - window_us, 0), now_us)
        if due_us is not None:
            try:
                await self._submit(schedule, due_us)
                self._errors.pop(schedule.name, None)
            except JobGone:
                pass  # it was submitted, and has expired
            except LogError:
                raise  # the firing is tried again
            except BaseException as error:  # a validator of the handler may raise anything
                if is_cancellation(error):
                    raise
                self._record_failure(schedule, error)
        self._done_us[schedule.name] = max(done_us, due_us or 0)

    async def _submit(self, schedule: CronSchedule, due_us: int) -> None:
        number = await self._repeat_number(schedule, due_us)
        if number is None or not await self._is_active_at(schedule, due_us):
            return
        job_id = schedule.job_id(due_us, number)
        await self._submissions.submit(schedule.job(due_us), actor=schedule.tag, job_id=job_id)
        newest_us, _ = self._fired.get(schedule.name, (0, 0.0))
        self._fired[schedule.name] = max(due_us, newest_us), self._clock.monotonic_s()

    async def _repeat_number(self, schedule: CronSchedule, due_us: int) -> int | None:
        """How often the firing was submitted before; 0 for a new one. None if it must not be again.

        A clock that was set back makes old firings due again. They are repeated if the schedule
        would be silent for long otherwise, and has been so for one interval.
        """
        newest_us, fired_s = self._fired.get(schedule.name, (0, self._opened_s))
        if not schedule.is_silent(due_us, newest_us):
            return 0
        if self._repeated.get(schedule.name, (0, 0))[0] == due_us:
            return self._repeated[schedule.name][1]  # its submission failed, and is tried again
        interval_s = ((schedule.next_us(due_us) or due_us) - due_us) / SECOND_US
        if self._clock.monotonic_s() - fired_s < 0.75 * interval_s:
            return None
        number = 0
        while await self._jobs.load_even_parked(schedule.job_id(due_us, number)) is not None:
            number += 1
        self._repeated[schedule.name] = due_us, number
        return number

    async def _is_active_at(self, schedule: CronSchedule, due_us: int) -> bool:
        """Whether the schedule was not paused at *due_us*, and is not now."""
        pause = await self._pauses.state("schedule", schedule.name)
        return not pause.paused and due_us > pause.since_us

    async def _last_job(self, schedule: CronSchedule) -> Job | None:
        """The newest job that the schedule has submitted."""
        job_id = await self._views.newest_tagged(schedule.tag)
        job = None if job_id is None else await self._jobs.load_even_parked(job_id)
        if job is None:
            return None
        at_us = job.spec.run_at_us or 0
        if job.job_id == legacy_firing_id(schedule.name, rfc3339(at_us)):
            # A client can choose such an id. The job of a firing has the schedule as its actor.
            [submission] = await self._jobs.log.read_job(job.job_id, 0, 1)
            return job if submission.actor == schedule.tag else None
        # A client can use the tag of a schedule, too.
        firing_ids = {schedule.job_id(at_us, number) for number in range(REPEATS_MAX)}
        return job if job.job_id in firing_ids else None

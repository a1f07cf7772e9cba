"""Recurring jobs: when each is to run, and submitting it then, once."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import structlog
from cronsim import CronSim, CronSimError

from eventjobs.clock import sleep
from eventjobs.errors import InvalidInput, LogError, Rejected
from eventjobs.events import JobSpec, rfc3339
from eventjobs.job import Job
from eventjobs.jobs import Jobs
from eventjobs.specs import spec_of
from projections import Views

#: Where the ids of firings live.
FIRINGS = UUID("197ed900-755e-440b-99ed-6e67f79b0984")
SECOND_US = 1_000_000
#: A firing that is no later than this was not missed: whatever catch_up_s says, it is submitted.
PUNCTUAL_S = 60.0
CATCH_UP_MAX_S = 31_536_000
#: A wall clock that jumps must not go unnoticed for longer.
LOOK_AGAIN_S = 30.0
#: After the log refused a firing.
TRY_AGAIN_S = 1.0


@dataclass(frozen=True)
class Schedule:
    """A job that is submitted again and again, by the clock on the wall of a time zone."""

    name: str
    cron: str
    zone: ZoneInfo
    spec: JobSpec
    #: How old the newest missed firing may be to be submitted still. None: as the settings say.
    catch_up_s: float | None = None

    @property
    def tag(self) -> str:
        """What all its jobs carry."""
        return f"schedule:{self.name}"

    def firings(self, after_us: int) -> Iterator[int]:
        """When it fires after *after_us*: never twice at one time, and never back in time."""
        begin = datetime.fromtimestamp(after_us // SECOND_US, self.zone)
        for at in CronSim(self.cron, begin):
            at_us = int(at.timestamp()) * SECOND_US
            # Where the clock is set back, a time on the wall may be one that has been before.
            if at_us > after_us:
                yield at_us
                after_us = at_us

    def next_us(self, after_us: int) -> int | None:
        return next(self.firings(after_us), None)

    def newest_us(self, after_us: int, until_us: int) -> int | None:
        """The last firing after *after_us* that is not after *until_us*."""
        back_us = 3600 * SECOND_US
        while True:
            # From near to far: after a long time away, the newest of very many is wanted.
            begin_us = max(after_us, until_us - back_us)
            newest_us = None
            for at_us in self.firings(begin_us):
                if at_us > until_us:
                    break
                newest_us = at_us
            if newest_us is not None or begin_us == after_us:
                return newest_us
            back_us *= 8

    def job_id(self, at_us: int) -> str:
        """Of its job of *at_us*: the same in every process and after every restart."""
        return str(uuid5(FIRINGS, f"{self.name}\0{rfc3339(at_us)}"))

    def job(self, at_us: int) -> JobSpec:
        return replace(self.spec, run_at_us=at_us, tags=(*self.spec.tags, self.tag))


def schedule(
    name: str,
    cron: str,
    type: str,
    payload: Any = None,
    *,
    timezone: str = "UTC",
    catch_up_s: float | None = None,
    **fields: Any,
) -> Schedule:
    """Declare that a job of *type* is submitted at the times of *cron*, five fields, in *timezone*.

    *fields* are further ones of the job: tags, priority, timeout_s, … The name is what its jobs
    are known by; under another name it is another schedule. Raises ValueError.
    """
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise ValueError("a schedule's name has 1 to 80 printable characters")
    if taken := {"run_at", "run_at_us", "after", "parent"} & set(fields):
        raise ValueError(f"schedule {name!r}: {', '.join(sorted(taken))} cannot be set for it")
    if catch_up_s is not None and not 0 <= catch_up_s <= CATCH_UP_MAX_S:
        raise ValueError(f"schedule {name!r}: catch_up_s is from 0 to {CATCH_UP_MAX_S}")
    if len(cron.split()) != 5:
        raise ValueError(f"schedule {name!r}: {cron!r} does not have the five fields of cron")
    try:
        made = Schedule(name, cron, _zone(timezone), spec_of(type, payload, **fields), catch_up_s)
        if made.next_us(1_735_689_600 * SECOND_US) is None:
            raise ValueError(f"schedule {name!r}: {cron!r} is never")
    except (CronSimError, InvalidInput) as error:
        raise ValueError(f"schedule {name!r}: {error}") from error
    return made


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not found; not a name; not a file's name
        raise InvalidInput(f"there is no time zone {name!r}") from error


class Told(NamedTuple):
    """A schedule, when it fires next, and its job of last time."""

    schedule: Schedule
    next_us: int | None
    last: Job | None


class Recurring:
    """Submits the jobs of *schedules* when they are due; *run* goes on until it is cancelled.

    A firing that was missed by more than *catch_up_s* is left out, and of several the newest is
    submitted alone. A schedule that never fired has missed nothing.
    """

    def __init__(
        self,
        schedules: Iterable[Schedule],
        submit: Callable[[JobSpec, str, str], Awaitable[object]],
        jobs: Jobs,
        views: Views,
        catch_up_s: float,
    ) -> None:
        self._schedules = list(schedules)
        self._submit = submit
        self._jobs = jobs
        self._views = views
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
                await self._submit(schedule.job(due_us), job_id, schedule.tag)
            except Rejected:
                pass  # it was submitted before the code was changed, or is hidden by now
            except LogError as error:
                self._log.warning("firing waits", schedule=schedule.name, error=error.code)
                return False
        self._done_us[schedule.name] = max(done_us, due_us or 0)
        return True

    async def _last(self, schedule: Schedule) -> Job | None:
        job_id = await self._views.newest_tagged(schedule.tag)
        job = None if job_id is None else await self._jobs.current(job_id)
        if job is None or job.job_id != schedule.job_id(job.spec.run_at_us or 0):
            return None  # somebody else uses the tag
        return job

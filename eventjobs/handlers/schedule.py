"""Schedules: recurring jobs at the times of a cron expression in a time zone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, Field

from eventjobs.domain.ids import firing_id
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.submission import build_spec, rebuild_spec
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import STRICT, validate
from eventjobs.errors import InvalidInput

SECOND_US = 1_000_000
#: Most firings that are skipped when the wall clock was set back; if there are more, none is.
SILENT_MAX = 3
CATCH_UP_MAX_S = 31_536_000


@dataclass(frozen=True)
class CronSchedule:
    """A job that is submitted at the times of *cron* on the wall clock of *zone*."""

    name: str
    cron: str
    zone: ZoneInfo
    spec: JobSpec
    #: Oldest missed firing that is still submitted, seconds. None: the setting `catch_up_s`.
    catch_up_s: float | None = None

    @property
    def tag(self) -> str:
        """The tag of all its jobs."""
        return f"schedule:{self.name}"

    def firings(self, after_us: int) -> Iterator[int]:
        """The firing times after *after_us*, ascending, each once."""
        begin = datetime.fromtimestamp(after_us // SECOND_US, self.zone)
        for at in CronSim(self.cron, begin):
            at_us = int(at.timestamp()) * SECOND_US
            # When the wall clock is set back, cronsim may yield an earlier time.
            if at_us > after_us:
                yield at_us
                after_us = at_us

    def next_us(self, after_us: int) -> int | None:
        return next(self.firings(after_us), None)

    def newest_us(self, after_us: int, until_us: int) -> int | None:
        """The last firing after *after_us* that is not after *until_us*."""
        back_us = 3600 * SECOND_US
        while True:
            # Search backwards in growing windows: after a long downtime there may be very many.
            begin_us = max(after_us, until_us - back_us)
            newest_us = None
            for at_us in self.firings(begin_us):
                if at_us > until_us:
                    break
                newest_us = at_us
            if newest_us is not None or begin_us == after_us:
                return newest_us
            back_us *= 8

    def job_id(self, at_us: int, again: int = 0) -> str:
        """The id of the job of *at_us*: the same in every process and after every restart."""
        return firing_id(self.name, rfc3339(at_us), again)

    def is_silent(self, after_us: int, until_us: int) -> bool:
        """Whether SILENT_MAX or more firings lie between *after_us* and *until_us*."""
        times = list(islice(self.firings(after_us), SILENT_MAX))
        return len(times) == SILENT_MAX and times[-1] <= until_us

    def job(self, at_us: int) -> JobSpec:
        return replace(self.spec, run_at_us=at_us, tags=(*self.spec.tags, self.tag))


class _ScheduleModel(BaseModel):
    model_config = STRICT

    name: str
    cron: str
    timezone: str
    catch_up_s: float | None = Field(ge=0, le=CATCH_UP_MAX_S, allow_inf_nan=False)


def schedule(
    name: str,
    cron: str,
    type: str,
    payload: Any = None,
    *,
    timezone: str = "UTC",
    catch_up_s: float | None = None,
    **fields: Any,
) -> CronSchedule:
    """Declare that a job of *type* is submitted at the times of *cron*, five fields, in *timezone*.

    *fields* are further fields of the job: tags, priority, timeout_s, … The name identifies the
    schedule: under another name it is another schedule. Raises InvalidInput.
    """
    values = {"name": name, "cron": cron, "timezone": timezone, "catch_up_s": catch_up_s}
    options = validate(_ScheduleModel, values, "the schedule cannot be declared")
    try:
        if not 1 <= len(options.name) <= 80 or not options.name.isprintable():
            raise _invalid("name", "a schedule's name has 1 to 80 printable characters")
        if refused := {"run_at", "run_at_us", "after", "parent"} & set(fields):
            raise _invalid(min(refused), f"{', '.join(sorted(refused))} cannot be set for it")
        if len(options.cron.split()) != 5:
            raise _invalid("cron", f"{options.cron!r} does not have the five fields of cron")
        spec = build_spec(type, payload, fields)
        declared = CronSchedule(
            options.name, options.cron, _zone(options.timezone), spec, options.catch_up_s
        )
        at_us = _check_fires(declared)
        rebuild_spec(declared.job(at_us))  # with a firing's tag and time
    except InvalidInput as error:
        raise InvalidInput(f"schedule {options.name!r}: {error}", error.errors) from error
    return declared


def _check_fires(schedule: CronSchedule) -> int:
    """A firing of *schedule*. Raises InvalidInput for a cron expression that never fires."""
    try:
        at_us = schedule.next_us(1_735_689_600 * SECOND_US)
    except CronSimError as error:
        raise _invalid("cron", str(error)) from error
    if at_us is None:
        raise _invalid("cron", f"{schedule.cron!r} is never")
    return at_us


def _invalid(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, [{"field": field, "message": message}])


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not found; not a name; not a file's name
        raise _invalid("timezone", f"there is no time zone {name!r}") from error

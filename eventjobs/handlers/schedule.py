"""Recurring jobs: what is submitted again and again, and when."""

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
from eventjobs.domain.submission import build_spec, checked
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import STRICT, read
from eventjobs.errors import InvalidInput

SECOND_US = 1_000_000
#: So many times that a clock comes to again are left out; if there are more, none is.
SILENT_MAX = 3
CATCH_UP_MAX_S = 31_536_000


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

    def job_id(self, at_us: int, again: int = 0) -> str:
        """Of its job of *at_us*: the same in every process and after every restart."""
        return firing_id(self.name, rfc3339(at_us), again)

    def is_silent(self, after_us: int, until_us: int) -> bool:
        """Whether it would leave out many of its times, were there none until *until_us*."""
        times = list(islice(self.firings(after_us), SILENT_MAX))
        return len(times) == SILENT_MAX and times[-1] <= until_us

    def job(self, at_us: int) -> JobSpec:
        return replace(self.spec, run_at_us=at_us, tags=(*self.spec.tags, self.tag))


class _Said(BaseModel):
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
) -> Schedule:
    """Declare that a job of *type* is submitted at the times of *cron*, five fields, in *timezone*.

    *fields* are further ones of the job: tags, priority, timeout_s, … The name is what its jobs
    are known by; under another name it is another schedule. Raises InvalidInput.
    """
    given = {"name": name, "cron": cron, "timezone": timezone, "catch_up_s": catch_up_s}
    said = read(_Said, given, "the schedule cannot be declared")
    try:
        if not 1 <= len(said.name) <= 80 or not said.name.isprintable():
            raise _unfit("name", "a schedule's name has 1 to 80 printable characters")
        if taken := {"run_at", "run_at_us", "after", "parent"} & set(fields):
            raise _unfit(min(taken), f"{', '.join(sorted(taken))} cannot be set for it")
        if len(said.cron.split()) != 5:
            raise _unfit("cron", f"{said.cron!r} does not have the five fields of cron")
        spec = build_spec(type, payload, fields)
        made = Schedule(said.name, said.cron, _zone(said.timezone), spec, said.catch_up_s)
        at_us = _first(made)
        checked(made.job(at_us))  # with the tag and the time that a firing adds
    except InvalidInput as error:
        raise InvalidInput(f"schedule {said.name!r}: {error}", error.errors) from error
    return made


def _first(schedule: Schedule) -> int:
    """Some firing. Raises InvalidInput for a cron expression that is none, or never fires."""
    try:
        at_us = schedule.next_us(1_735_689_600 * SECOND_US)
    except CronSimError as error:
        raise _unfit("cron", str(error)) from error
    if at_us is None:
        raise _unfit("cron", f"{schedule.cron!r} is never")
    return at_us


def _unfit(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, [{"field": field, "message": message}])


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not found; not a name; not a file's name
        raise _unfit("timezone", f"there is no time zone {name!r}") from error

"""Recurring jobs: what is submitted again and again, and when."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from eventjobs.errors import InvalidInput
from eventjobs.events import JobSpec, rfc3339
from eventjobs.identity import firing_id
from eventjobs.specs import spec_of

SECOND_US = 1_000_000
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

    def job_id(self, at_us: int) -> str:
        """Of its job of *at_us*: the same in every process and after every restart."""
        return firing_id(self.name, rfc3339(at_us))

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

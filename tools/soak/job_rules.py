"""What the events of a job must add up to, kept without asking the job: the model's conscience."""

from typing import NamedTuple

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    Event,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobRetried,
    LateReportRefused,
)
from eventjobs.domain.job import Job


class Violation(Exception):
    """Something happened that must not."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class Life(NamedTuple):
    """What has happened to one job so far, as far as the rules ask."""

    #: number of the last claim
    claimed: int
    #: the attempt that holds the job, if one does
    holds: int | None
    #: claims that count, since it was submitted or retried
    tries: int
    #: how the present run of the job ended: it may not do so twice
    ended: str | None


NEW = Life(0, None, 0, None)


def judged(life: Life, event: Event, what: str, job: Job) -> Life:
    """*life* after *event*, by which the job became *job*. Raises Violation."""
    after = _lived(life, event, what)
    if after.tries > job.spec.max_attempts:
        raise Violation(what, f"claim {after.claimed} is one too many")
    if (after.ended is not None) != job.finished:
        raise Violation(what, f"it is {job.status}, but its end is {after.ended}")
    if what == "lost" and not (job.finished or job.status == "queued"):
        raise Violation(what, f"its worker is lost, and it is {job.status}")
    if (after.holds == job.attempt) != (job.status == "running"):
        raise Violation(what, f"attempt {after.holds} holds it, and it is {job.status}")
    return after


def _lived(life: Life, event: Event, what: str) -> Life:
    match event:
        case AttemptStarted(attempt=attempt):
            if life.holds is not None:
                raise Violation(what, f"it was claimed while {life.holds} held it")
            if life.ended is not None:
                raise Violation(what, f"it was claimed when it was {life.ended}")
            if attempt != life.claimed + 1:
                raise Violation(what, f"attempt {attempt} follows {life.claimed}")
            return life._replace(claimed=attempt, holds=attempt, tries=life.tries + 1)
        case AttemptReleased(attempt=attempt):
            return _let_go(life, attempt, what)._replace(tries=life.tries - 1)
        case AttemptFailed(attempt=attempt, retry_at_us=retry_at_us):
            free = _let_go(life, attempt, what)
            return free if retry_at_us is not None else _end(free, attempt, "failed", what)
        case JobCompleted(attempt=attempt):
            return _end(_let_go(life, attempt, what), attempt, "completed", what)
        case JobCancelled(attempt=None):
            if life.holds is not None:
                raise Violation(what, f"cancelled in the hands of attempt {life.holds}")
            return _end(life, None, "cancelled", what)
        case JobCancelled(attempt=attempt):
            return _end(_let_go(life, attempt, what), attempt, "cancelled", what)
        case JobRetried():
            if life.ended not in ("failed", "cancelled"):
                raise Violation(what, f"retried when it was {life.ended}")
            return life._replace(tries=0, ended=None)
        case LateReportRefused(attempt=attempt):
            if attempt == life.holds:
                raise Violation(what, f"attempt {attempt} was refused, and holds it")
            return life
        case JobExpired():
            if life.ended is None:
                raise Violation(what, "hidden before its end")
            return life
        case _:
            attempt = getattr(event, "attempt", life.holds)
            if attempt != life.holds:
                raise Violation(what, f"attempt {attempt} reports, but {life.holds} holds it")
            return life


def _let_go(life: Life, attempt: int | None, what: str) -> Life:
    if attempt != life.holds:
        raise Violation(what, f"attempt {attempt} ended, but {life.holds} holds it")
    return life._replace(holds=None)


def _end(life: Life, attempt: int | None, how: str, what: str) -> Life:
    if life.ended is not None:
        raise Violation(what, f"it was {life.ended}, and now is {how}")
    if attempt is not None and attempt != life.claimed:
        raise Violation(what, f"attempt {attempt} ended it, but {life.claimed} was the last claim")
    return life._replace(ended=how)

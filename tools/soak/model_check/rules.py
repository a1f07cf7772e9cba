"""The rules for the events of a job, checked without the code that folds them."""

from typing import NamedTuple

from eventjobs.domain import events as e
from eventjobs.domain.job import Job


class Violation(Exception):
    """A rule was broken."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class Life(NamedTuple):
    """The past of one job, as far as the rules need it."""

    #: number of the last claim
    claimed: int
    #: the attempt that holds the job, if one does
    holds: int | None
    #: attempts that count, since it was submitted or retried
    tries: int
    #: how the job ended since it was submitted or retried
    ended: str | None


NEW = Life(0, None, 0, None)


def judge(life: Life, event: e.Event, what: str, job: Job) -> Life:
    """*life* after *event*, which changed the job to *job*. Raises Violation."""
    after = _life_after(life, event, what)
    if after.tries > job.spec.max_attempts:
        raise Violation(what, f"claim {after.claimed} is one too many")
    if (after.ended is not None) != job.finished:
        raise Violation(what, f"it is {job.status}, but its end is {after.ended}")
    if what == "lost" and not (job.finished or job.status == "queued"):
        raise Violation(what, f"its worker is lost, and it is {job.status}")
    if (after.holds == job.attempt) != (job.status == "running"):
        raise Violation(what, f"attempt {after.holds} holds it, and it is {job.status}")
    return after


def _life_after(life: Life, event: e.Event, what: str) -> Life:
    match event:
        case e.AttemptStarted(attempt=attempt):
            if life.holds is not None:
                raise Violation(what, f"it was claimed while {life.holds} held it")
            if life.ended is not None:
                raise Violation(what, f"it was claimed when it was {life.ended}")
            if attempt != life.claimed + 1:
                raise Violation(what, f"attempt {attempt} follows {life.claimed}")
            return life._replace(claimed=attempt, holds=attempt, tries=life.tries + 1)
        case e.AttemptReleased(attempt=attempt):
            return _let_go(life, attempt, what)._replace(tries=life.tries - 1)
        case e.AttemptFailed(attempt=attempt, retry_at_us=retry_at_us):
            free = _let_go(life, attempt, what)
            return free if retry_at_us is not None else _end(free, attempt, "failed", what)
        case e.JobCompleted(attempt=attempt):
            return _end(_let_go(life, attempt, what), attempt, "completed", what)
        case e.JobCancelled(attempt=None):
            if life.holds is not None:
                raise Violation(what, f"cancelled in the hands of attempt {life.holds}")
            return _end(life, None, "cancelled", what)
        case e.JobCancelled(attempt=attempt):
            return _end(_let_go(life, attempt, what), attempt, "cancelled", what)
        case e.JobRetried():
            if life.ended not in ("failed", "cancelled"):
                raise Violation(what, f"retried when it was {life.ended}")
            return life._replace(tries=0, ended=None)
        case e.LateReportRefused(attempt=attempt):
            if attempt == life.holds:
                raise Violation(what, f"attempt {attempt} was refused, and holds it")
            return life
        case e.JobExpired():
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

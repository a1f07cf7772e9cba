"""No order of steps of workers, crashes, pauses and people breaks a rule."""

from collections.abc import Callable
from typing import Any

import pytest

from eventjobs.domain import decisions
from eventjobs.domain import events as e
from eventjobs.domain.job import Job, Status
from eventjobs.errors import StaleAttempt, WrongState
from eventjobs.tools.soak.model_check.search import search
from eventjobs.tools.soak.model_check.transitions import Bounds, Decisions
from tests.conftest import CAMPAIGN_RESULT

#: One of the workers runs in the service. `make soak` searches larger models.
WORLDS = {
    "three workers, two jobs, a cancel, a restart": Bounds(
        remote_workers=2, jobs=2, cancels=1, restarts=1, lates=1
    ),
    "two workers, two jobs, a release, a retry": Bounds(jobs=2, releases=1, retries=1),
    "two workers, one job, twice what people do": Bounds(cancels=2, retries=2, hides=1),
    "two workers, one job, twice what services do": Bounds(
        max_attempts=3, releases=2, restarts=2, lates=1, handovers=1
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_state_that_can_be_reached_is_right_and_comes_to_an_end(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    result = search(WORLDS[name])
    record_property(CAMPAIGN_RESULT, f"{name}: {result.states} states, {result.steps} steps")
    assert result.complete
    assert not result.violation, " -> ".join([*result.trace, result.violation])
    assert result.states > 10_000, "nearly nothing could happen"


# --- decisions that would be wrong are noticed


def completed_whoever_asks(job: Job, attempt: int, result: Any) -> e.JobCompleted:
    return e.JobCompleted(attempt, result)


def completed_never(job: Job, attempt: int, result: Any) -> e.JobCompleted:
    raise StaleAttempt


def completed_if_running(job: Job, attempt: int, result: Any) -> e.JobCompleted:
    if job.status != Status.RUNNING:
        raise StaleAttempt
    return e.JobCompleted(attempt, result)


def failed_whoever_asks(job: Job, failed: e.AttemptFailed) -> e.AttemptFailed:
    return failed


def failed_for_ever_anew(job: Job, failed: e.AttemptFailed) -> e.AttemptFailed | e.JobCancelled:
    decisions.fail(job, failed)
    return e.AttemptFailed(failed.attempt, failed.code, True, failed.retry_at_us or 1)


def started_in_any_state(
    job: Job, now_us: int, worker: str, lease_s: float | None
) -> e.AttemptStarted:
    return e.AttemptStarted(job.attempt + 1, worker, lease_s)


def started_when_cancelled(
    job: Job, now_us: int, worker: str, lease_s: float | None
) -> e.AttemptStarted:
    if job.status != Status.CANCELLED:
        return decisions.start(job, now_us, worker, lease_s)
    return e.AttemptStarted(job.attempt + 1, worker, lease_s)


def started_once(job: Job, now_us: int, worker: str, lease_s: float | None) -> e.AttemptStarted:
    if job.attempt:
        raise WrongState
    return decisions.start(job, now_us, worker, lease_s)


def started_with_the_same_number(
    job: Job, now_us: int, worker: str, lease_s: float | None
) -> e.AttemptStarted:
    decisions.start(job, now_us, worker, lease_s)
    return e.AttemptStarted(max(job.attempt, 1), worker, lease_s)


def released_as_often_as_told(job: Job, attempt: int, reason: str) -> e.AttemptReleased:
    return e.AttemptReleased(attempt, reason)


def handed_over_by_anybody(job: Job, handed: e.AttemptHandedOver) -> e.AttemptHandedOver:
    return handed


def cancelled_at_once(job: Job, reason: str | None = None) -> e.JobCancelled | None:
    return None if job.finished else e.JobCancelled(None)


def refused_though_it_holds(job: Job, attempt: int, report: str) -> e.LateReportRefused:
    return e.LateReportRefused(attempt, report)


def retried_whenever(job: Job, reason: str | None = None) -> e.JobRetried:
    return e.JobRetried()


WRONG = {
    "completing asks for nothing": (
        Decisions(complete=completed_whoever_asks),
        "attempt 1 ended, but None holds it",
    ),
    "completing asks for a running job only": (
        Decisions(complete=completed_if_running),
        "attempt 1 ended, but 2 holds it",
    ),
    "failing asks for nothing": (
        Decisions(fail=failed_whoever_asks),
        "attempt 1 ended, but None holds it",
    ),
    "a job is tried more often than it may": (
        Decisions(fail=failed_for_ever_anew),
        "claim 3 is one too many",
    ),
    "a running job is claimed": (
        Decisions(start=started_in_any_state),
        "it was claimed while 1 held it",
    ),
    "a cancelled job is claimed": (
        Decisions(start=started_when_cancelled),
        "it was claimed when it was cancelled",
    ),
    "a job is never tried again": (
        Decisions(start=started_once),
        "it never ends without a person's step",
    ),
    "two attempts have one number": (
        Decisions(start=started_with_the_same_number),
        "attempt 1 follows 1",
    ),
    "releasing asks for nothing": (
        Decisions(release=released_as_often_as_told),
        "attempt 1 ended, but None holds it",
    ),
    "who does not hold a job hands it over": (
        Decisions(hand_over=handed_over_by_anybody),
        "attempt 1 reports, but None holds it",
    ),
    "a running job is cancelled under its worker's hands": (
        Decisions(cancel=cancelled_at_once),
        "cancelled in the hands of attempt 1",
    ),
    "who holds a job is told that it was late": (
        Decisions(refuse=refused_though_it_holds, complete=completed_never),
        "attempt 1 was refused, and holds it",
    ),
    "a job that was completed is retried": (
        Decisions(retry=retried_whenever),
        "retried when it was None",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_noticed_when(name: str) -> None:
    wrong, complaint = WRONG[name]
    some = Bounds(cancels=1, retries=1, releases=1, restarts=1, lates=1, handovers=1)
    result = search(some, wrong)
    assert result.violation == complaint
    assert result.trace

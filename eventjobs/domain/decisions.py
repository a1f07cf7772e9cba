"""Decisions: each function takes a job and a command, and returns the one event that follows.

None is a command that changes nothing. A command that the job does not allow raises a Rejected.
"""

from dataclasses import replace

from eventjobs.domain.events import (
    ArtifactStored,
    AttemptFailed,
    AttemptHandedOver,
    AttemptReleased,
    AttemptStarted,
    BreakerChanged,
    CancelRequested,
    HookCompleted,
    HookFailed,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobImported,
    JobRetried,
    JobSubmitted,
    LateReportRefused,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.domain.job import Job, Status, record_digest, require_readable
from eventjobs.domain.spec import JSON, JobSpec
from eventjobs.domain.steps import check_count
from eventjobs.errors import JobExists, JobGone, JobNotFound, StaleAttempt, UnknownStep, WrongState

#: Late reports recorded for one job. More would let a lost worker fill the log.
LATE_MAX = 20
#: Lines in the log of one job, unless the service has another limit.
LINES_MAX = 10_000


#: The events that a running attempt may report.
Report = ProgressReported | LogWritten | ArtifactStored | StepCompleted | BreakerChanged


def submit(job: Job | None, spec: JobSpec) -> JobSubmitted | None:
    """Submit a job. The same specification again is a no-op. Raises JobExists for another one.

    Other sensitive fields and hooks may have been declared since then.
    """
    if job is None:
        return JobSubmitted(spec)
    if job.spec.owner != spec.owner:  # first, so that nothing more is said about another's job
        raise JobExists
    if require_readable(job).expired_us is not None:
        raise JobGone(expired_us=job.expired_us)
    if job.spec != spec and job.spec != replace(
        spec, sensitive=job.spec.sensitive, hooks=job.spec.hooks
    ):
        raise JobExists
    return None


def import_job(
    job: Job | None, imported: JobImported, *, newest: bool = True, revive: bool = False
) -> JobImported | None:
    """Record the state of a job in another store; a no-op when it is the recorded one.

    A state that is not the *newest* is part of the job's old history, and is recorded once. With
    *revive* a hidden job is shown again, although its state is the recorded one. Raises JobExists
    for a job that was submitted to this service.
    """
    if job is None:
        return imported
    if (origin := require_readable(job).imported) is None:
        raise JobExists("a job with this id was submitted to this service")
    if not newest and (imported.line or 0) <= (origin["line"] or 0):
        return None
    hidden = revive and job.expired_us is not None
    return imported if hidden or origin["digest"] != record_digest(imported) else None


def delete_import(job: Job | None) -> JobExpired:
    """Hide an imported job in any state, for the program that runs it."""
    job = _require_visible(job)
    if job.imported is None:
        raise WrongState("the job was submitted to this service")
    return JobExpired("deleted")


def start(
    job: Job | None, now_us: int, worker: str, lease_s: float | None = None
) -> AttemptStarted:
    """Claim a job that is due. Raises WrongState when it is not queued, or not due yet."""
    job = _require_own(job)
    if job.status != Status.QUEUED or job.due_us > now_us:
        raise WrongState(f"the job is {job.status} and cannot be started now")
    return AttemptStarted(job.attempt + 1, worker, lease_s)


def hand_over(job: Job | None, handed: AttemptHandedOver) -> AttemptHandedOver | None:
    """Record that an external service has accepted a running attempt."""
    job = _require_running(job, handed.attempt)
    return None if job.silence_s is not None else handed


def report(job: Job | None, event: Report, lines_max: int = LINES_MAX) -> Report | None:
    """Record a report of a running attempt. A repeated report is a new event.

    Log lines after *lines_max* are dropped; one more line is recorded that says that. Raises
    StaleAttempt, TooManySteps.
    """
    job = _require_running(job, event.attempt)
    if isinstance(event, LogWritten) and job.lines >= lines_max:
        text = f"the log of this job has {lines_max} lines; what comes after them is dropped"
        return LogWritten(event.attempt, "warning", text) if job.lines == lines_max else None
    if isinstance(event, StepCompleted):
        check_count(job.steps, event)
    return event


def refuse(job: Job | None, attempt: int, report: str) -> LateReportRefused | None:
    """Record, once, a *report* of an *attempt* that no longer held the job."""
    if job is None or attempt > job.attempt or attempt < 1:
        return None  # there never was such an attempt
    if job.status == Status.RUNNING and job.attempt == attempt:
        return None
    if (attempt, report) in job.late or len(job.late) >= LATE_MAX:
        return None
    return LateReportRefused(attempt, report)


def complete(job: Job | None, attempt: int, result: JSON, issues: JSON = None) -> JobCompleted:
    _require_running(job, attempt)
    return JobCompleted(attempt, result, issues)


def fail(job: Job | None, failed: AttemptFailed) -> AttemptFailed | JobCancelled:
    """End an attempt with a failure. The job is queued for *retry_at_us* if it has tries left and
    its cancellation was not requested.

    An attempt that a circuit breaker held off uses no try, if the job has more than one.
    """
    job = _require_running(job, failed.attempt)
    if failed.retry_at_us is None:
        return failed
    if job.cancel_requested_us is not None:
        return JobCancelled(failed.attempt)
    left = job.tries < job.spec.max_attempts
    if failed.retryable and (left or (failed.held_off and job.spec.max_attempts > 1)):
        return failed
    return AttemptFailed(
        failed.attempt, failed.code, failed.retryable, None, failed.message, failed.details
    )


def release(job: Job | None, attempt: int, reason: str) -> AttemptReleased | JobCancelled:
    """End an attempt unfinished, without counting it. A job whose cancellation was requested is
    cancelled.
    """
    job = _require_running(job, attempt)
    if job.cancel_requested_us is not None:
        return JobCancelled(attempt)
    return AttemptReleased(attempt, reason)


def cancel(job: Job | None, reason: str | None = None) -> CancelRequested | JobCancelled | None:
    """Cancel a job: at once when it is queued, by a request when it runs. Raises WrongState when it
    has completed or failed.
    """
    job = _require_own(job)
    if job.status == Status.QUEUED:
        return JobCancelled(None, reason)
    if job.status == Status.RUNNING:
        return None if job.cancel_requested_us is not None else CancelRequested(reason)
    if job.status == Status.CANCELLED:
        return None
    raise WrongState(f"cannot cancel a job that is {job.status}")


def cancel_attempt(job: Job | None, attempt: int) -> JobCancelled:
    """End an attempt that stopped because the job's cancellation was requested."""
    _require_running(job, attempt)
    return JobCancelled(attempt)


def retry(
    job: Job | None,
    reason: str | None = None,
    *,
    from_step: str | None = None,
    restart: bool | None = None,
) -> JobRetried | None:
    """Queue a failed or cancelled job again with all its tries. For a queued job it is a no-op,
    unless steps are to be repeated.

    All completed steps are kept; with *from_step* only those before it, with *restart* none.
    Raises WrongState, UnknownStep.
    """
    job = _require_own(job)
    names = [each.name for each in job.steps]
    if job.status == Status.QUEUED and from_step is None and not (restart and names):
        return None
    if job.status != Status.QUEUED and not job.can_retry:
        raise WrongState(f"cannot retry a job that is {job.status}")
    if from_step is not None and from_step not in names:
        raise UnknownStep(f"no step {from_step!r} is completed; there are: {names}")
    return JobRetried(reason, from_step, restart or None)


def expire(job: Job | None, reason: str) -> JobExpired | None:
    """Hide a finished job. Raises WrongState for another one."""
    if job is None:
        raise JobNotFound
    if require_readable(job).expired_us is not None:
        return None
    if not job.finished:
        raise WrongState(f"cannot hide a job that is {job.status}")
    return JobExpired(reason)


def end_hook(
    job: Job | None, event: HookCompleted | HookFailed
) -> HookCompleted | HookFailed | None:
    """Record the end of a completion hook of a completed job, which may be hidden. The first record
    counts: after it nothing changes. Raises WrongState for a hook that the job does not have.
    """
    if job is None:
        raise JobNotFound
    if require_readable(job).status != Status.COMPLETED or event.name not in job.spec.hooks:
        raise WrongState(f"the job is {job.status} and has no completion hook {event.name!r}")
    done = any(each.name == event.name and each.error is None for each in job.hooks)
    return None if done else event


def _require_visible(job: Job | None) -> Job:
    if job is None:
        raise JobNotFound
    if require_readable(job).expired_us is not None:
        raise JobGone(expired_us=job.expired_us)
    return job


def _require_own(job: Job | None) -> Job:
    job = _require_visible(job)
    if job.imported is not None and not job.finished:
        raise WrongState(f"the job is {job.status} in another program, which alone can change it")
    return job


def _require_running(job: Job | None, attempt: int) -> Job:
    if job is None:
        raise JobNotFound
    if not require_readable(job).runs or job.attempt != attempt:
        raise StaleAttempt(f"attempt {attempt} no longer holds the job")
    return job

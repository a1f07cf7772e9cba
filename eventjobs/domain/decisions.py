"""Decisions: a job and a command to the one event that follows, or a Rejected."""

from eventjobs.domain.events import (
    ArtifactStored,
    AttemptFailed,
    AttemptHandedOver,
    AttemptReleased,
    AttemptStarted,
    BreakerChanged,
    CancelRequested,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobRetried,
    JobSubmitted,
    LateReportRefused,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.domain.job import Job, Status, readable
from eventjobs.domain.spec import JSON, JobSpec
from eventjobs.domain.steps import check_count
from eventjobs.errors import JobExists, JobGone, JobNotFound, StaleAttempt, UnknownStep, WrongState

#: Late reports put on record for one job: a worker that goes on and on shall not fill the log.
LATE_MAX = 20
#: Lines in the log of one job, unless the service says otherwise.
LINES_MAX = 10_000


#: What a running attempt may tell.
Report = ProgressReported | LogWritten | ArtifactStored | StepCompleted | BreakerChanged


def submit(job: Job | None, spec: JobSpec) -> JobSubmitted | None:
    """The same specification again is a no-op; another one is refused."""
    if job is None:
        return JobSubmitted(spec)
    if readable(job).expired_us is not None:
        raise JobGone(expired_us=job.expired_us)
    if job.spec != spec:
        raise JobExists
    return None


def start(
    job: Job | None, now_us: int, worker: str, lease_s: float | None = None
) -> AttemptStarted:
    """Claim a job that is due. Refused when it is not queued, or not due yet."""
    job = _existing(job)
    if job.status != Status.QUEUED or job.due_us > now_us:
        raise WrongState(f"the job is {job.status} and cannot be started now")
    return AttemptStarted(job.attempt + 1, worker, lease_s)


def hand_over(job: Job | None, handed: AttemptHandedOver) -> AttemptHandedOver | None:
    """Leave a running attempt to somebody elsewhere, who has taken it on."""
    job = _holding(job, handed.attempt)
    return None if job.silence_s is not None else handed


def report(job: Job | None, event: Report, lines_max: int = LINES_MAX) -> Report | None:
    """Something a running attempt tells. A repeated report is a new fact.

    Of its log *lines_max* lines are kept, and one that says so. Refused are too many steps.
    """
    job = _holding(job, event.attempt)
    if isinstance(event, LogWritten) and job.lines >= lines_max:
        text = f"the log of this job has {lines_max} lines; what comes after them is dropped"
        return LogWritten(event.attempt, "warning", text) if job.lines == lines_max else None
    if isinstance(event, StepCompleted):
        check_count(job.steps, event)
    return event


def refuse(job: Job | None, attempt: int, report: str) -> LateReportRefused | None:
    """Put on record, once, that *attempt* came with a *report* when it no longer held the job."""
    if job is None or attempt > job.attempt or attempt < 1:
        return None  # there never was such an attempt: nothing was late
    if job.status == Status.RUNNING and job.attempt == attempt:
        return None
    if (attempt, report) in job.late or len(job.late) >= LATE_MAX:
        return None
    return LateReportRefused(attempt, report)


def complete(job: Job | None, attempt: int, result: JSON, issues: JSON = None) -> JobCompleted:
    _holding(job, attempt)
    return JobCompleted(attempt, result, issues)


def fail(job: Job | None, failed: AttemptFailed) -> AttemptFailed | JobCancelled:
    """End an attempt. *retry_at_us* counts only while tries are left and nobody cancelled.

    An attempt that was held off takes no try, of a job that has more than one.
    """
    job = _holding(job, failed.attempt)
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
    """Give an attempt back unfinished; it does not count. A job asked to stop is stopped."""
    job = _holding(job, attempt)
    if job.cancel_requested_us is not None:
        return JobCancelled(attempt)
    return AttemptReleased(attempt, reason)


def cancel(job: Job | None, reason: str | None = None) -> CancelRequested | JobCancelled | None:
    """Queued: cancelled at once. Running: asked to stop. Refused when it ended otherwise."""
    job = _existing(job)
    if job.status == Status.QUEUED:
        return JobCancelled(None, reason)
    if job.status == Status.RUNNING:
        return None if job.cancel_requested_us is not None else CancelRequested(reason)
    if job.status == Status.CANCELLED:
        return None
    raise WrongState(f"cannot cancel a job that is {job.status}")


def stopped(job: Job | None, attempt: int) -> JobCancelled:
    """The attempt ended because the job was cancelled."""
    _holding(job, attempt)
    return JobCancelled(attempt)


def retry(
    job: Job | None,
    reason: str | None = None,
    *,
    from_step: str | None = None,
    restart: bool | None = None,
) -> JobRetried | None:
    """Queue a failed or cancelled job again with all its tries. A queued one is already there,
    unless it has steps that are to be repeated.

    Completed steps are kept; with *from_step* those before it, with *restart* none.
    """
    job = _existing(job)
    names = [each.name for each in job.steps]
    if job.status == Status.QUEUED and from_step is None and not (restart and names):
        return None
    if job.status != Status.QUEUED and not job.can_retry:
        raise WrongState(f"cannot retry a job that is {job.status}")
    if from_step is not None and from_step not in names:
        raise UnknownStep(f"no step {from_step!r} is completed; there are: {names}")
    return JobRetried(reason, from_step, restart or None)


def expire(job: Job | None, reason: str) -> JobExpired | None:
    """Hide a finished job."""
    if job is None:
        raise JobNotFound
    if readable(job).expired_us is not None:
        return None
    if not job.finished:
        raise WrongState(f"cannot hide a job that is {job.status}")
    return JobExpired(reason)


def _existing(job: Job | None) -> Job:
    if job is None:
        raise JobNotFound
    if readable(job).expired_us is not None:
        raise JobGone(expired_us=job.expired_us)
    return job


def _holding(job: Job | None, attempt: int) -> Job:
    if job is None:
        raise JobNotFound
    if readable(job).status != Status.RUNNING or job.attempt != attempt:
        raise StaleAttempt(f"attempt {attempt} no longer holds the job")
    return job

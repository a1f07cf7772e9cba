"""One job: its state, how events change it, and the decisions that make events.

A decision is pure: `(job, arguments) -> event | None`, or it raises a Rejected. None means that
what was asked for is already so; deciding twice is harmless.
"""

from functools import reduce
from typing import Any, assert_never

from orjson import Fragment

from eventjobs.done import check_count, kept, placed
from eventjobs.errors import (
    JobExists,
    JobGone,
    JobNotFound,
    JobUnreadable,
    StaleAttempt,
    UnknownStep,
    WrongState,
)
from eventjobs.events import (
    JSON,
    Artifact,
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
    JobSpec,
    JobSubmitted,
    LateReportRefused,
    LogWritten,
    Paused,
    ProgressReported,
    Recorded,
    Resumed,
    StepCompleted,
    Unreadable,
    WebhookAdded,
    WebhookRemoved,
)
from eventjobs.plain import as_text
from eventjobs.state import DEFAULT_QUEUE, FINISHED, Job, Status, readable
from eventjobs.taxonomy import class_of

__all__ = ["DEFAULT_QUEUE", "FINISHED", "Job", "Status"]

#: Late reports put on record for one job: a worker that goes on and on shall not fill the log.
LATE_MAX = 20
#: Lines in the log of one job, unless the service says otherwise.
LINES_MAX = 10_000


def _with(job: Job, recorded: Recorded, *gone: str, **changes: Any) -> Job:
    """*job* with *changes*, and what is *gone* as it was in the beginning."""
    # dataclasses.replace re-runs __init__, 30 times slower; this is the hottest line there is.
    twin = object.__new__(Job)
    known = twin.__dict__
    known |= job.__dict__
    known |= changes
    known["version"] = recorded.version
    known["position"] = recorded.position
    known["updated_us"] = recorded.at_us
    for name in gone:
        known.pop(name, None)
    return twin


def _free(job: Job, recorded: Recorded, status: Status, *gone: str, **changes: Any) -> Job:
    """The same, and nobody holds it any longer."""
    return _with(job, recorded, "worker", "lease_s", "silence_s", *gone, status=status, **changes)


def _born(recorded: Recorded) -> Job:
    event, at_us = recorded.event, recorded.at_us
    assert isinstance(event, JobSubmitted), f"a job begins with {recorded.type}"
    spec = event.spec
    job = object.__new__(Job)  # as in _with
    job.__dict__.update(
        job_id=recorded.job_id,
        spec=spec,
        born=recorded.position,
        created_us=at_us,
        version=recorded.version,
        position=recorded.position,
        updated_us=at_us,
        status=Status.QUEUED,
        due_us=at_us if spec.run_at_us is None else spec.run_at_us,
    )
    if spec.artifacts:
        job.__dict__["artifacts"] = spec.artifacts
    return job


def evolve(job: Job | None, recorded: Recorded) -> Job:
    """The job after one more event. Never decides, never refuses what is recorded: an event that
    does not follow parks the job.

    Whoever else has the same job and event gets what was made of them before.
    """
    known = recorded.evolved
    if known is None or known[0] is not job:
        if job is None:
            known = job, _born(recorded)
        elif job.parked is not None:
            known = job, _with(job, recorded)
        else:
            try:
                known = job, _after(job, recorded)
            except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
                known = job, park(job, recorded, f"it does not follow: {error}")
        recorded.evolved = known
    after: Job = known[1]
    return after


#: What is so only of a job that has ended, or is to.
_ENDED = ("finished_us", "cancel_requested_us")


def _after(job: Job, recorded: Recorded) -> Job:
    at_us = recorded.at_us
    match recorded.event:
        case AttemptStarted(attempt=number, worker=worker, lease_s=lease_s):
            started = {"attempt": number, "tries": job.tries + 1, "started_us": at_us}
            lease = {} if lease_s is None else {"lease_s": lease_s}
            return _with(job, recorded, status=Status.RUNNING, worker=worker, **started, **lease)
        case AttemptHandedOver(worker=worker, silence_s=silence_s):
            return _with(job, recorded, worker=worker, silence_s=silence_s)
        case JobCompleted() as event:
            given = event.__dict__  # where JSON is as it is kept
            told = {each: given[each] for each in ("result", "issues") if given[each] is not None}
            return _free(job, recorded, Status.COMPLETED, "error", finished_us=at_us, **told)
        case ProgressReported() | BreakerChanged():
            return _with(job, recorded)
        case LogWritten():
            return _with(job, recorded, lines=job.lines + 1)
        case StepCompleted() as event:
            return _with(job, recorded, steps=placed(job.steps, event, recorded))
        case ArtifactStored() as event:
            stored = Artifact(event.name, event.sha256, event.size, event.media_type)
            others = tuple(each for each in job.artifacts if each.name != event.name)
            return _with(job, recorded, artifacts=(*others, stored))
        case AttemptFailed(retry_at_us=None) as event:
            return _free(job, recorded, Status.FAILED, finished_us=at_us, error=_error(event))
        case AttemptFailed(retry_at_us=due_us) as event:
            waits = {"due_us": due_us, "tries": job.tries - bool(event.held_off)}
            return _free(job, recorded, Status.QUEUED, **waits, error=_error(event))
        case AttemptReleased():
            return _free(job, recorded, Status.QUEUED, due_us=at_us, tries=job.tries - 1)
        case CancelRequested():
            return _with(job, recorded, cancel_requested_us=at_us)
        case JobCancelled():
            times = {"cancel_requested_us": job.cancel_requested_us or at_us, "finished_us": at_us}
            return _free(job, recorded, Status.CANCELLED, **times)
        case JobRetried() as event:
            again = {"due_us": at_us, "tries": 0, "steps": kept(job.steps, event)}
            return _free(job, recorded, Status.QUEUED, *_ENDED, **again)
        case JobExpired():
            return _with(job, recorded, expired_us=at_us)
        case LateReportRefused(attempt=number, report=report):
            return _with(job, recorded, late=(*job.late, (number, report)))
        case JobSubmitted():
            raise AssertionError("a job is submitted once")
        case Paused() | Resumed() | WebhookAdded() | WebhookRemoved():
            raise AssertionError(f"{recorded.type} is not about a job")
        case Unreadable(why=why):
            return park(job, recorded, why)
        case _ as never:
            assert_never(never)


def park(job: Job, recorded: Recorded, why: str) -> Job:
    """*job*, of which *recorded* cannot be read: hidden, and not to be run. If it has ended, it has
    ended as it did.
    """
    parked = {"parked": {"position": recorded.position, "why": why}, "expired_us": recorded.at_us}
    if job.finished:
        return _with(job, recorded, **parked)
    return _free(job, recorded, Status.FAILED, **parked)


def _error(failed: AttemptFailed) -> Fragment | None:
    told = {"code": failed.code, "class": class_of(failed.code)}
    return as_text({**told, "message": failed.message, "retryable": failed.retryable})


def fold(events: list[Recorded]) -> Job | None:
    """The job that *events*, all of one stream and in order, add up to; None if it is no job's.

    Raises JobUnreadable when the first of them cannot be read: so it is not known what it is.
    """
    if events and isinstance(first := events[0].event, Unreadable):
        raise JobUnreadable(f"event {events[0].position} of this job cannot be read: {first.why}")
    if not events or not isinstance(events[0].event, JobSubmitted):
        return None
    return reduce(evolve, events, None)


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

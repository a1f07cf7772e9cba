"""Which event may follow in which state of a job, written independently of the decisions."""

from typing import assert_never

from eventjobs.domain import events as e
from eventjobs.domain.job import FINISHED, Job, Status
from eventjobs.domain.recorded import Recorded

#: Events that only the worker of an attempt reports.
Own = (
    e.ProgressReported
    | e.LogWritten
    | e.ArtifactStored
    | e.StepCompleted
    | e.BreakerChanged
    | e.JobCompleted
    | e.AttemptReleased
    | e.AttemptHandedOver
)


def violation(job: Job | None, recorded: Recorded) -> str | None:
    """Why *recorded* must not follow in the state *job*, or None."""
    event = recorded.event
    if job is None:
        return None if isinstance(event, e.JobSubmitted) else "its job was never submitted"
    running = job.status == Status.RUNNING
    match event:
        case e.JobSubmitted() | e.JobImported():
            return "its job is submitted already"
        case e.AttemptStarted(attempt=attempt):
            return _start_violation(job, attempt)
        case (
            e.ProgressReported()
            | e.LogWritten()
            | e.ArtifactStored()
            | e.StepCompleted()
            | e.BreakerChanged()
            | e.JobCompleted()
            | e.AttemptReleased()
            | e.AttemptHandedOver()
            | e.AttemptFailed()
        ):
            return _of_its_attempt(job, recorded, event)
        case e.JobCancelled(attempt=None):
            return None if job.status == Status.QUEUED else f"its job is {job.status}, not queued"
        case e.JobCancelled(attempt=attempt):
            if job.cancel_requested_us is None:
                return "no cancel was requested"
            return None if running and attempt == job.attempt else _not_held(job)
        case e.CancelRequested():
            if job.cancel_requested_us is not None:
                return "it was requested before"
            return None if running else f"its job is {job.status}, not running"
        case e.JobRetried():
            return None if job.status in FINISHED - {Status.COMPLETED} else f"it is {job.status}"
        case e.JobExpired():
            return None if job.finished else f"its job is {job.status}"
        case e.HookCompleted(name=name) | e.HookFailed(name=name):
            return _hook_violation(job, name)
        case e.LateReportRefused(attempt=attempt):
            held = running and attempt == job.attempt
            return "it was not late" if held or attempt > job.attempt else None
        case e.WebhookAdded() | e.WebhookRemoved() | e.KeyCreated() | e.KeyRevoked() | e.Paused():
            return "it is not about a job"
        case e.Resumed():
            return "it is not about a job"
        case e.Unreadable(why=why):
            return why
        case _ as never:
            assert_never(never)


def _start_violation(job: Job, attempt: int) -> str | None:
    if job.status != Status.QUEUED:
        return f"its job is {job.status}, not queued"
    return None if attempt == job.attempt + 1 else f"it follows attempt {job.attempt}"


def _hook_violation(job: Job, name: str) -> str | None:
    if job.status != Status.COMPLETED or name not in job.spec.hooks:
        return f"its job is {job.status} and has the hooks {job.spec.hooks}"
    has_record = any(each.name == name and each.error is None for each in job.hooks)
    return "it has made a record before" if has_record else None


def _of_its_attempt(job: Job, recorded: Recorded, event: Own | e.AttemptFailed) -> str | None:
    if job.status != Status.RUNNING or event.attempt != job.attempt:
        return _not_held(job)
    if isinstance(event, e.AttemptFailed) and event.code == "worker_lost":
        # A worker cannot report its own loss.
        return f"{job.worker} lost itself" if recorded.actor == job.worker else None
    if isinstance(event, e.ArtifactStored) and event.name == "error.json":
        return None  # recorded with the end of the attempt
    remote = job.lease_s is not None or job.silence_s is not None
    if remote and isinstance(event, e.AttemptReleased | e.AttemptFailed):
        # The service ends a remote attempt at its limits, and when its worker is lost.
        return None if recorded.actor in (job.worker, "service") else f"{job.worker} holds it"
    if recorded.actor.startswith("service "):
        return None  # an external service has the token of its attempt, perhaps before the 202
    return None if recorded.actor == job.worker else f"{job.worker} holds the attempt"


def _not_held(job: Job) -> str:
    return f"its job is {job.status} in attempt {job.attempt}"

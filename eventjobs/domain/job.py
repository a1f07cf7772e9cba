"""A job: the state that its events add up to."""

from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import Any, assert_never

from orjson import Fragment

from eventjobs.domain.error_codes import error_class
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
    Paused,
    ProgressReported,
    Resumed,
    StepCompleted,
    Unreadable,
    WebhookAdded,
    WebhookRemoved,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JSON, Artifact, JobSpec
from eventjobs.domain.steps import Step, insert_step, steps_kept_by
from eventjobs.errors import JobUnreadable
from eventjobs.storable import as_text, json_fields


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


DEFAULT_QUEUE = "default"
FINISHED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@json_fields("result", "issues", "error")
@dataclass(frozen=True)
class Job:
    """What the events of one job add up to. Made by evolve alone.

    What is as it was in the beginning is not in its `__dict__`, where reading finds the default
    below: so most of a job need not be copied at each change, nor written with it.
    """

    job_id: str
    spec: JobSpec
    #: position of the job's first event: its place in time order
    born: int
    created_us: int
    version: int
    position: int
    updated_us: int
    status: str = Status.QUEUED
    #: when it may start; past or present unless it is scheduled or waits to be retried
    due_us: int = 0
    #: runs so far; the number of the newest one, and its fencing token
    attempt: int = 0
    #: runs that count against max_attempts: not those released, nor those before a manual retry
    tries: int = 0
    worker: str | None = None
    #: how often the worker must be heard from; None while it is this process, or there is none
    lease_s: float | None = None
    #: how long the external service that has it may be silent; None while none has it
    silence_s: float | None = None
    started_us: int | None = None
    finished_us: int | None = None
    cancel_requested_us: int | None = None
    expired_us: int | None = None
    result: JSON = None
    issues: JSON = None
    #: {"code", "class", "message", "retryable"} of the newest failed attempt, until one succeeds
    error: dict[str, Any] | None = None
    artifacts: tuple[Artifact, ...] = ()
    #: in the order in which the handler comes to them
    steps: tuple[Step, ...] = ()
    #: written to its log
    lines: int = 0
    #: (attempt, report) of the late reports that are on record
    late: tuple[tuple[int, str], ...] = ()
    #: {"position", "why"} of its first event that cannot be read; the job is hidden since
    parked: dict[str, Any] | None = None

    @property
    def queue(self) -> str:
        return self.spec.queue or DEFAULT_QUEUE

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def can_retry(self) -> bool:
        return self.expired_us is None and self.status in (Status.FAILED, Status.CANCELLED)


def readable(job: Job) -> Job:
    """Raises JobUnreadable for a job that is parked."""
    if job.parked is not None:
        position, why = job.parked["position"], job.parked["why"]
        raise JobUnreadable(f"event {position} of this job cannot be read: {why}")
    return job


__all__ = ["DEFAULT_QUEUE", "FINISHED", "Job", "Status"]


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
            return _with(job, recorded, steps=insert_step(job.steps, event, recorded))
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
            again = {"due_us": at_us, "tries": 0, "steps": steps_kept_by(job.steps, event)}
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
    told = {"code": failed.code, "class": error_class(failed.code)}
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

"""A job: the state that results from its events."""

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
    KeyCreated,
    KeyRevoked,
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
from eventjobs.domain.json_fields import as_fragment, json_fields
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JSON, Artifact, JobSpec
from eventjobs.domain.steps import Step, insert_step, steps_kept_by
from eventjobs.errors import JobUnreadable


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
    """The state of one job after some of its events. Only evolve makes one.

    Fields at their default are not in the instance `__dict__`; attribute access falls back to the
    class default. This keeps copying and encoding a job cheap.
    """

    job_id: str
    spec: JobSpec
    #: position of the job's first event; orders jobs by age
    born: int
    created_us: int
    version: int
    position: int
    updated_us: int
    status: str = Status.QUEUED
    #: when it may start; in the future for a scheduled job and before a retry
    due_us: int = 0
    #: number of the newest attempt, which is its fencing token; 0 before the first
    attempt: int = 0
    #: attempts counted against max_attempts: without released ones and those before a manual retry
    tries: int = 0
    worker: str | None = None
    #: the lease of a remote worker; None for this process, and without a worker
    lease_s: float | None = None
    #: longest time between reports of the external service that runs it; None without one
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
    #: in the order of the handler
    steps: tuple[Step, ...] = ()
    #: number of lines in its log
    lines: int = 0
    #: (attempt, report) of the recorded late reports
    late: tuple[tuple[int, str], ...] = ()
    #: {"position", "why"} of its first unreadable event, which parks and hides the job
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


def require_readable(job: Job) -> Job:
    """*job*. Raises JobUnreadable when it is parked."""
    if job.parked is not None:
        position, why = job.parked["position"], job.parked["why"]
        raise JobUnreadable(f"event {position} of this job cannot be read: {why}")
    return job


__all__ = ["DEFAULT_QUEUE", "FINISHED", "Job", "Status"]


def _copy(job: Job, recorded: Recorded, *resets: str, **changes: Any) -> Job:
    """A copy of *job* with *changes*, and with the fields *resets* at their defaults."""
    # dataclasses.replace calls __init__ and is 30 times slower, on the hottest path.
    copy = object.__new__(Job)
    fields = copy.__dict__
    fields |= job.__dict__
    fields |= changes
    fields["version"] = recorded.version
    fields["position"] = recorded.position
    fields["updated_us"] = recorded.at_us
    for name in resets:
        fields.pop(name, None)
    return copy


def _release(job: Job, recorded: Recorded, status: Status, *resets: str, **changes: Any) -> Job:
    """As _copy, for a job that no worker holds any longer."""
    holder = ("worker", "lease_s", "silence_s")
    return _copy(job, recorded, *holder, *resets, status=status, **changes)


def _first_state(recorded: Recorded) -> Job:
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
    """The job after *recorded*. An event that cannot follow parks the job; none raises an error.

    The result is cached in *recorded* and used again for the same *job*.
    """
    transition = recorded.transition
    if transition is None or transition[0] is not job:
        if job is None:
            transition = job, _first_state(recorded)
        elif job.parked is not None:
            transition = job, _copy(job, recorded)
        else:
            try:
                transition = job, _apply(job, recorded)
            except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
                transition = job, park(job, recorded, f"it does not follow: {error}")
        recorded.transition = transition
    after: Job = transition[1]
    return after


#: Fields that only a job that has ended, or is to be cancelled, has.
_END_FIELDS = ("finished_us", "cancel_requested_us")


def _apply(job: Job, recorded: Recorded) -> Job:
    at_us = recorded.at_us
    match recorded.event:
        case AttemptStarted(attempt=number, worker=worker, lease_s=lease_s):
            started = {"attempt": number, "tries": job.tries + 1, "started_us": at_us}
            lease = {} if lease_s is None else {"lease_s": lease_s}
            return _copy(job, recorded, status=Status.RUNNING, worker=worker, **started, **lease)
        case AttemptHandedOver(worker=worker, silence_s=silence_s):
            return _copy(job, recorded, worker=worker, silence_s=silence_s)
        case JobCompleted() as event:
            fields = event.__dict__  # has the JSON fields as Fragments
            body = {each: fields[each] for each in ("result", "issues") if fields[each] is not None}
            return _release(job, recorded, Status.COMPLETED, "error", finished_us=at_us, **body)
        case ProgressReported() | BreakerChanged():
            return _copy(job, recorded)
        case LogWritten():
            return _copy(job, recorded, lines=job.lines + 1)
        case StepCompleted() as event:
            return _copy(job, recorded, steps=insert_step(job.steps, event, recorded))
        case ArtifactStored() as event:
            stored = Artifact(event.name, event.sha256, event.size, event.media_type)
            others = tuple(each for each in job.artifacts if each.name != event.name)
            return _copy(job, recorded, artifacts=(*others, stored))
        case AttemptFailed(retry_at_us=None) as event:
            return _release(job, recorded, Status.FAILED, finished_us=at_us, error=_error_of(event))
        case AttemptFailed(retry_at_us=due_us) as event:
            waits = {"due_us": due_us, "tries": job.tries - bool(event.held_off)}
            return _release(job, recorded, Status.QUEUED, **waits, error=_error_of(event))
        case AttemptReleased():
            return _release(job, recorded, Status.QUEUED, due_us=at_us, tries=job.tries - 1)
        case CancelRequested():
            return _copy(job, recorded, cancel_requested_us=at_us)
        case JobCancelled():
            times = {"cancel_requested_us": job.cancel_requested_us or at_us, "finished_us": at_us}
            return _release(job, recorded, Status.CANCELLED, **times)
        case JobRetried() as event:
            again = {"due_us": at_us, "tries": 0, "steps": steps_kept_by(job.steps, event)}
            return _release(job, recorded, Status.QUEUED, *_END_FIELDS, **again)
        case JobExpired():
            return _copy(job, recorded, expired_us=at_us)
        case LateReportRefused(attempt=number, report=report):
            return _copy(job, recorded, late=(*job.late, (number, report)))
        case JobSubmitted():
            raise AssertionError("a job is submitted once")
        case Paused() | Resumed() | WebhookAdded() | WebhookRemoved() | KeyCreated() | KeyRevoked():
            raise AssertionError(f"{recorded.type} is not about a job")
        case Unreadable(why=why):
            return park(job, recorded, why)
        case _ as never:
            assert_never(never)


def park(job: Job, recorded: Recorded, why: str) -> Job:
    """*job* after an unreadable event: hidden, and failed unless it had ended before."""
    parked = {"parked": {"position": recorded.position, "why": why}, "expired_us": recorded.at_us}
    if job.finished:
        return _copy(job, recorded, **parked)
    return _release(job, recorded, Status.FAILED, **parked)


def _error_of(failed: AttemptFailed) -> Fragment | None:
    return as_fragment(
        {
            "code": failed.code,
            "class": error_class(failed.code),
            "message": failed.message,
            "retryable": failed.retryable,
        }
    )


def fold(events: list[Recorded]) -> Job | None:
    """The job that results from *events*, all events of one stream in order; None for a stream that
    is not a job's. Raises JobUnreadable when the first event cannot be read.
    """
    if events and isinstance(first := events[0].event, Unreadable):
        raise JobUnreadable(f"event {events[0].position} of this job cannot be read: {first.why}")
    if not events or not isinstance(events[0].event, JobSubmitted):
        return None
    return reduce(evolve, events, None)

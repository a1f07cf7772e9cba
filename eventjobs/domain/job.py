"""A job: the state that results from its events."""

from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from hashlib import sha256
from typing import Any, assert_never

import orjson
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
    HookCompleted,
    HookFailed,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobImported,
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
from eventjobs.domain.hook_results import HookResult, replace_result, result_of
from eventjobs.domain.json_fields import as_fragment, fragment_of, json_fields
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
#: The error code of an imported job that has failed.
ELSEWHERE = "failed_elsewhere"
#: Bytes in memory of a job and its specification, without texts: measured with tracemalloc, 860 to
#: 1,360, and 120 for its place in a cache. Its texts are among those of its events.
JOB_BYTES = 1_500
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
    #: manual retries
    retries: int = 0
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
    #: {"source", "at_us", "line", "digest"} of the newest JobImported; None for a job of this
    #: service. The digest is that of its record.
    imported: dict[str, Any] | None = None
    #: of the completion hooks that have ended
    hooks: tuple[HookResult, ...] = ()
    #: {"position", "why"} of its first unreadable event, which parks and hides the job
    parked: dict[str, Any] | None = None

    @property
    def queue(self) -> str:
        return self.spec.queue or DEFAULT_QUEUE

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and so have its completion hooks. A hidden job is over."""
        if not self.spec.hooks or self.status != Status.COMPLETED or self.expired_us is not None:
            return self.finished
        return len(self.hooks) == len(self.spec.hooks)

    @property
    def can_retry(self) -> bool:
        ended = self.status in (Status.FAILED, Status.CANCELLED)
        return ended and self.expired_us is None and self.imported is None

    @property
    def waits(self) -> bool:
        """Whether this service is to run it. A queued job of another store does not wait here."""
        return self.status == Status.QUEUED and self.imported is None

    @property
    def runs(self) -> bool:
        """Whether a worker of this service runs it."""
        return self.status == Status.RUNNING and self.imported is None

    @property
    def ended_us(self) -> int | None:
        """The time from which its time to live counts; None before its end.

        A job that was imported long after its end is not hidden at once: its import counts.
        """
        if self.finished_us is None or self.imported is None:
            return self.finished_us
        at_us: int = self.imported["at_us"]
        return at_us


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
    if isinstance(event, JobImported):
        payload = as_fragment(_field(event.record, "payload"))
        spec, created_us = JobSpec(event.type, payload, owner=event.owner), event.created_us
    else:
        assert isinstance(event, JobSubmitted), f"a job begins with {recorded.type}"
        spec, created_us = event.spec, at_us
    job = object.__new__(Job)  # as in _with
    job.__dict__.update(
        job_id=recorded.job_id,
        spec=spec,
        born=recorded.position,
        created_us=created_us,
        version=recorded.version,
        position=recorded.position,
        updated_us=at_us,
        status=Status.QUEUED,
        due_us=at_us if spec.run_at_us is None else spec.run_at_us,
    )
    if spec.artifacts:
        job.__dict__["artifacts"] = spec.artifacts
    return _with_import(job, event, recorded) if isinstance(event, JobImported) else job


#: Fields that an import sets or resets.
_IMPORT_FIELDS = ("started_us", "finished_us", "cancel_requested_us", "result", "error")


def _with_import(job: Job, event: JobImported, recorded: Recorded) -> Job:
    """*job* in the state that *event* has read, and no longer hidden."""
    record = event.record
    state: dict[str, Any] = {"started_us": event.started_us, "finished_us": event.finished_us}
    match event.status:
        case Status.COMPLETED:
            state["result"] = as_fragment(_field(record, "result"))
        case Status.FAILED:
            message = _field(record, "error_message")
            message = message if isinstance(message, str) else None
            state["error"] = _error_of(AttemptFailed(0, ELSEWHERE, False, None, message))
        case Status.CANCELLED:
            state["cancel_requested_us"] = event.finished_us
    state = {name: each for name, each in state.items() if each is not None}
    state["status"] = Status(event.status)
    state["imported"] = {
        "source": event.source,
        "at_us": recorded.at_us,
        "line": event.line,
        "digest": record_digest(event),
    }
    changed = _copy(job, recorded, *_IMPORT_FIELDS, "expired_us")
    changed.__dict__.update(state, updated_us=event.updated_us)
    return changed


def record_digest(event: JobImported) -> str:
    """Identifies the record of *event*, to find out whether it has changed."""
    return sha256(orjson.dumps(fragment_of(event, "record"))).hexdigest()


def _field(record: Any, name: str) -> Any:
    return record.get(name) if isinstance(record, dict) else None


def evolve(job: Job | None, recorded: Recorded) -> Job:
    """The job after *recorded*. An event that cannot follow parks the job; none raises an error.

    The result is kept in *recorded* for a second call, with the same *job*.
    """
    transition, recorded.transition = recorded.transition, None
    after: Job
    if transition is not None and transition[0] is job:
        after = transition[1]
        return after
    after = _first_state(recorded) if job is None else _next_state(job, recorded)
    if transition is None:
        recorded.transition = job, after
    return after


def _next_state(job: Job, recorded: Recorded) -> Job:
    if job.parked is not None:
        return _copy(job, recorded)
    try:
        return _apply(job, recorded)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        return park(job, recorded, f"it does not follow: {error}")


#: Fields that only a job that has ended, or is to be cancelled, has.
_END_FIELDS = ("finished_us", "cancel_requested_us")


def _apply(job: Job, recorded: Recorded) -> Job:
    at_us = recorded.at_us
    match recorded.event:
        case AttemptStarted() as event:
            return _copy(job, recorded, status=Status.RUNNING, **_start_of(job, event, at_us))
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
            return _copy(job, recorded, artifacts=_with_artifact(job.artifacts, event))
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
            again = _retried_fields(job, event)
            return _release(job, recorded, Status.QUEUED, *_END_FIELDS, due_us=at_us, **again)
        case JobExpired():
            return _copy(job, recorded, expired_us=at_us)
        case LateReportRefused(attempt=number, report=report):
            return _copy(job, recorded, late=(*job.late, (number, report)))
        case JobImported() as event if job.imported is not None:
            return _with_import(job, event, recorded)
        case HookCompleted() | HookFailed() as event:
            return _copy(job, recorded, hooks=replace_result(job.hooks, result_of(event)))
        case JobSubmitted() | JobImported():
            raise AssertionError("a job is submitted once")
        case Paused() | Resumed() | WebhookAdded() | WebhookRemoved() | KeyCreated() | KeyRevoked():
            raise AssertionError(f"{recorded.type} is not about a job")
        case Unreadable(why=why):
            return park(job, recorded, why)
        case _ as never:
            assert_never(never)


def _with_artifact(artifacts: tuple[Artifact, ...], event: ArtifactStored) -> tuple[Artifact, ...]:
    stored = Artifact(event.name, event.sha256, event.size, event.media_type)
    return (*(each for each in artifacts if each.name != event.name), stored)


def _retried_fields(job: Job, event: JobRetried) -> dict[str, Any]:
    steps = steps_kept_by(job.steps, event)
    return {"tries": 0, "retries": job.retries + 1, "steps": steps}


def _start_of(job: Job, event: AttemptStarted, at_us: int) -> dict[str, Any]:
    started = {"attempt": event.attempt, "tries": job.tries + 1, "started_us": at_us}
    lease = {} if event.lease_s is None else {"lease_s": event.lease_s}
    return {"worker": event.worker, **started, **lease}


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
    if not events or not isinstance(events[0].event, JobSubmitted | JobImported):
        return None
    return reduce(evolve, events, None)

"""The events: everything that can happen to a job, and to the service.

The class names and field names are the storage format. An event type that changes its fields
needs a new schema version: the class's SCHEMA, an upcaster, and a golden file.

A stored event has two parts. *facts* are what the state machine needs; they are kept for ever.
*body*, the fields that a class lists in BODY, is what users put in; it can be erased.
"""

from typing import Any, ClassVar

from eventjobs.domain.json_fields import json_fields
from eventjobs.domain.spec import JSON, JobSpec
from eventjobs.domain.values import value

#: The type of webhook deliveries, which are jobs. The payload names the webhook and the position.
DELIVERY = "eventjobs.webhook"
#: The types of the service's own jobs begin so.
OWN_TYPES = "eventjobs."
#: The types of jobs that run completion hooks begin so; the hooked type and the hook's name follow.
#: The payload names the job and the hook.
HOOK_TYPES = "eventjobs.hook."


@value(frozen=True, slots=True)
class JobSubmitted:
    spec: JobSpec


#: The statuses that an imported job may have.
IMPORTED_STATUSES = frozenset({"queued", "running", "completed", "failed", "cancelled"})


@json_fields("record")
@value(frozen=True)
class JobImported:
    """The state of a job in another store, with the times of that store.

    The first one begins the job, a later one changes it. The program of that store runs the job,
    not this service.
    """

    BODY: ClassVar = frozenset({"record"})

    type: str
    status: str
    source: str  # the file that it was read from
    created_us: int
    updated_us: int
    started_us: int | None = None
    finished_us: int | None = None
    owner: str | None = None
    #: Number of the line in the job's old history that led to this state.
    line: int | None = None
    #: The job as the other store has it, whole: its payload, result, error message, progress.
    record: JSON = None

    def __post_init__(self) -> None:
        if self.status not in IMPORTED_STATUSES:
            raise ValueError(f"status cannot be {self.status!r:.100}")


@value(frozen=True, slots=True)
class AttemptStarted:
    """A worker has claimed the job. A remote worker has a lease of *lease_s* seconds, which each of
    its requests renews.
    """

    attempt: int
    worker: str
    lease_s: float | None = None


@value(frozen=True, slots=True)
class AttemptHandedOver:
    """An external service, now the *worker*, has accepted the job and will report.

    The attempt ends with its report, or after *silence_s* seconds without one.
    """

    BODY: ClassVar = frozenset({"cancel_url"})

    attempt: int
    worker: str
    silence_s: float
    #: The URL that is called when the attempt no longer holds the job.
    cancel_url: str | None = None


@json_fields("data")
@value(frozen=True)
class ProgressReported:
    BODY: ClassVar = frozenset({"message", "data"})

    attempt: int
    done: float | None = None
    total: float | None = None
    stage: str | None = None
    message: str | None = None
    data: JSON = None


@json_fields("fields")
@value(frozen=True)
class LogWritten:
    BODY: ClassVar = frozenset({"message", "fields"})

    attempt: int
    level: str
    message: str | None = None
    fields: JSON = None


@value(frozen=True, slots=True)
class ArtifactStored:
    attempt: int
    name: str
    sha256: str
    size: int
    media_type: str


@json_fields("result")
@value(frozen=True)
class StepCompleted:
    """*number* is the index of the step in its attempt: 0, 1, 2 …"""

    BODY: ClassVar = frozenset({"result"})

    attempt: int
    name: str
    number: int
    result: JSON = None
    #: The earlier name of a renamed step, whose result and index this step has.
    was: str | None = None


@value(frozen=True, slots=True)
class BreakerChanged:
    """A call of this job opened or closed the circuit breaker *name*."""

    attempt: int
    name: str
    state: str
    failures: int
    until_us: int | None = None


@json_fields("details")
@value(frozen=True)
class AttemptFailed:
    """With a *retry_at_us* the job is queued again; without one it has failed.

    An attempt that a circuit breaker *held_off* called nothing and is not counted as a try.
    """

    BODY: ClassVar = frozenset({"message", "details"})

    attempt: int
    code: str
    retryable: bool
    retry_at_us: int | None = None
    message: str | None = None
    details: JSON = None
    held_off: bool | None = None


@value(frozen=True, slots=True)
class AttemptReleased:
    """The attempt ended unfinished, for example at a shutdown. It is not counted."""

    attempt: int
    reason: str


@json_fields("result", "issues")
@value(frozen=True)
class JobCompleted:
    BODY: ClassVar = frozenset({"result", "issues"})

    attempt: int
    result: JSON = None
    issues: JSON = None


@value(frozen=True, slots=True)
class CancelRequested:
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@value(frozen=True, slots=True)
class JobCancelled:
    BODY: ClassVar = frozenset({"reason"})

    attempt: int | None = None
    reason: str | None = None


@value(frozen=True, slots=True)
class JobRetried:
    """A user queued the job again. Completed steps are kept, except *from_step* and later ones."""

    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None
    from_step: str | None = None
    #: True: all steps are repeated
    restart: bool | None = None


@value(frozen=True, slots=True)
class JobExpired:
    """The job is hidden from lists and reads. The log keeps its events."""

    reason: str


@value(frozen=True, slots=True)
class LateReportRefused:
    """A *report* of an *attempt* that no longer held the job was refused."""

    attempt: int
    report: str


@value(frozen=True, slots=True)
class HookCompleted:
    """A completion hook has made its record of the completed job: the record's id and URL."""

    BODY: ClassVar = frozenset({"id", "url"})

    name: str
    id: str | None = None
    url: str | None = None


@value(frozen=True, slots=True)
class HookFailed:
    """A completion hook has failed, with no attempt left. The job stays completed.

    Its own job can be retried by a user; a HookCompleted may follow.
    """

    BODY: ClassVar = frozenset({"message"})

    name: str
    code: str
    message: str | None = None


# --- events of the service: each type, queue, schedule, webhook and API key has its own stream


@value(frozen=True, slots=True)
class Paused:
    """No job of this type or queue starts, or this schedule submits none, until it is resumed."""

    BODY: ClassVar = frozenset({"reason"})

    kind: str  # "type", "queue" or "schedule"
    name: str
    reason: str | None = None


@value(frozen=True, slots=True)
class Resumed:
    kind: str
    name: str


@value(frozen=True, slots=True)
class WebhookAdded:
    """Later events that match are sent to *url*. An empty or missing filter matches all."""

    BODY: ClassVar = frozenset({"url"})

    events: tuple[str, ...] = ()  # types of events; empty: those that end a job
    types: tuple[str, ...] = ()  # of jobs
    owner: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        for name in ("events", "types"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))


@value(frozen=True, slots=True)
class WebhookRemoved:
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@value(frozen=True, slots=True)
class KeyCreated:
    """An API key is valid until *expires_us*, or until it is revoked."""

    name: str
    owner: str  # of the jobs that are submitted with it
    digest: str  # SHA-256 of its secret, which is stored nowhere
    scopes: tuple[str, ...] = ()
    expires_us: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.scopes, list):
            object.__setattr__(self, "scopes", tuple(self.scopes))


@value(frozen=True, slots=True)
class KeyRevoked:
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@value(frozen=True, slots=True)
class Unreadable:
    """What readers get for a stored event that this version cannot read. It is never stored."""

    why: str


#: Events that end an attempt.
AttemptEnd = JobCompleted | AttemptFailed | AttemptReleased | JobCancelled
#: The outcome of an attempt, by the event that ends it.
ENDS_ATTEMPT: dict[type[Any], str] = {
    JobCompleted: "completed",
    AttemptFailed: "failed",
    AttemptReleased: "released",
    JobCancelled: "cancelled",
}

JobEvent = (
    JobSubmitted
    | JobImported
    | AttemptStarted
    | AttemptHandedOver
    | ProgressReported
    | StepCompleted
    | LogWritten
    | ArtifactStored
    | BreakerChanged
    | AttemptFailed
    | AttemptReleased
    | JobCompleted
    | CancelRequested
    | JobCancelled
    | JobRetried
    | JobExpired
    | LateReportRefused
    | HookCompleted
    | HookFailed
)
ServiceEvent = Paused | Resumed | WebhookAdded | WebhookRemoved | KeyCreated | KeyRevoked
Stored = JobEvent | ServiceEvent
Event = Stored | Unreadable
SERVICE_EVENTS: frozenset[type[Any]] = frozenset(ServiceEvent.__args__)


def ends_job(event: Event) -> bool:
    """Whether *event* ends its job. A later JobRetried may queue the job again."""
    if isinstance(event, AttemptFailed):
        return event.retry_at_us is None
    return isinstance(event, JobCompleted | JobCancelled)


def is_own(type: str) -> bool:
    """Whether jobs of *type* are the service's own, such as deliveries of webhooks."""
    return type.startswith(OWN_TYPES)

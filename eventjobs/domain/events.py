"""The vocabulary: what can happen to a job.

The class names and field names here are the storage format. An event type that changes its
shape gets a new schema version: add the class's SCHEMA, an upcaster, and a golden file.

A stored event has two halves. *facts* are what the state machine needs and are kept for ever;
*body* (the fields a class lists in BODY) is what people put in, and can be erased.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from eventjobs.domain.spec import JSON, JobSpec
from eventjobs.storable import json_fields

#: The type of the jobs that deliveries are. Their payload names the webhook and the position.
DELIVERY = "eventjobs.webhook"


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """With a *lease_s* the worker is elsewhere, and holds the job while it is heard from."""

    attempt: int
    worker: str
    lease_s: float | None = None


@dataclass(frozen=True, slots=True)
class AttemptHandedOver:
    """An external service has taken it on: it is the *worker* now, and will report.

    It has no lease to renew; it holds the job until it reports the end, or is silent for too long.
    """

    BODY: ClassVar = frozenset({"cancel_url"})

    attempt: int
    worker: str
    silence_s: float
    #: Where the service wants to be told when nobody waits for it any longer.
    cancel_url: str | None = None


@json_fields("data")
@dataclass(frozen=True)
class ProgressReported:
    BODY: ClassVar = frozenset({"message", "data"})

    attempt: int
    done: float | None = None
    total: float | None = None
    stage: str | None = None
    message: str | None = None
    data: JSON = None


@json_fields("fields")
@dataclass(frozen=True)
class LogWritten:
    BODY: ClassVar = frozenset({"message", "fields"})

    attempt: int
    level: str
    message: str | None = None
    fields: JSON = None


@dataclass(frozen=True, slots=True)
class ArtifactStored:
    attempt: int
    name: str
    sha256: str
    size: int
    media_type: str


@json_fields("result")
@dataclass(frozen=True)
class StepCompleted:
    """*number* is its place among the steps of its attempt: 0, 1, 2 …"""

    BODY: ClassVar = frozenset({"result"})

    attempt: int
    name: str
    number: int
    result: JSON = None
    #: The step whose result and place this one took over: it was called so before.
    was: str | None = None


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """This job's call opened, or closed, the circuit breaker of something outside."""

    attempt: int
    name: str
    state: str
    failures: int
    until_us: int | None = None


@json_fields("details")
@dataclass(frozen=True)
class AttemptFailed:
    """With a *retry_at_us* the job is queued again; without one it has failed.

    One that was *held_off* by a circuit breaker called nothing, and counts as no try.
    """

    BODY: ClassVar = frozenset({"message", "details"})

    attempt: int
    code: str
    retryable: bool
    retry_at_us: int | None = None
    message: str | None = None
    details: JSON = None
    held_off: bool | None = None


@dataclass(frozen=True, slots=True)
class AttemptReleased:
    """Given back unfinished, at a shutdown; does not count as an attempt."""

    attempt: int
    reason: str


@json_fields("result", "issues")
@dataclass(frozen=True)
class JobCompleted:
    BODY: ClassVar = frozenset({"result", "issues"})

    attempt: int
    result: JSON = None
    issues: JSON = None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobCancelled:
    BODY: ClassVar = frozenset({"reason"})

    attempt: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobRetried:
    """By hand. Steps that were completed are not repeated, but for *from_step* and later ones."""

    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None
    from_step: str | None = None
    #: True: all steps are repeated
    restart: bool | None = None


@dataclass(frozen=True, slots=True)
class JobExpired:
    """Hidden from lists and reads; the log keeps the facts."""

    reason: str


@dataclass(frozen=True, slots=True)
class LateReportRefused:
    """Evidence: a worker whose *attempt* no longer held the job came with this *report*."""

    attempt: int
    report: str


# --- about the service and not about one job: each has a stream of its own, under an id of its own


@dataclass(frozen=True, slots=True)
class Paused:
    """No job of this type, or in this queue, is started; or this schedule submits none."""

    BODY: ClassVar = frozenset({"reason"})

    kind: str  # "type", "queue" or "schedule"
    name: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class WebhookAdded:
    """From here on, events that match are sent to *url*. What is None does not limit."""

    BODY: ClassVar = frozenset({"url"})

    events: tuple[str, ...] = ()  # types of events; none: those that end a job
    types: tuple[str, ...] = ()  # of jobs
    owner: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        for name in ("events", "types"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class WebhookRemoved:
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Read in the place of a stored event that this version cannot read. It is never stored."""

    why: str


JobEvent = (
    JobSubmitted
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
)
ServiceEvent = Paused | Resumed | WebhookAdded | WebhookRemoved
Stored = JobEvent | ServiceEvent
Event = Stored | Unreadable
SERVICE_EVENTS: frozenset[type[Any]] = frozenset(ServiceEvent.__args__)

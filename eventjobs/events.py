"""The vocabulary: what can happen to a job.

The class names and field names here are the storage format. An event type that changes its
shape gets a new schema version: add the class's SCHEMA, an upcaster, and a golden file.

A stored event has two halves. *facts* are what the state machine needs and are kept for ever;
*body* (the fields a class lists in BODY) is what people put in, and can be erased.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from eventjobs.plain import json_fields

JSON = Any  # whatever orjson reads and writes; a field of it gives a new copy at each reading
#: The last moment that RFC 3339 can name, in the year 9999.
MAX_US = 253_402_300_799_999_999


@dataclass(frozen=True, slots=True)
class Artifact:
    """A named file of a job, kept by its content."""

    name: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"


def _artifact(given: Any) -> Any:
    known = type(given) is dict and given.keys() == Artifact.__dataclass_fields__.keys()
    return Artifact(**given) if known else given


@json_fields("payload")
@dataclass(frozen=True)
class JobSpec:
    """What is to be done: made once at the edge, and the same object all the way to the handler."""

    BODY: ClassVar = frozenset({"payload", "tags"})

    type: str
    payload: JSON = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    priority: int = 0
    run_at_us: int | None = None
    max_attempts: int = 0  # 0: as the handler or the settings say; filled in at submit
    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    #: Seconds before the second attempt; doubled for each later one. None: the handler's.
    retry_delay_s: float | None = None
    artifacts: tuple[Artifact, ...] = ()
    #: What it waits in; limits and pauses may hold for a whole queue. None: "default".
    queue: str | None = None
    #: Of jobs with the same key, only so many run at once as their handler says: one.
    concurrency_key: str | None = None
    #: Seconds after its end until it is hidden. None: as the settings say.
    ttl_s: float | None = None
    #: Jobs that have to be completed before this one may start.
    after: tuple[str, ...] = ()
    #: "run": it starts when those have ended, however; None: it is cancelled when one failed.
    after_failure: str | None = None
    #: The job whose handler submitted this one.
    parent: str | None = None

    def __post_init__(self) -> None:
        # What was read back from JSON becomes what was written: tuples, not lists of dicts.
        if isinstance(self.artifacts, list):
            made = tuple(map(_artifact, self.artifacts))
            object.__setattr__(self, "artifacts", made)
        if isinstance(self.tags, list):
            object.__setattr__(self, "tags", tuple(self.tags))
        if isinstance(self.after, list):
            object.__setattr__(self, "after", tuple(self.after))


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


@dataclass(slots=True)
class Recorded:
    """An event with its place: *position* in the whole log, *version* within its job."""

    position: int
    job_id: str
    version: int
    at_us: int
    actor: str
    event: Event
    type: str
    facts: bytes
    body: bytes | None  # None once erased
    #: A job that this event changed, and what it was after that. The write side and the views come
    #: to the same, one after the other: see job.evolve.
    evolved: tuple[Any, Any] | None = field(default=None, compare=False, repr=False)
    _json: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def data(self) -> bytes:
        """Facts and body as one JSON object; an erased body says so."""
        if isinstance(self.event, Unreadable):
            return _unreadable(self.event, self.facts, self.body)
        body = b'{"erased":true}' if self.body is None else self.body
        if body == b"{}":
            return self.facts
        return body if self.facts == b"{}" else self.facts[:-1] + b"," + body[1:]

    def json(self) -> bytes:
        """The event as everyone outside reads it: pages, streams, exports. Encoded once."""
        if self._json is None:
            self._json = (
                b'{"position":%d,"job_id":%s,"version":%d,"type":%s,"at":"%s","actor":%s,"data":%s}'
                % (
                    self.position,
                    orjson.dumps(self.job_id),
                    self.version,
                    orjson.dumps(self.type),
                    rfc3339(self.at_us).encode(),
                    orjson.dumps(self.actor),
                    self.data,
                )
            )
        return self._json


def _unreadable(event: Unreadable, facts: bytes, body: bytes | None) -> bytes:
    """What is stored, as far as it is JSON, and why it cannot be read."""
    shown: dict[str, Any] = {"unreadable": event.why}
    for name, stored in (("facts", facts), ("body", body)):
        if stored is not None:
            try:
                shown[name] = orjson.Fragment(orjson.dumps(orjson.loads(stored)))
            except (TypeError, ValueError):
                shown[name] = stored.decode("utf-8", "backslashreplace")
    return orjson.dumps(shown)


def rfc3339(at_us: int) -> str:
    """*at_us* as RFC 3339 in UTC, with microseconds and `Z`; the nearest time that it can name."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Kept, because one job is told with several times, and most times are of a few seconds.
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"

"""The vocabulary: what can happen to a job, and how it is stored.

The class names and field names here are the storage format. An event type that changes its
shape gets a new schema version: add the class's SCHEMA, an upcaster, and a golden file.

A stored event has two halves. *facts* are what the state machine needs and are kept for ever;
*body* (the fields a class lists in BODY) is what people put in, and can be erased.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar

import orjson

from eventjobs.errors import CorruptLog

JSON = Any  # whatever orjson reads and writes


@dataclass(frozen=True, slots=True)
class Artifact:
    """A named file of a job, kept by its content."""

    name: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
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

    def __post_init__(self) -> None:
        # What was read back from JSON becomes what was written: tuples, not lists of dicts.
        if self.artifacts and isinstance(self.artifacts[0], dict):
            made = tuple(Artifact(**each) for each in self.artifacts)
            object.__setattr__(self, "artifacts", made)
        if self.tags.__class__ is not tuple:
            object.__setattr__(self, "tags", tuple(self.tags))


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    attempt: int
    worker: str


@dataclass(frozen=True, slots=True)
class ProgressReported:
    BODY: ClassVar = frozenset({"message", "data"})

    attempt: int
    done: float | None = None
    total: float | None = None
    stage: str | None = None
    message: str | None = None
    data: JSON = None


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """With a *retry_at_us* the job is queued again; without one it has failed."""

    BODY: ClassVar = frozenset({"message", "details"})

    attempt: int
    code: str
    retryable: bool
    retry_at_us: int | None = None
    message: str | None = None
    details: JSON = None


@dataclass(frozen=True, slots=True)
class AttemptReleased:
    """Given back unfinished, at a shutdown; does not count as an attempt."""

    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
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
    BODY: ClassVar = frozenset({"reason"})

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobExpired:
    """Hidden from lists and reads; the log keeps the facts."""

    reason: str


Event = (
    JobSubmitted
    | AttemptStarted
    | ProgressReported
    | LogWritten
    | ArtifactStored
    | AttemptFailed
    | AttemptReleased
    | JobCompleted
    | CancelRequested
    | JobCancelled
    | JobRetried
    | JobExpired
)


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
    _json: bytes | None = field(default=None, compare=False, repr=False)

    @property
    def data(self) -> bytes:
        """Facts and body as one JSON object; an erased body says so."""
        body = b'{"erased":true}' if self.body is None else self.body
        if body == b"{}":
            return self.facts
        return body if self.facts == b"{}" else self.facts[:-1] + b"," + body[1:]

    def json(self) -> bytes:
        """The event as everyone outside reads it: pages, streams, exports. Encoded once."""
        if self._json is None:
            self._json = (
                b'{"position":%d,"job_id":"%s","version":%d,"type":"%s","at":"%s","actor":%s,"data":%s}'
                % (
                    self.position,
                    self.job_id.encode(),
                    self.version,
                    self.type.encode(),
                    rfc3339(self.at_us).encode(),
                    orjson.dumps(self.actor),
                    self.data,
                )
            )
        return self._json


def rfc3339(at_us: int) -> str:
    """*at_us* as RFC 3339 in UTC, with microseconds and `Z`."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Kept, because one job is told with several times, and most times are of a few seconds.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


Upcaster = Callable[[dict[str, Any], dict[str, Any]], tuple[str, dict[str, Any], dict[str, Any]]]

#: From a stored type of an older shape to the next one: (facts, body) -> (type, facts, body).
#: A class whose shape changed sets `SCHEMA = 2` and is stored as "Name/2" from then on.
UPCASTERS: dict[str, Upcaster] = {}


class _Shape:
    """How one event class is split into facts and body."""

    def __init__(self, event: type[Any]) -> None:
        schema = getattr(event, "SCHEMA", 1)
        self.type = event.__name__ if schema == 1 else f"{event.__name__}/{schema}"
        # A submission is stored as its specification; the wrapper has nothing of its own.
        submission = event is JobSubmitted
        holder = JobSpec if submission else event
        self.build: Callable[..., Event] = _submitted if submission else event
        private: frozenset[str] = getattr(holder, "BODY", frozenset())
        names = sorted(each.name for each in fields(holder))
        self.facts = _Half(name for name in names if name not in private)
        self.body = _Half(name for name in names if name in private)


class _Half:
    """Some fields of an event class, as JSON with sorted keys."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        if len(self._names) == 1:
            only = attrgetter(*self._names)
            self._read: Callable[[Any], tuple[Any, ...]] = lambda holder: (only(holder),)
        elif self._names:
            self._read = attrgetter(*self._names)

    def dump(self, holder: Any) -> bytes:
        """What is None or () is left out: the class's own default brings it back."""
        if not self._names:
            return b"{}"
        values = self._read(holder)
        if None in values or () in values:
            kept = {
                name: value
                for name, value in zip(self._names, values, strict=True)
                if value is not None and value != ()
            }
            return orjson.dumps(kept) if kept else b"{}"
        return orjson.dumps(dict(zip(self._names, values, strict=True)))


def _submitted(**spec: Any) -> JobSubmitted:
    return JobSubmitted(JobSpec(**spec))


_SHAPES: dict[type[Any], _Shape] = {each: _Shape(each) for each in Event.__args__}
_BY_TYPE = {shape.type: shape for shape in _SHAPES.values()}


def encode(event: Event) -> tuple[str, bytes, bytes]:
    """The stored type, facts and body. Raises TypeError for what JSON cannot hold."""
    shape = _SHAPES[event.__class__]
    holder = event.spec if isinstance(event, JobSubmitted) else event
    return shape.type, shape.facts.dump(holder), shape.body.dump(holder)


def decode(
    type: str,
    facts: bytes,
    body: bytes | None,
    upcasters: dict[str, Upcaster] = UPCASTERS,
) -> Event:
    """The event stored under *type*, brought up to today's shape. Raises CorruptLog."""
    try:
        known = orjson.loads(facts)
        told = {} if body is None or body == b"{}" else orjson.loads(body)
        while type in upcasters:
            type, known, told = upcasters[type](known, told)
        shape = _BY_TYPE.get(type)
        if shape is not None:
            return shape.build(**known, **told)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptLog(f"a stored {type} cannot be read: {error}") from error
    raise CorruptLog(f"no event type {type!r} is known; it may be from a newer eventjobs")

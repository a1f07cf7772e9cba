"""The specification of a job: what is to be done, as its first event keeps it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from eventjobs.storable import json_fields

JSON = Any  # whatever orjson reads and writes; a field of it gives a new copy at each reading


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

"""The specification of a job, as its first event stores it."""

from typing import Any, ClassVar

from eventjobs.domain.json_fields import json_fields
from eventjobs.domain.values import value

JSON = Any  # a value that orjson reads and writes; reading such a field gives a new copy each time


@value(frozen=True, slots=True)
class Artifact:
    """A named file of a job. Its content is stored under *sha256*."""

    name: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"


def _artifact_of(value: Any) -> Any:
    complete = type(value) is dict and value.keys() == Artifact.__dataclass_fields__.keys()
    return Artifact(**value) if complete else value


@json_fields("payload")
@value(frozen=True)
class JobSpec:
    """What a job does, when, and how often. It is built once, where the submission arrives, and is
    never changed.
    """

    BODY: ClassVar = frozenset({"payload", "tags"})

    type: str
    payload: JSON = None
    tags: tuple[str, ...] = ()
    owner: str | None = None
    priority: int = 0
    run_at_us: int | None = None
    max_attempts: int = 0  # 0: the handler's or the setting's; set at submit
    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    #: Seconds before the second attempt; doubled for each later one. None: the handler's.
    retry_delay_s: float | None = None
    artifacts: tuple[Artifact, ...] = ()
    #: The queue that it waits in. Limits and pauses can apply to a queue. None: "default".
    queue: str | None = None
    #: Jobs with the same key run one at a time, or as many as their handler allows.
    concurrency_key: str | None = None
    #: Seconds from its end until it is hidden. None: the setting's.
    ttl_s: float | None = None
    #: Ids of the jobs that must be completed before this one starts.
    after: tuple[str, ...] = ()
    #: "run": it starts when those have ended, also failed. None: a failed one cancels it.
    after_failure: str | None = None
    #: The job whose handler submitted this one.
    parent: str | None = None
    #: The names of fields whose values only its owner may read. The handler's; set at submit.
    sensitive: tuple[str, ...] = ()
    #: The names of the completion hooks of its type. Of the handler registry; set at submit.
    hooks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # JSON has lists and dicts where the fields have tuples and Artifacts. The __iter__ of a
        # subclass may be endless.
        if isinstance(self.artifacts, list):
            object.__setattr__(
                self, "artifacts", tuple(map(_artifact_of, list.__iter__(self.artifacts)))
            )
        if isinstance(self.tags, list):
            object.__setattr__(self, "tags", tuple(list.__iter__(self.tags)))
        if isinstance(self.after, list):
            object.__setattr__(self, "after", tuple(list.__iter__(self.after)))
        if isinstance(self.sensitive, list):
            object.__setattr__(self, "sensitive", tuple(list.__iter__(self.sensitive)))
        if isinstance(self.hooks, list):
            object.__setattr__(self, "hooks", tuple(list.__iter__(self.hooks)))

"""Declare completion hooks: functions and URLs that make records of completed jobs."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypedDict, Unpack

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from eventjobs.domain.hook_results import hook_type
from eventjobs.domain.spec import Artifact
from eventjobs.domain.validation import STRICT, Attempts, Delay, Name, Seconds, validate
from eventjobs.errors import InvalidInput

#: Runs of a hook for one completed job, at most, unless it has another number.
ATTEMPTS = 10
#: Names that `links` of a job has already.
_LINKS = frozenset({"self", "events", "history", "why", "logs", "receipt", "cancel", "retry"})
_LINKS |= {"children", "error"}


class HookOptions(TypedDict, total=False):
    """Options of a completion hook. Each hook is run by a job of its own."""

    #: most runs for one completed job; 10 by default
    max_attempts: int
    #: longest run, seconds; 30 by default
    timeout_s: float
    #: seconds before the second run, doubled for each later one; 1 by default
    retry_delay_s: float


@dataclass(frozen=True)
class CompletedJob:
    """A completed job, as a hook gets it. *job_id* is the key that makes its record unique."""

    job_id: str
    type: str
    owner: str | None
    payload: Any
    result: Any
    artifacts: tuple[Artifact, ...]
    tags: tuple[str, ...]
    completed_at: datetime


@dataclass(frozen=True)
class CompletionHook:
    """The hook *name* of jobs of *type*: a function, or a URL that gets a POST."""

    type: str
    name: str
    max_attempts: int
    timeout_s: float
    retry_delay_s: float
    function: Callable[[CompletedJob], Any] | None = None
    url: str | None = None
    unmasked: bool = False

    @property
    def job_type(self) -> str:
        """The type of the jobs that run this hook."""
        return hook_type(self.type, self.name)


class _HookModel(BaseModel):
    model_config = STRICT

    type: Name
    name: str = Field(max_length=40, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    max_attempts: Attempts = ATTEMPTS
    timeout_s: Seconds = 30.0
    retry_delay_s: Delay = 1.0
    url: str | None = Field(None, max_length=2000, pattern=r"^https?://[^/]")
    unmasked: bool = False


def on_completion(
    type: str, *, name: str, **options: Unpack[HookOptions]
) -> Callable[[Callable[[CompletedJob], Any]], CompletionHook]:
    """Make a function of a CompletedJob the completion hook *name* of a job type.

    It is called for each job of the type that completes, and again after a failure or a crash:
    at least once. The job's id is the same at each call, and makes the record unique. An
    `async def` runs on the event loop, a plain function in a thread. It returns the id of its
    record, {"id": …, "url": …}, or None. The first return value counts, and is the link *name* of
    the job. For the *options* see HookOptions. Raises TypeError for a function that cannot be a
    hook, InvalidInput for an option's value.
    """
    fields = _hook_fields({"type": type, "name": name, **options})

    def register(function: Callable[[CompletedJob], Any]) -> CompletionHook:
        try:
            inspect.signature(function).bind("job")
        except (TypeError, ValueError):
            raise TypeError(f"the hook {name!r} of {type!r} must take (job)") from None
        return CompletionHook(**fields, function=function)

    return register


def completion_hook(
    type: str, *, name: str, url: str, unmasked: bool = False, **options: Unpack[HookOptions]
) -> CompletionHook:
    """The completion hook *name* of a job type that POSTs each completed job to *url*.

    The response is the record, as *on_completion* describes it. Sensitive fields are hidden in the
    request, except with *unmasked*. For the *options* see HookOptions. Raises InvalidInput.
    """
    return build_hook({"type": type, "name": name, "url": url, "unmasked": unmasked, **options})


def build_hook(fields: Mapping[str, Any]) -> CompletionHook:
    """A hook with a URL from the arguments of *completion_hook*. Raises InvalidInput."""
    values = _hook_fields(fields)
    if values["url"] is None:
        wrong = [{"field": "url", "message": "it is required"}]
        raise InvalidInput("a completion hook without a function has a url", wrong)
    return CompletionHook(**values)


def _hook_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The checked fields of a CompletionHook. Raises InvalidInput."""
    what = "the completion hook cannot be declared"
    values = vars(validate(_HookModel, dict(fields), what))
    if values["name"] in _LINKS:
        wrong = [{"field": "name", "message": f"a job has another link {values['name']!r}"}]
        raise InvalidInput(f"{what}: a job has another link {values['name']!r}", wrong)
    validate(_JobType, {"type": hook_type(values["type"], values["name"])}, what)
    return values


class _JobType(BaseModel):
    type: Name


def _id_text(value: object) -> object:
    return str(value) if type(value) is int else value


class HookRecord(BaseModel):
    """The record that a hook made: its id, a number or a text, and its URL or path."""

    model_config = ConfigDict(strict=True)

    id: Annotated[Name | None, BeforeValidator(_id_text)] = None
    url: str | None = Field(None, max_length=2000, pattern=r"^(https?://[^/\s]|/)[^\s]*$")

    @classmethod
    def read(cls, value: Any) -> "HookRecord":
        """From what a hook returned; other fields of a record are ignored. Raises InvalidInput."""
        what = "a completion hook returns an id, {'id', 'url'} or None"
        if isinstance(value, dict) and not value.keys() & {"id", "url"}:
            raise InvalidInput(f"{what}, and not a dict without both")
        return validate(cls, value if isinstance(value, dict) else {"id": value}, what)

"""What users write: a function for each job type, and what it may do while it runs."""

import asyncio
import builtins
import inspect
import math
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar, get_type_hints

import orjson
from pydantic import BaseModel, ValidationError

from eventjobs.artifacts import check_name
from eventjobs.desk import Files
from eventjobs.errors import InvalidInput, JobError, UnknownType
from eventjobs.events import ArtifactStored, JobSpec, LogWritten, ProgressReported
from eventjobs.job import Job
from eventjobs.reports import Reports

Function = TypeVar("Function", bound=Callable[..., Any])
Answer = TypeVar("Answer")

TEXT_CHARS_MAX = 4_000
#: Nesting of what is stored; the engines and what wraps it in an answer need some room above.
DEPTH_MAX = 200
LEVELS = ("debug", "info", "warning", "error")


#: Where a function runs: on the event loop, in a thread, in a process; or it is none of ours, but
#: an external service, or workers elsewhere.
Mode = Literal["loop", "thread", "process", "external", "outside"]


@dataclass(frozen=True)
class Handler:
    """How jobs of one type are done. What a submission does not say is taken from here."""

    type: str
    function: Callable[..., Any]
    model: "builtins.type[BaseModel] | None"
    mode: Mode
    max_attempts: int | None
    timeout_s: float | None
    stall_timeout_s: float | None
    retry_delay_s: float | None

    def parse(self, payload: Any) -> Any:
        """*payload* as the handler wants it. Raises InvalidInput naming the fields."""
        if self.model is None:
            return payload
        try:
            return self.model.model_validate({} if payload is None else payload)
        except ValidationError as error:
            raise InvalidInput(
                f"the payload does not fit {self.type}", field_errors(error, "payload")
            ) from error


def field_errors(error: ValidationError, *under: str) -> list[dict[str, str]]:
    """One {"field", "message"} for each thing that is wrong."""
    return [
        {"field": ".".join(map(str, (*under, *each["loc"]))), "message": each["msg"]}
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def handler(
    type: str,
    *,
    max_attempts: int | None = None,
    timeout_s: float | None = None,
    stall_timeout_s: float | None = None,
    retry_delay_s: float | None = None,
) -> Callable[[Callable[..., Any]], Handler]:
    """Make a function of (context, payload) the handler of a job type.

    An `async def` runs on the event loop and gets a Context; a plain function runs in a thread
    and gets a ThreadContext. When the payload is annotated with a pydantic model, submissions
    that do not fit it are refused, and the function gets the model. What it returns, anything
    that JSON holds, is the result. It may run more than once: at least once, never two outcomes.
    """

    def register(function: Callable[..., Any]) -> Handler:
        signature = inspect.signature(function)
        parameters = list(signature.parameters)
        try:
            signature.bind("context", "payload")
        except TypeError:
            parameters = []
        if len(parameters) != 2:
            raise TypeError(f"handler {type!r} must take (context, payload)")
        wanted = get_type_hints(function).get(parameters[1])
        model = wanted if inspect.isclass(wanted) and issubclass(wanted, BaseModel) else None
        return Handler(
            type,
            function,
            model,
            "loop" if inspect.iscoroutinefunction(function) else "thread",
            max_attempts,
            timeout_s,
            stall_timeout_s,
            retry_delay_s,
        )

    return register


class Handlers:
    """The handlers of one service, by type."""

    def __init__(self, handlers: Iterable[Handler] = ()) -> None:
        self._by_type: dict[str, Handler] = {}
        for each in handlers:
            if each.type in self._by_type:
                raise ValueError(f"two handlers for {each.type!r}")
            self._by_type[each.type] = each

    @classmethod
    def of(cls, holder: object) -> "Handlers":
        """From a module, an iterable of handlers, one handler, or Handlers."""
        if isinstance(holder, Handlers):
            return holder
        if isinstance(holder, Handler):
            return cls([holder])
        if isinstance(holder, ModuleType):
            return cls(each for each in vars(holder).values() if isinstance(each, Handler))
        if isinstance(holder, Iterable):
            return cls(holder)
        raise TypeError(f"{holder!r} holds no handlers")

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)

    def types(self) -> list[str]:
        return list(self._by_type)

    def get(self, type: str) -> Handler:
        """Raises UnknownType."""
        try:
            return self._by_type[type]
        except KeyError:
            known = ", ".join(sorted(self._by_type)) or "none"
            raise UnknownType(
                f"no handler for type {type!r}; there are: {known}",
                [{"field": "type", "message": "no handler is registered for it"}],
            ) from None


class Stopped(BaseException):
    """Raised in a thread by check_cancelled: the job was cancelled or has timed out.

    Not an Exception, so that a handler's own `except Exception` does not swallow it.
    """


class _Told:
    """What both kinds of context share."""

    def __init__(self, job: Job, files: Files, reports: Reports) -> None:
        self._job = job
        self._files = files
        self._reports = reports
        self._stopped = False  # set from the loop, read from any thread

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def attempt(self) -> int:
        """1 for the first run of the job."""
        return self._job.attempt

    @property
    def spec(self) -> JobSpec:
        return self._job.spec

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: cancelled, out of time, or shut down."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise when this attempt should stop."""
        if self._stopped:
            raise Stopped

    def input(self, name: str | None = None) -> Path:
        """The local file of an artifact of this job; without a name, its first one.

        Raises JobError `artifact_missing`. The file is not to be changed.
        """
        for each in self._job.artifacts:
            if name is None or each.name == name:
                return self._files.path(each.sha256)
        raise JobError(
            "artifact_missing",
            f"the job has no artifact {name!r}" if name else "the job has no artifact",
            retryable=False,
        )

    def _progress(
        self,
        done: float | None,
        total: float | None,
        stage: str | None,
        message: str | None,
        data: Any,
    ) -> ProgressReported:
        return ProgressReported(
            self.attempt,
            _finite(done),
            _finite(total),
            None if stage is None else plain_text(stage)[:200],
            None if message is None else plain_text(message),
            plain_json(data),
        )

    def _line(self, message: str, level: str, fields: dict[str, Any]) -> LogWritten:
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}")
        return LogWritten(self.attempt, level, plain_text(message), plain_json(fields or None))

    def _stored(self, name: str, kept: tuple[str, int], media_type: str) -> ArtifactStored:
        return ArtifactStored(self.attempt, check_name(name), *kept, media_type)


class Context(_Told):
    """What an `async def` handler may do while it runs."""

    def progress(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        """Tell how far the whole job is. Stored at a set rate, the last always; never blocks."""
        self._reports.progress(self._progress(done, total, stage, message, data))

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Add a line to the job's own log. Never blocks."""
        self._reports.add(self._line(message, level, fields))

    async def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """Store a file of this job; the same *name* replaces it. Raises DiskFull, TooLarge."""
        check_name(name)
        kept = await asyncio.to_thread(self._files.store, content)
        await self._reports.now(self._stored(name, kept, media_type))


class ThreadContext(_Told):
    """What a plain function may do while it runs in its thread."""

    def __init__(
        self, job: Job, files: Files, reports: Reports, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(job, files, reports)
        self._loop = loop

    def progress(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        """Tell how far the whole job is. Stored at a set rate, the last always; never blocks."""
        told = self._progress(done, total, stage, message, data)
        self._loop.call_soon_threadsafe(self._reports.progress, told)

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Add a line to the job's own log. Never blocks."""
        self._loop.call_soon_threadsafe(self._reports.add, self._line(message, level, fields))

    def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """Store a file of this job; the same *name* replaces it. Raises DiskFull, TooLarge."""
        check_name(name)
        kept = self._files.store(content)
        self._wait(self._reports.now(self._stored(name, kept, media_type)))

    def _wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def plain_text(value: object) -> str:
    """*value* as text that can be stored: no lone surrogates, not too long."""
    text = str(value)[:TEXT_CHARS_MAX]
    return text.encode("utf-8", "replace").decode()


def plain_json(value: Any) -> Any:
    """*value* as it will be read back. Raises TypeError for what JSON cannot hold."""
    if value is None:
        return None
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    _refuse_unreal(value)
    return orjson.loads(orjson.dumps(value))


def _refuse_unreal(value: Any, depth: int = 0) -> None:
    # orjson writes NaN and infinity as null: a result would silently lose a number.
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not a JSON number")
    if depth > DEPTH_MAX:
        raise TypeError(f"it is nested deeper than {DEPTH_MAX}")
    if is_dataclass(value):
        value = [getattr(value, each.name) for each in fields(value)]
    if isinstance(value, dict):
        for each in value.values():
            _refuse_unreal(each, depth + 1)
    elif isinstance(value, list | tuple):
        for each in value:
            _refuse_unreal(each, depth + 1)


def _finite(number: float | None) -> float | None:
    # Any number, also a library's own or an enormous one, as one that JSON holds.
    if number is None or (type(number) is int and abs(number) < 2**53):
        return number
    try:
        number = float(number)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None

"""What users write: a function for each job type."""

import builtins
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal, TypedDict, Unpack, get_args, get_type_hints

from pydantic import BaseModel, Field, ValidationError

from eventjobs.contexts import Context, Stopped, ThreadContext
from eventjobs.errors import InvalidInput, UnknownType
from eventjobs.flow import UNLIMITED, HandlerFlow, Limits
from eventjobs.plain import plain_json, plain_text
from eventjobs.schedules import Schedule, schedule
from eventjobs.values import STRICT, Attempts, Delay, Name, QueueName, Seconds, field_errors, read

__all__ = [
    "Context",
    "External",
    "Handler",
    "Handlers",
    "Mode",
    "Stopped",
    "ThreadContext",
    "external",
    "handler",
    "plain_json",
    "plain_text",
    "schedule",
]

#: Where a function runs: on the event loop, in a thread, in a process; or it is none of ours, but
#: an external service, or workers elsewhere.
Mode = Literal["loop", "thread", "process", "external", "outside"]


#: What becomes of an attempt that a shutdown cuts off: it runs again elsewhere, or has failed.
OnShutdown = Literal["release", "fail"]


@dataclass(frozen=True)
class External:
    """The service that does the jobs of a type, and how long it may take to answer a request."""

    dispatch_url: str
    answer_timeout_s: float


@dataclass(frozen=True)
class Handler:
    """How jobs of one type are done. What a submission does not say is taken from here."""

    type: str
    function: Callable[..., Any]
    model: "builtins.type[BaseModel] | None"
    mode: Mode
    max_attempts: int | None = None
    timeout_s: float | None = None
    stall_timeout_s: float | None = None
    retry_delay_s: float | None = None
    ttl_s: float | None = None
    flow: HandlerFlow = UNLIMITED
    external: External | None = None
    on_shutdown: OnShutdown = "release"

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """What it says of fields of a submission that may be left out."""
        names = ("timeout_s", "stall_timeout_s", "retry_delay_s", "ttl_s")
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        return MappingProxyType(said)

    def parse(self, payload: Any) -> Any:
        """*payload* as the handler wants it. Raises InvalidInput naming the fields."""
        if self.model is None:
            return payload
        try:
            return self.model.model_validate({} if payload is None else payload)
        except ValidationError as error:
            wrong = field_errors(error, "payload")
            raise InvalidInput(f"the payload does not fit {self.type}", wrong) from error


class Options(TypedDict, total=False):
    """What can be said of the jobs of every type, wherever they run. A job may say otherwise."""

    #: runs of a job, at most
    max_attempts: int | None
    #: longest run
    timeout_s: float | None
    #: longest time without progress
    stall_timeout_s: float | None
    #: before the second run; doubled for each later one
    retry_delay_s: float | None
    #: hidden so long after its end
    ttl_s: float | None
    #: what its jobs wait in
    queue: str | None
    #: so many run at once, at most
    concurrency: int | None
    #: the same for those with the same concurrency key; 1 if not given
    key_concurrency: int | None
    #: how many are started: "10/m" is ten in any minute; also s, h and d
    rate: str | None


class _Options(BaseModel):
    """The same, as they are checked."""

    model_config = STRICT

    type: Name
    max_attempts: Attempts | None = None
    timeout_s: Seconds | None = None
    stall_timeout_s: Seconds | None = None
    retry_delay_s: Delay | None = None
    ttl_s: Delay | None = None
    queue: QueueName | None = None
    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: str | None = None
    process: bool = False
    model: builtins.type[BaseModel] | None = None
    dispatch_url: str = Field("/", max_length=2000, pattern=r"^(https?://[^/]|/)")
    answer_timeout_s: Seconds = 30.0


def _fields(type: str, options: Options, **more: Any) -> dict[str, Any]:
    """Those of a Handler. Raises TypeError for what is no option, InvalidInput for its value."""
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"handler {type!r} has no option {', '.join(sorted(unknown))}")
    said = read(_Options, {"type": type, **options, **more}, "the handler cannot be declared")
    flow = HandlerFlow.of(said.queue, said.concurrency, said.key_concurrency, said.rate)
    names = ("type", "max_attempts", "timeout_s", "stall_timeout_s", "retry_delay_s", "ttl_s")
    return {**{each: getattr(said, each) for each in names}, "flow": flow}


def handler(
    type: str,
    *,
    process: bool = False,
    on_shutdown: OnShutdown = "release",
    **options: Unpack[Options],
) -> Callable[[Callable[..., Any]], Handler]:
    """Make a function of (context, payload) the handler of a job type.

    An `async def` runs on the event loop and gets a Context; a plain function runs in a thread,
    or with *process* in a process that can be killed, and gets a ThreadContext. When the payload is
    annotated with a pydantic model, submissions that do not fit it are refused, and the function
    gets the model. What it returns, anything that JSON holds, is the result. It may run more than
    once: at least once, never two outcomes. Raises TypeError for what cannot be a handler.

    A run that a shutdown cuts off does not count, and is done again, unless *on_shutdown* is
    "fail": then the job has failed, with `worker_shutdown`. For the *options* see Options.
    """
    fields = _fields(type, options, process=process)
    if on_shutdown.__class__ is not str or on_shutdown not in get_args(OnShutdown):
        message = f"on_shutdown of {type!r} is one of {', '.join(get_args(OnShutdown))}"
        raise InvalidInput(message, [{"field": "on_shutdown", "message": message}])

    def register(function: Callable[..., Any]) -> Handler:
        model, mode = _model(type, function), _mode(type, function, process)
        return Handler(**fields, function=function, model=model, mode=mode, on_shutdown=on_shutdown)

    return register


def _model(type: str, function: Callable[..., Any]) -> "builtins.type[BaseModel] | None":
    """What its payload is annotated with. Raises TypeError for other than (context, payload)."""
    try:
        signature = inspect.signature(function)
        signature.bind("context", "payload")
        parameters = list(signature.parameters)
    except (TypeError, ValueError):  # no function, or one of the interpreter's own
        parameters = []
    if len(parameters) != 2:
        raise TypeError(f"handler {type!r} must take (context, payload)")
    wanted = get_type_hints(function).get(parameters[1])
    return wanted if inspect.isclass(wanted) and issubclass(wanted, BaseModel) else None


def external(
    type: str,
    *,
    dispatch_url: str,
    model: "builtins.type[BaseModel] | None" = None,
    answer_timeout_s: float = 30.0,
    **options: Unpack[Options],
) -> Handler:
    """A handler whose jobs an HTTP service does: each attempt is POSTed to *dispatch_url*.

    The service answers within *answer_timeout_s*, with the result, or with 202 to report later.
    A *dispatch_url* that begins with a slash is one of the service in python_service_url. The rest
    is as in *handler*.
    """
    more = {"dispatch_url": dispatch_url, "answer_timeout_s": answer_timeout_s, "model": model}
    fields = _fields(type, options, **more)
    service = External(dispatch_url, answer_timeout_s)
    return Handler(**fields, function=_not_here, model=model, mode="external", external=service)


async def _not_here(context: Context, payload: Any) -> None:
    raise NotImplementedError("an external handler is performed by a dispatcher")


def _mode(type: str, function: Callable[..., Any], process: bool) -> Mode:
    if not process:
        return "loop" if inspect.iscoroutinefunction(function) else "thread"
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"handler {type!r}: an async def runs on the loop, not in a process")
    name = getattr(function, "__qualname__", "<no function>")
    if "<" in name or not _has_file(function.__module__):
        raise TypeError(
            f"handler {type!r}: {function.__module__}.{name} cannot be imported by another process;"
            " define it at the top level of a module"
        )
    return "process"


def _has_file(module: str) -> bool:
    # What is typed at a prompt, or comes on stdin, is nowhere to be imported from.
    if module != "__main__" or sys.modules[module].__spec__ is not None:
        return True
    return Path(getattr(sys.modules[module], "__file__", None) or "?").is_file()


def outside(
    type: str,
    *,
    model: builtins.type[BaseModel] | None = None,
    **options: Unpack[Options],
) -> Handler:
    """A job type that only workers elsewhere run; submissions that do not fit *model* are refused.

    Without code, the setting `worker_types` declares such types. The rest is as in *handler*.
    """
    fields = _fields(type, options, model=model)
    return Handler(**fields, function=_nowhere, model=model, mode="outside")


def _nowhere(context: Any, payload: Any) -> Any:
    raise NotImplementedError("a worker elsewhere runs this")


class Handlers:
    """The handlers of one service, by type, and its schedules."""

    def __init__(self, parts: Iterable[Handler | Schedule] = ()) -> None:
        self._by_type: dict[str, Handler] = {}
        self._by_name: dict[str, Schedule] = {}
        for each in parts:
            if isinstance(each, Schedule):
                if each.name in self._by_name:
                    raise ValueError(f"two schedules are called {each.name!r}")
                self._by_name[each.name] = each
                continue
            if each.type in self._by_type:
                raise ValueError(f"two handlers for {each.type!r}")
            self._by_type[each.type] = each

    @classmethod
    def of(cls, holder: object) -> "Handlers":
        """From a module, an iterable of handlers and schedules, one alone, or Handlers."""
        if isinstance(holder, Handlers):
            return holder
        if isinstance(holder, Handler | Schedule):
            return cls([holder])
        if isinstance(holder, ModuleType):
            values = vars(holder).values()
            return cls(each for each in values if isinstance(each, Handler | Schedule))
        if isinstance(holder, Iterable):
            return cls(holder)
        raise TypeError(f"{holder!r} holds no handlers")

    def besides(self, more: Iterable[Handler]) -> "Handlers":
        """These, and those of *more* whose types have none here."""
        types = self._by_type | {each.type: each for each in more} | self._by_type
        return Handlers([*types.values(), *self.schedules])

    @property
    def schedules(self) -> list[Schedule]:
        return list(self._by_name.values())

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)

    def limits(self, types: Mapping[str, int], queues: Mapping[str, int]) -> Limits:
        """Of jobs that run at once: what handlers say, but for what *types* says of theirs."""
        said = {each.type: each.flow for each in self}
        own = {type: flow.concurrency for type, flow in said.items() if flow.concurrency}
        keys = {type: flow.key_concurrency for type, flow in said.items() if flow.key_concurrency}
        rates = {type: flow.rate for type, flow in said.items() if flow.rate}
        return Limits(own | dict(types), queues, keys, rates)

    def types(self) -> list[str]:
        return list(self._by_type)

    def get(self, type: str) -> Handler:
        """Raises UnknownType."""
        if not issubclass(builtins.type(type), str):
            wrong = [{"field": "type", "message": "it is a string"}]
            raise UnknownType("the type of a job is a string", wrong)
        try:
            return self._by_type[type]
        except KeyError:
            known = ", ".join(sorted(self._by_type)) or "none"
            raise UnknownType(
                f"no handler for type {type!r}; there are: {known}",
                [{"field": "type", "message": "no handler is registered for it"}],
            ) from None

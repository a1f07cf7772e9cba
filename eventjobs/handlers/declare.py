"""The decorators and functions that declare handlers."""

import builtins
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args, get_type_hints

from pydantic import BaseModel

from eventjobs.domain.limits import HandlerLimits
from eventjobs.domain.validation import read
from eventjobs.errors import InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import External, Handler, Mode, OnShutdown, _Options


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


def _fields(type: str, options: Options, **more: Any) -> dict[str, Any]:
    """Those of a Handler. Raises TypeError for what is no option, InvalidInput for its value."""
    if unknown := options.keys() - Options.__annotations__.keys():
        raise TypeError(f"handler {type!r} has no option {', '.join(sorted(unknown))}")
    said = read(_Options, {"type": type, **options, **more}, "the handler cannot be declared")
    flow = HandlerLimits.of(said.queue, said.concurrency, said.key_concurrency, said.rate)
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


def remote(
    type: str,
    *,
    model: builtins.type[BaseModel] | None = None,
    **options: Unpack[Options],
) -> Handler:
    """A job type that only workers elsewhere run; submissions that do not fit *model* are refused.

    Without code, the setting `worker_types` declares such types. The rest is as in *handler*.
    """
    fields = _fields(type, options, model=model)
    return Handler(**fields, function=_nowhere, model=model, mode="remote")


def _nowhere(context: Any, payload: Any) -> Any:
    raise NotImplementedError("a worker elsewhere runs this")

"""Declare handlers: `handler` for functions, `external` for HTTP services, `remote` for workers."""

import builtins
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args, get_type_hints

from pydantic import BaseModel

from eventjobs.domain.limits import HandlerLimits
from eventjobs.domain.validation import validate
from eventjobs.errors import InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import ExternalService, Handler, Mode, OnShutdown, OptionsModel


class HandlerOptions(TypedDict, total=False):
    """Options of a job type, the same for every mode. A submission's own values go first."""

    #: most runs of a job
    max_attempts: int | None
    #: longest run, seconds
    timeout_s: float | None
    #: longest time without a progress report, seconds
    stall_timeout_s: float | None
    #: seconds before the second run; doubled for each later one
    retry_delay_s: float | None
    #: seconds from a job's end until it is hidden
    ttl_s: float | None
    #: the queue of its jobs
    queue: str | None
    #: most jobs that run at once
    concurrency: int | None
    #: most jobs with the same concurrency key that run at once; 1 by default
    key_concurrency: int | None
    #: start rate: "10/m" is ten in any minute; also s, h and d
    rate: str | None
    #: names of fields whose values are hidden from all but the job's owner
    sensitive: Sequence[str]


def _handler_fields(type: str, options: HandlerOptions, **more: Any) -> dict[str, Any]:
    """The checked fields of a Handler. Raises TypeError for an unknown option, InvalidInput."""
    if unknown := options.keys() - HandlerOptions.__annotations__.keys():
        raise TypeError(f"handler {type!r} has no option {', '.join(sorted(unknown))}")
    values = validate(
        OptionsModel, {"type": type, **options, **more}, "the handler cannot be declared"
    )
    limits = HandlerLimits.of(values.queue, values.concurrency, values.key_concurrency, values.rate)
    times = ("timeout_s", "stall_timeout_s", "retry_delay_s", "ttl_s")
    names = ("type", "max_attempts", *times, "sensitive")
    return {**{each: getattr(values, each) for each in names}, "limits": limits}


def handler(
    type: str,
    *,
    process: bool = False,
    on_shutdown: OnShutdown = "release",
    **options: Unpack[HandlerOptions],
) -> Callable[[Callable[..., Any]], Handler]:
    """Make a function of (context, payload) the handler of a job type.

    An `async def` runs on the event loop and gets a Context. A plain function gets a ThreadContext
    and runs in a thread, or with *process* in a process that can be killed. If the payload is
    annotated with a pydantic model, the function gets an instance of it, and submissions that do
    not fit the model are refused. The return value, any JSON, is the job's result. The function
    runs at least once; exactly one outcome is recorded.

    A run that a shutdown cuts off does not count and is repeated. With *on_shutdown* "fail" the
    job fails instead, with `worker_shutdown`. For the *options* see HandlerOptions. Raises
    TypeError for a function that cannot be a handler, InvalidInput for an option's value.
    """
    fields = _handler_fields(type, options, process=process)
    if on_shutdown.__class__ is not str or on_shutdown not in get_args(OnShutdown):
        message = f"on_shutdown of {type!r} is one of {', '.join(get_args(OnShutdown))}"
        raise InvalidInput(message, [{"field": "on_shutdown", "message": message}])

    def register(function: Callable[..., Any]) -> Handler:
        model, mode = _model(type, function), _mode(type, function, process)
        return Handler(**fields, function=function, model=model, mode=mode, on_shutdown=on_shutdown)

    return register


def _model(type: str, function: Callable[..., Any]) -> "builtins.type[BaseModel] | None":
    """The model of the payload, if any. Raises TypeError for other than (context, payload)."""
    try:
        signature = inspect.signature(function)
        signature.bind("context", "payload")
        parameters = list(signature.parameters)
    except (TypeError, ValueError):  # no function, or a builtin without a signature
        parameters = []
    if len(parameters) != 2:
        raise TypeError(f"handler {type!r} must take (context, payload)")
    hint = get_type_hints(function).get(parameters[1])
    return hint if inspect.isclass(hint) and issubclass(hint, BaseModel) else None


def external(
    type: str,
    *,
    dispatch_url: str,
    model: "builtins.type[BaseModel] | None" = None,
    answer_timeout_s: float = 30.0,
    **options: Unpack[HandlerOptions],
) -> Handler:
    """A handler whose jobs an HTTP service runs: each attempt is POSTed to *dispatch_url*.

    The service responds within *answer_timeout_s* seconds: with the result, or with 202 to report
    later. A *dispatch_url* that begins with a slash is a path at `python_service_url`. *model* is
    that of the payload. *options* and errors are as in *handler*.
    """
    more = {"dispatch_url": dispatch_url, "answer_timeout_s": answer_timeout_s, "model": model}
    fields = _handler_fields(type, options, **more)
    service = ExternalService(dispatch_url, answer_timeout_s)
    return Handler(**fields, function=_run_external, model=model, mode="external", external=service)


async def _run_external(context: Context, payload: Any) -> None:
    raise NotImplementedError("an external service runs this")


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
    # A __main__ typed at a prompt or read from stdin cannot be imported.
    if module != "__main__" or sys.modules[module].__spec__ is not None:
        return True
    return Path(getattr(sys.modules[module], "__file__", None) or "?").is_file()


def remote(
    type: str,
    *,
    model: builtins.type[BaseModel] | None = None,
    **options: Unpack[HandlerOptions],
) -> Handler:
    """A job type that only remote workers run; submissions that do not fit *model* are refused.

    The setting `worker_types` declares such types without code. *options* and errors are as in
    *handler*.
    """
    fields = _handler_fields(type, options, model=model)
    return Handler(**fields, function=_run_remote, model=model, mode="remote")


def _run_remote(context: Any, payload: Any) -> Any:
    raise NotImplementedError("a remote worker runs this")

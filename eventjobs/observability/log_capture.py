"""Captures what a handler logs, with logging or structlog, as lines of its job's log."""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, Token
from functools import wraps
from typing import Any, Self

from eventjobs.concurrency.forks import OwnProcess
from eventjobs.observability.redaction import redact, redact_text
from eventjobs.observability.tracebacks import trace
from eventjobs.storable import check_size, readable_json, storable_text

#: Writes a line: its level, its message and its fields. Called from any thread.
WriteLine = Callable[[str, str, dict[str, Any]], object]

#: Attributes of every record; all others come from `extra`.
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_NUMBERS = {"exception": logging.ERROR, "warn": logging.WARNING, "msg": logging.INFO}


class LogCapture:
    """Captures lines at *level* or above; none when it is "off".

    A line belongs to the job in whose context it is logged: that of the handler, and of the tasks
    and threads that it starts with it. Lines of eventjobs itself belong to no job.
    """

    def __init__(self, level: str) -> None:
        self._number = 0 if level == "off" else logging.getLevelNamesMapping()[level.upper()]
        self._hooked = False

    def start(self) -> None:
        """Begin to capture. The configuration of logging and structlog does not matter."""
        if self._number and not self._hooked:
            self._hooked = True
            _HOOKS.add()

    def stop(self) -> None:
        if self._hooked:
            self._hooked = False
            _HOOKS.remove()

    def attach(self, write: WriteLine) -> AbstractContextManager[object]:
        """A context manager: lines logged in this context also go to *write*."""
        return _Sink(write, self._number) if self._number else nullcontext()


def allow_level(level: str) -> None:
    """Lower the level of the root logger to *level*. Loggers with levels of their own keep them."""
    if level != "off":
        root = logging.getLogger()
        root.setLevel(min(root.level, logging.getLevelNamesMapping()[level.upper()]))


@contextmanager
def capture_paused() -> Iterator[None]:
    """Lines logged in this context are not captured."""
    token = _SINK.set(None)
    try:
        yield
    finally:
        _SINK.reset(token)


class _Sink:
    """Writes the lines of one attempt."""

    def __init__(self, write: WriteLine, number: int) -> None:
        self._write = write
        self._number = number
        self._open = True
        self._process = OwnProcess()
        self._token: Token[_Sink | None] | None = None

    def __enter__(self) -> Self:
        self._token = _SINK.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False  # a task that outlives the attempt belongs to no job
        assert self._token is not None
        _SINK.reset(self._token)

    def take(self, number: int, message: str, fields: Mapping[str, Any]) -> BaseException | None:
        """Write a line. Returns the error because of which *fields* are approximate, if any."""
        if not self._open or number < self._number or self._process.is_forked_child:
            return None
        failure = None
        # A __repr__ may log: that line must not recurse.
        with capture_paused():
            try:
                check_size(fields)
                stored = redact(fields)
            except BaseException as error:  # noqa: BLE001 -- a line is not worth the handler
                failure, stored = error, redact(readable_json(fields))
            stored = {name: value for name, value in stored.items() if value is not None}
            self._write(_level(number), redact_text(message), stored)
        return failure


_SINK: ContextVar[_Sink | None] = ContextVar("eventjobs_capture", default=None)


#: Reports a failure with a record in the way of logging.
_REPORTER = logging.Handler()


def _from_logging(logger: logging.Logger, record: logging.LogRecord) -> None:
    sink = _SINK.get()
    if sink is None or _is_ours(record.name):
        return
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
    message = storable_text(record.msg)
    if isinstance(record.msg, dict):  # structlog's, passed through logging
        fields = {name: value for name, value in record.msg.items() if name != "event"}
        message = storable_text(record.msg.get("event"))
    elif record.args:
        with suppress(Exception):  # arguments that do not fit are reported by its handlers
            message = record.getMessage()
    fields["exception"] = _trace(record.exc_info)
    if failure := sink.take(record.levelno, message, {"logger": record.name, **fields}):
        try:
            raise failure
        except BaseException:  # noqa: BLE001 -- handleError reads the current exception
            _REPORTER.handleError(record)


def _from_structlog(bound: Any, method: str, event: Any, values: Any) -> None:
    sink, logger = _SINK.get(), bound._logger
    # A line that structlog passes to logging is captured as a record.
    if sink is None or isinstance(logger, logging.Logger):
        return
    name = getattr(logger, "name", None)
    if isinstance(name, str) and _is_ours(name):
        return
    context_values = sys.modules["structlog"].contextvars.get_contextvars()
    fields = {**context_values, **bound._context, **values, "logger": name}
    fields["exception"] = _trace(fields.pop("exc_info", None))
    number = _NUMBERS.get(method) or logging.getLevelNamesMapping().get(method.upper(), 0)
    sink.take(number, "" if event is None else storable_text(event), fields)


class _Hooks:
    """Hooks into logging and structlog, installed while a LogCapture is started.

    A handler on the root logger, or a processor, would change the program's configuration:
    logging.basicConfig() does nothing once there is a handler.
    """

    def __init__(self) -> None:
        self._users = 0
        self._undo: list[Callable[[], None]] = []

    def add(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        self._undo.append(_call_before(logging.Logger, "callHandlers", _from_logging))
        if "structlog" in sys.modules:
            base = sys.modules["structlog"].BoundLoggerBase
            self._undo.append(_call_before(base, "_process_event", _from_structlog))

    def remove(self) -> None:
        self._users -= 1
        while self._undo and not self._users:
            self._undo.pop()()


def _call_before(owner: type, name: str, hook: Callable[..., None]) -> Callable[[], None]:
    """Call *hook* before each call of a method. Returns a function that removes the hook."""
    original = getattr(owner, name)

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _SINK.get() is not None:
            with suppress(BaseException):  # a line is not worth the handler
                hook(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    def undo() -> None:
        if getattr(owner, name) is method:  # not if another library has wrapped it since
            setattr(owner, name, original)

    setattr(owner, name, method)
    return undo


_HOOKS = _Hooks()


def _is_ours(name: str) -> bool:
    return name == "eventjobs" or name.startswith("eventjobs.")


def _level(number: int) -> str:
    for level, least in (("error", 40), ("warning", 30), ("info", 20)):
        if number >= least:
            return level
    return "debug"


def _trace(exc_info: Any) -> str | None:
    """The end of the traceback of *exc_info*, in any form that logging and structlog accept."""
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1] if exc_info else None
    return None if error is None else trace(error)

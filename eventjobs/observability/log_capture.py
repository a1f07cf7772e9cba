"""What a handler logs, with logging or structlog, as lines of its job's own log."""

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

#: Where a line goes: its level, its message, and what is told with it. From any thread.
WriteLine = Callable[[str, str, dict[str, Any]], object]

#: What every record has; the rest is what was given as `extra`.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_NUMBERS = {"exception": logging.ERROR, "warn": logging.WARNING, "msg": logging.INFO}


class LogCapture:
    """Of what is logged at *level* or above; of nothing when that is "off".

    A line belongs to the job in whose context it is logged: that of the handler, and of the tasks
    and threads it starts with it. What eventjobs itself logs belongs to none.
    """

    def __init__(self, level: str) -> None:
        self._number = 0 if level == "off" else logging.getLevelNamesMapping()[level.upper()]
        self._hooked = False

    def start(self) -> None:
        """Listen, however logging and structlog are configured, before or after."""
        if self._number and not self._hooked:
            self._hooked = True
            _HOOKS.add()

    def stop(self) -> None:
        if self._hooked:
            self._hooked = False
            _HOOKS.remove()

    def attach(self, write: WriteLine) -> AbstractContextManager[object]:
        """What is logged in this context goes to *write* as well, until this is left."""
        return _Sink(write, self._number) if self._number else nullcontext()


def allow_level(level: str) -> None:
    """Let records of *level* and above come to the root logger, unless a logger says otherwise."""
    if level != "off":
        root = logging.getLogger()
        root.setLevel(min(root.level, logging.getLevelNamesMapping()[level.upper()]))


@contextmanager
def capture_paused() -> Iterator[None]:
    """What is logged in here is told to no job."""
    token = _SINK.set(None)
    try:
        yield
    finally:
        _SINK.reset(token)


class _Sink:
    """Where the lines of one attempt go."""

    def __init__(self, write: WriteLine, number: int) -> None:
        self._write = write
        self._number = number
        self._open = True
        self._home = OwnProcess()
        self._token: Token[_Sink | None] | None = None

    def __enter__(self) -> Self:
        self._token = _SINK.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False  # a task that was left behind has no job any more
        assert self._token is not None
        _SINK.reset(self._token)

    def take(self, number: int, message: str, fields: Mapping[str, Any]) -> BaseException | None:
        """Write a line; why some of its *fields* are only roughly what was given, if they are."""
        if not self._open or number < self._number or self._home.is_forked_child:
            return None
        trouble = None
        # What a __repr__ logs, say, must not come here again.
        with capture_paused():
            try:
                check_size(fields)
                told = redact(fields)
            except BaseException as error:  # noqa: BLE001 -- a line is not worth the handler
                trouble, told = error, redact(readable_json(fields))
            told = {name: each for name, each in told.items() if each is not None}
            self._write(_level(number), redact_text(message), told)
        return trouble


_SINK: ContextVar[_Sink | None] = ContextVar("eventjobs_capture", default=None)


#: Reports what went wrong with a record, as logging does.
_REPORTER = logging.Handler()


def _from_logging(logger: logging.Logger, record: logging.LogRecord) -> None:
    sink = _SINK.get()
    if sink is None or _is_ours(record.name):
        return
    fields = {name: each for name, each in vars(record).items() if name not in _STANDARD}
    message = storable_text(record.msg)
    if isinstance(record.msg, dict):  # structlog's, on its way through logging
        fields = {name: each for name, each in record.msg.items() if name != "event"}
        message = storable_text(record.msg.get("event"))
    elif record.args:
        with suppress(Exception):  # arguments that do not fit are reported by its handlers
            message = record.getMessage()
    fields["exception"] = _trace(record.exc_info)
    if trouble := sink.take(record.levelno, message, {"logger": record.name, **fields}):
        try:
            raise trouble
        except BaseException:  # noqa: BLE001 -- which is where it is read
            _REPORTER.handleError(record)


def _from_structlog(bound: Any, method: str, event: Any, told: Any) -> None:
    sink, logger = _SINK.get(), bound._logger
    # What structlog hands on to logging comes as a record.
    if sink is None or isinstance(logger, logging.Logger):
        return
    name = getattr(logger, "name", None)
    if isinstance(name, str) and _is_ours(name):
        return
    around = sys.modules["structlog"].contextvars.get_contextvars()
    fields = {**around, **bound._context, **told, "logger": name}
    fields["exception"] = _trace(fields.pop("exc_info", None))
    number = _NUMBERS.get(method) or logging.getLevelNamesMapping().get(method.upper(), 0)
    sink.take(number, "" if event is None else storable_text(event), fields)


class _Hooks:
    """On the way of every line, for as long as anybody listens.

    A handler on the root logger, or a processor, would be a part of what the program has
    configured: logging.basicConfig() does nothing once there is a handler.
    """

    def __init__(self) -> None:
        self._users = 0
        self._undo: list[Callable[[], None]] = []

    def add(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        self._undo.append(_before(logging.Logger, "callHandlers", _from_logging))
        if "structlog" in sys.modules:
            base = sys.modules["structlog"].BoundLoggerBase
            self._undo.append(_before(base, "_process_event", _from_structlog))

    def remove(self) -> None:
        self._users -= 1
        while self._undo and not self._users:
            self._undo.pop()()


def _before(owner: type, name: str, seen: Callable[..., None]) -> Callable[[], None]:
    """Call *seen* before each call of a method; what undoes that."""
    original = getattr(owner, name)

    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _SINK.get() is not None:
            with suppress(BaseException):  # a line is not worth the handler
                seen(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    def undo() -> None:
        if getattr(owner, name) is method:  # else it was wrapped once more by another library
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


def _trace(told: Any) -> str | None:
    """The end of a traceback, which is where it says what went wrong."""
    if isinstance(told, BaseException):
        error: BaseException | None = told
    elif isinstance(told, tuple):
        error = told[1]
    else:
        error = sys.exc_info()[1] if told else None
    return None if error is None else trace(error)

"""What a handler logs, with logging or structlog, as lines of its job's own log."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar, Token
from typing import Any, Self

from eventjobs.forks import Home
from eventjobs.masking import masked, masked_text

#: Where a line goes: its level, its message, and what is told with it. From any thread.
Write = Callable[[str, str, dict[str, Any]], object]

#: What every record has; the rest is what was given as `extra`.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_NUMBERS = {"exception": logging.ERROR, "warn": logging.WARNING, "msg": logging.INFO}


class Capture:
    """Of what is logged at *level* or above; of nothing when that is "off".

    A line belongs to the job in whose context it is logged: that of the handler, and of the tasks
    and threads it starts with it. What eventjobs itself logs belongs to none.
    """

    def __init__(self, level: str) -> None:
        self._number = 0 if level == "off" else logging.getLevelNamesMapping()[level.upper()]
        self._hooked = False

    def start(self) -> None:
        """Listen. Whoever configures logging or structlog does so before."""
        if self._number and not self._hooked:
            self._hooked = True
            _HOOKS.add()

    def stop(self) -> None:
        if self._hooked:
            self._hooked = False
            _HOOKS.remove()

    def into(self, write: Write) -> AbstractContextManager[object]:
        """What is logged in this context goes to *write* as well, until this is left."""
        return _Sink(write, self._number) if self._number else nullcontext()


def let_through(level: str) -> None:
    """Let records of *level* and above come to the root logger, unless a logger says otherwise."""
    if level != "off":
        root = logging.getLogger()
        root.setLevel(min(root.level, logging.getLevelNamesMapping()[level.upper()]))


@contextmanager
def suspended() -> Iterator[None]:
    """What is logged in here is told to no job."""
    token = _SINK.set(None)
    try:
        yield
    finally:
        _SINK.reset(token)


class _Sink:
    """Where the lines of one attempt go."""

    def __init__(self, write: Write, number: int) -> None:
        self._write = write
        self._number = number
        self._open = True
        self._home = Home()
        self._token: Token[_Sink | None] | None = None

    def __enter__(self) -> Self:
        self._token = _SINK.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False  # a task that was left behind has no job any more
        assert self._token is not None
        _SINK.reset(self._token)

    def take(self, number: int, message: str, fields: Mapping[str, Any]) -> None:
        if not self._open or number < self._number or self._home.is_left:
            return
        # Whatever is logged by a __repr__, say, must not come here again.
        with suspended():
            told = {name: each for name, each in masked(fields).items() if each is not None}
            self._write(_level(number), masked_text(message), told)


_SINK: ContextVar[_Sink | None] = ContextVar("eventjobs_capture", default=None)


class _FromLogging(logging.Handler):
    """On the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        last = logging.lastResort
        # What logging does with a record that nobody handles; we are nobody.
        if last and record.levelno >= last.level and not _is_handled(record.name, self):
            last.handle(record)
        sink = _SINK.get()
        if sink is None or _is_ours(record.name):
            return
        try:
            self._tell(sink, record)
        except Exception:  # noqa: BLE001 -- a line is not worth the handler
            self.handleError(record)

    @staticmethod
    def _tell(sink: _Sink, record: logging.LogRecord) -> None:
        fields = {name: each for name, each in vars(record).items() if name not in _STANDARD}
        message = str(record.msg)
        if isinstance(record.msg, dict):  # structlog's, on its way through logging
            fields = {name: each for name, each in record.msg.items() if name != "event"}
            message = str(record.msg.get("event"))
        elif record.args:
            message = record.getMessage()
        fields["exception"] = _trace(record.exc_info)
        sink.take(record.levelno, message, {"logger": record.name, **fields})


def _from_structlog(logger: Any, method: str, event: Any) -> Any:
    """The first processor; it changes nothing."""
    sink = _SINK.get()
    # What structlog hands on to logging comes as a record.
    if sink is None or isinstance(logger, logging.Logger):
        return event
    name = getattr(logger, "name", None)
    if not isinstance(name, str) or not _is_ours(name):
        bound = sys.modules["structlog"].contextvars.get_contextvars()
        fields = {**bound, **event, "logger": name, "exception": _trace(event.get("exc_info"))}
        fields.pop("exc_info", None)
        number = _NUMBERS.get(method) or logging.getLevelNamesMapping().get(method.upper(), 0)
        with suppress(Exception):  # a line is not worth the handler
            sink.take(number, str(fields.pop("event", "")), fields)
    return event


class _Hooks:
    """In logging and in structlog, for as long as anybody listens."""

    def __init__(self) -> None:
        self._users = 0
        self._handler = _FromLogging()
        self._processors: list[Any] = []

    def add(self) -> None:
        self._users += 1
        if self._users > 1:
            return
        logging.getLogger().addHandler(self._handler)
        if (structlog := sys.modules.get("structlog")) is not None:
            # In the list itself, as structlog.testing does it: loggers that exist have it already.
            self._processors = structlog.get_config()["processors"]
            if isinstance(self._processors, list):
                self._processors.insert(0, _from_structlog)

    def remove(self) -> None:
        self._users -= 1
        if self._users:
            return
        logging.getLogger().removeHandler(self._handler)
        if isinstance(self._processors, list) and _from_structlog in self._processors:
            self._processors.remove(_from_structlog)


_HOOKS = _Hooks()


def _is_ours(name: str) -> bool:
    return name == "eventjobs" or name.startswith("eventjobs.")


def _is_handled(name: str, but: logging.Handler) -> bool:
    """Whether a record of this logger comes to another handler, too."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        if any(each is not but for each in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


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
    if error is None:
        return None
    return "".join(traceback.format_exception(error))[-4_000:]

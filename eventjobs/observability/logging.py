"""The service's own log: standard logging whose lines have fields, under the name eventjobs.

A program that embeds a service configures it like all its logging. `configure` is for the commands
of eventjobs: readable lines in a terminal, JSON otherwise, and secrets in neither.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TextIO

import orjson

from eventjobs.observability.log_capture import capture_paused
from eventjobs.observability.redaction import redact, redact_text
from eventjobs.storable import readable_json

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

OURS = "eventjobs"
#: How lines are rendered.
Format = Literal["auto", "json", "console"]
#: Arguments of logging; all others are fields.
_STANDARD = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})


class StructuredLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines have fields: `log.warning("outcome waits", job_id=…)`.

    A record has them as `event` and `fields`, and in its message, all without secrets. The field
    `exception` is a traceback. An exception of a handler or filter of logging is suppressed.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.logger.isEnabledFor(level):
            with suppress(Exception):
                super().log(level, msg, *args, **kwargs)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        arguments = {name: value for name, value in kwargs.items() if name not in _STANDARD}
        event = redact_text(str(msg))
        fields = redact(readable_json(arguments))
        standard = {name: value for name, value in kwargs.items() if name in _STANDARD}
        return _text(event, fields), {**standard, "extra": {"event": event, "fields": fields}}


def get_logger(name: str) -> StructuredLogger:
    return StructuredLogger(name)


def _text(event: str, fields: Mapping[str, Any]) -> str:
    words = [event, *(f"{name}={_word(value)}" for name, value in fields.items())]
    if isinstance(trace := fields.get("exception"), str):
        words = [event, *(word for word in words[1:] if not word.startswith("exception="))]
        return " ".join(words) + "\n" + trace.rstrip()
    return " ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, str) and value.isprintable() and value and " " not in value:
        return value
    return orjson.dumps(value).decode()


def configure(level: str = "INFO", stream: TextIO | None = None, format: Format = "auto") -> None:
    """Send all lines, of logging and structlog, from *level* to *stream*, or to stderr.

    The *format* auto is JSON, and readable lines in a terminal.
    """
    import structlog

    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            hide_secrets,
            *_renderers(stream, format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Lines(stream, *names),
        cache_logger_on_first_use=True,
    )
    forward = _Forward(max(number, logging.WARNING))
    logging.basicConfig(handlers=[forward], level=max(number, logging.WARNING), force=True)
    logging.getLogger(OURS).setLevel(number)


class _Lines:
    """Writes lines. A closed stderr must not stop the service."""

    def __init__(self, stream: TextIO, name: str = OURS) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError:
            pass

    debug = info = warning = error = critical = exception = log = msg


class _Forward(logging.Handler):
    """Passes records to structlog: all of eventjobs, and those of libraries from *least*."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self._least = least

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._forward(record)
        except Exception:  # noqa: BLE001 -- arguments may not fit the format
            self.handleError(record)

    def _forward(self, record: logging.LogRecord) -> None:
        import structlog

        event, fields = getattr(record, "event", None), getattr(record, "fields", None)
        if not isinstance(event, str) or not isinstance(fields, dict):
            if record.levelno < self._least:
                return
            event, fields = record.getMessage(), {}
        log = structlog.get_logger(record.name).bind(**fields)
        with capture_paused():  # the record was captured already
            log.log(record.levelno, event, exc_info=record.exc_info)


def hide_secrets(logger: "WrappedLogger", method: str, event: "EventDict") -> "EventDict":
    """The last processor before the renderer: removes secrets."""
    return redact(event)


def escape_controls(logger: "WrappedLogger", method: str, event: "EventDict") -> "EventDict":
    """A processor that escapes the control characters of texts: one could begin a line of its own,
    or command the terminal. The lines of a traceback are indented.
    """
    shown: EventDict = {
        printable(name): printable(value) if isinstance(value, str) else value
        for name, value in event.items()
    }
    if isinstance(trace := event.get("exception"), str):
        shown["exception"] = "\n".join(f"  {printable(line)}" for line in trace.split("\n"))
    return shown


def printable(text: str) -> str:
    """*text* with its control characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode-escape").decode() for each in text
    )


def _renderers(stream: TextIO, format: Format) -> "list[Processor]":
    import structlog

    if format == "json" or (format == "auto" and not stream.isatty()):
        return [structlog.processors.JSONRenderer(ensure_ascii=False)]
    # Not rich: its tracebacks show the values of local variables, secrets among them.
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),  # no-color.org
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [escape_controls, console]

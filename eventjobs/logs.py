"""The service's own log: lines for people in a terminal, JSON elsewhere, and secrets in neither."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from eventjobs.capture import suspended
from eventjobs.masking import masked


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send everything that is logged, by structlog or logging, to *stream*, or to stderr."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_PROCESSORS, hide_secrets, _renderer(stream)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: _Lines(stream, *names),
        cache_logger_on_first_use=True,
    )
    forward = _Forward(max(number, logging.WARNING))
    logging.basicConfig(handlers=[forward], level=forward.level, force=True)


class _Lines:
    """Where lines are written. A stderr that is gone must not take the service with it."""

    def __init__(self, stream: TextIO, name: str = "eventjobs") -> None:
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
    """What libraries log, as if they used structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        with suspended():  # as a record it was in the job's log already
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def hide_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The last processor: what comes after it only renders."""
    return masked(event)


def _renderer(stream: TextIO) -> Processor:
    if stream.isatty():
        # Not rich: its tracebacks show the values of local variables, secrets among them.
        return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


_PROCESSORS: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
]

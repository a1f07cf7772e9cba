"""The log lines of the service with their fields, before they are rendered."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eventjobs.observability.logging import OURS


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "event") or not hasattr(record, "fields"):
            return  # of a library
        line = {"event": record.event, **record.fields}
        if record.exc_info:
            line["exc_info"] = record.exc_info[1]
        self.lines.append({**line, "log_level": record.levelname.lower()})


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """All lines of the service from here on, of every level."""
    logger, handler = logging.getLogger(OURS), _Lines()
    before = logger.level
    logging.root.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logger.setLevel(before)
        logging.root.removeHandler(handler)

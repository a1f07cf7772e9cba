"""The log lines of dialect 004: a projection of the events of jobs, and of lines of the service."""

import logging
import re
from collections.abc import Iterator
from typing import NamedTuple

from eventjobs.domain.events import AttemptFailed, JobCancelled, LogWritten
from eventjobs.domain.mask import Mask
from eventjobs.domain.recorded import Recorded
from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.observability.logging import get_logger, printable
from eventjobs.projections import JobChange
from eventjobs.service import Service

#: Lines that `ctx.retrying`, `ctx.artifact` and `ctx.breaker` write to the log of a job.
_CALL = re.compile(r"(?:.+: Attempt \d+/\d+|Circuit breaker .+)", re.DOTALL)
#: Stages in which a job reads its input.
_PARSING = frozenset({"parsing", "reading"})

_LOG = get_logger("eventjobs.dialects.004")


class Line(NamedTuple):
    """A line of the log, of a level of logging."""

    level: int
    text: str


def start(service: Service) -> None:
    """Write a line for what happens to the jobs of *service* from now on."""
    after = service.log.head

    def write(changes: list[JobChange]) -> None:
        for change in changes:
            for recorded in change.events:
                if recorded.position > after:
                    for line in lines_of(change, recorded):
                        _LOG.log(line.level, printable(line.text))

    service.views.listen(write)


def lines_of(change: JobChange, recorded: Recorded) -> Iterator[Line]:
    """The lines for one event of a job."""
    job = f"Job {prefixed_id(recorded.job_id)}"
    stage = "parsing" if change.progress and change.progress.stage in _PARSING else "processing"
    match recorded.event:
        case LogWritten() as event:
            yield from _lines_of_call(change, event)
        case JobCancelled(attempt=None):
            yield Line(logging.INFO, f"{job} was cancelled before processing. Skipping.")
        case JobCancelled():
            yield Line(logging.INFO, f"{job} was cancelled during {stage}.")
        case AttemptFailed(code="timeout" | "stalled"):
            yield Line(logging.WARNING, f"{job} has timed out")
            if stage == "parsing":
                yield Line(logging.WARNING, f"{job} timed out during parsing.")


def _lines_of_call(change: JobChange, event: LogWritten) -> Iterator[Line]:
    """The line of a try of a call, or of a circuit breaker."""
    text = event.message or ""
    # A captured line of a handler's own logging names its logger.
    if not _CALL.fullmatch(text) or "logger" in (event.fields or {}):
        return
    job = change.after
    if (mask := Mask.of(job.spec)) is not None:
        text = mask.text(text)
    level = logging.getLevelNamesMapping().get(event.level.upper(), logging.INFO)
    yield Line(level, text.replace(job.job_id, prefixed_id(job.job_id)))


class ShutdownLines(logging.Handler):
    """Writes the lines of a shutdown: each follows a line of the service's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = getattr(record, "event", None), getattr(record, "fields", {})
        match event:
            case "stopping" if fields["signal"]:
                _LOG.info(f"Received signal {fields['signal']}. Shutting down gracefully...")
            case "attempt failed" if fields["code"] == "worker_shutdown":
                job_id = prefixed_id(fields["job_id"])
                _LOG.warning(f"Marked job {job_id} as failed due to shutdown")
            case "stopped":
                _LOG.info("Worker shutdown complete.")

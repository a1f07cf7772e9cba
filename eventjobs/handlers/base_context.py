"""The part of a context that loop, thread and process handlers share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventjobs.concurrency.forks import OwnProcess
from eventjobs.domain.events import ArtifactStored, BreakerChanged, LogWritten, ProgressReported
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.validation import check_name, read_media_type
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError
from eventjobs.handlers.base_caller import BaseCaller, CallPolicy
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import Children
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.steps import Steps
from eventjobs.storable import (
    FIELDS_BYTES_MAX,
    PROGRESS_BYTES_MAX,
    bounded_json,
    storable_json,
    storable_number,
    storable_text,
)

#: Issues of one attempt. Later ones are in the job's log only.
ISSUES_MAX = 100
LEVELS = ("debug", "info", "warning", "error")


class Stopped(BaseException):
    """Raised by check_cancelled in a plain handler: the job was cancelled, timed out or shut down.

    It is no Exception: a handler's own `except Exception` must not swallow it.
    """


class BaseContext(BaseCaller):
    """The job, its progress, its log lines and issues, its input files."""

    def __init__(
        self, job: Job, files: ArtifactFiles, channel: AttemptChannel, policy: CallPolicy
    ) -> None:
        self._job = job
        self._files = files
        self._channel = channel
        self._steps = Steps(job, channel)
        self._children = Children(job, channel)
        self._policy = policy
        self._issues: list[dict[str, Any]] = []
        self._trials = {}
        self._stopped = False  # set from the loop, read from any thread
        self._process = OwnProcess()

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def attempt(self) -> int:
        """1 for the first run of the job."""
        return self._job.attempt

    @property
    def spec(self) -> JobSpec:
        return self._job.spec

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: job cancelled, time limit passed, or shutdown."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise Stopped when this attempt should stop."""
        if self._stopped:
            raise Stopped

    def input(self, name: str | None = None) -> Path:
        """The path of the job's input artifact *name*; without a name, of the first one.

        The handler must not change the file. Raises JobError `artifact_missing`, and
        `artifact_damaged` for a file that is missing or altered.
        """
        for each in self._job.artifacts:
            if name is None or each.name == name:
                try:
                    return self._artifact_path(each)
                except ArtifactDamaged as error:
                    raise JobError("artifact_damaged", f"{each.name}: {error}") from error
        raise JobError(
            "artifact_missing",
            f"the job has no artifact{'' if name is None else f' {storable_text(name)!r}'}",
            retryable=False,
        )

    def _artifact_path(self, artifact: Artifact) -> Path:
        return self._files.checked_path(artifact.sha256, artifact.size)

    def progress(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        """Report the progress of the whole job, from any thread. Never blocks.

        Reports are recorded at a limited rate, the last one always.
        """
        self._call_soon(
            self._channel.progress, self._progress_event(done, total, stage, message, data)
        )

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Add a line to the job's log, from any thread. Never blocks."""
        self._call_soon(self._channel.add, self._log_event(message, level, fields))

    def issue(self, code: str, message: str, **details: Any) -> None:
        """Record a problem that does not fail the job: it completes with this in its `issues`.

        *code* is for programs. The job's log has a warning with the same text.
        """
        issue = {"code": storable_text(code), "message": storable_text(message)}
        self.log(f"{issue['code']}: {issue['message']}", "warning", **details)
        if len(self._issues) < ISSUES_MAX:
            self._issues.append({**bounded_json(details, FIELDS_BYTES_MAX), **issue})

    @property
    def issues(self) -> list[dict[str, Any]] | None:
        """A copy of the issues so far; None if there are none."""
        copies: list[dict[str, Any]] | None = storable_json(self._issues or None)
        return copies

    def _progress_event(
        self,
        done: float | None,
        total: float | None,
        stage: str | None,
        message: str | None,
        data: Any,
    ) -> ProgressReported:
        return ProgressReported(
            self.attempt,
            storable_number(done),
            storable_number(total),
            None if stage is None else storable_text(stage)[:200],
            None if message is None else storable_text(message),
            bounded_json(data, PROGRESS_BYTES_MAX),
        )

    def _log_event(self, message: str, level: str, fields: dict[str, Any]) -> LogWritten:
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}")
        bounded = bounded_json(fields or None, FIELDS_BYTES_MAX)
        return LogWritten(self.attempt, level, storable_text(message), bounded)

    def _add_log_line(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """As `log`, for captured log records."""
        self._call_soon(self._channel.add, self._log_event(message, level, fields))

    def _record_breaker_change(self, change: BreakerChanged) -> None:
        self._call_soon(self._channel.add, change)

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        raise NotImplementedError

    def _artifact_event(
        self, name: str, stored: tuple[str, int], media_type: str
    ) -> ArtifactStored:
        return ArtifactStored(self.attempt, name, *stored, media_type)


def check_artifact(name: str, content: object, media_type: str) -> str:
    """Check an artifact that a handler stores; its name. Raises InvalidInput."""
    read_media_type(media_type, "media_type")
    if not issubclass(type(content), bytes | bytearray | memoryview | Path):
        wrong = [{"field": "content", "message": "bytes, or the Path of a file"}]
        raise InvalidInput("the content of an artifact is bytes, or the Path of a file", wrong)
    return check_name(name)

"""What the contexts of loop, thread and process handlers have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventjobs.concurrency.forks import Home
from eventjobs.domain.events import ArtifactStored, BreakerChanged, LogWritten, ProgressReported
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact, JobSpec
from eventjobs.domain.validation import check_name, read_media_type
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError
from eventjobs.handlers.caller import BaseCaller, CallPolicy
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import Children
from eventjobs.handlers.files import Files
from eventjobs.handlers.steps import Steps
from eventjobs.storable import (
    FIELDS_BYTES_MAX,
    PROGRESS_BYTES_MAX,
    bounded_json,
    plain_number,
    storable_json,
    storable_text,
)

#: Of one attempt; later ones are in its log only.
ISSUES_MAX = 100
LEVELS = ("debug", "info", "warning", "error")


class Stopped(BaseException):
    """Raised in a thread by check_cancelled: the job was cancelled or has timed out.

    Not an Exception, so that a handler's own `except Exception` does not swallow it.
    """


class BaseContext(BaseCaller):
    """What all contexts share."""

    def __init__(self, job: Job, files: Files, reports: AttemptChannel, calls: CallPolicy) -> None:
        self._job = job
        self._files = files
        self._reports = reports
        self._steps = Steps(job, reports)
        self._children = Children(job, reports)
        self._calls = calls
        self._issues: list[dict[str, Any]] = []
        self._trials = {}
        self._stopped = False  # set from the loop, read from any thread
        self._home = Home()

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
        """Whether this attempt should stop: cancelled, out of time, or shut down."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise when this attempt should stop."""
        if self._stopped:
            raise Stopped

    def input(self, name: str | None = None) -> Path:
        """The local file of an artifact of this job; without a name, its first one.

        Raises JobError `artifact_missing`, and `artifact_damaged` for a file that is gone or is not
        what was stored. The file is not to be changed.
        """
        for each in self._job.artifacts:
            if name is None or each.name == name:
                try:
                    return self._path_of(each)
                except ArtifactDamaged as error:
                    raise JobError("artifact_damaged", f"{each.name}: {error}") from error
        raise JobError(
            "artifact_missing",
            f"the job has no artifact{'' if name is None else f' {storable_text(name)!r}'}",
            retryable=False,
        )

    def _path_of(self, artifact: Artifact) -> Path:
        return self._files.checked(artifact.sha256, artifact.size)

    def progress(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        """Tell how far the whole job is, from any thread. Stored at a set rate, the last always;
        never blocks.
        """
        self._soon(self._reports.progress, self._progress(done, total, stage, message, data))

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Add a line to the job's own log, from any thread. Never blocks."""
        self._soon(self._reports.add, self._line(message, level, fields))

    def issue(self, code: str, message: str, **details: Any) -> None:
        """Note what went wrong and was made up for: the job completes, and `issues` tells of it.

        *code* is for programs. It is a line in the job's log, too.
        """
        told = {"code": storable_text(code), "message": storable_text(message)}
        self.log(f"{told['code']}: {told['message']}", "warning", **details)
        if len(self._issues) < ISSUES_MAX:
            self._issues.append({**bounded_json(details, FIELDS_BYTES_MAX), **told})

    @property
    def issues(self) -> list[dict[str, Any]] | None:
        """What was noted so far, if anything; a copy."""
        copies: list[dict[str, Any]] | None = storable_json(self._issues or None)
        return copies

    def _progress(
        self,
        done: float | None,
        total: float | None,
        stage: str | None,
        message: str | None,
        data: Any,
    ) -> ProgressReported:
        return ProgressReported(
            self.attempt,
            plain_number(done),
            plain_number(total),
            None if stage is None else storable_text(stage)[:200],
            None if message is None else storable_text(message),
            bounded_json(data, PROGRESS_BYTES_MAX),
        )

    def _line(self, message: str, level: str, fields: dict[str, Any]) -> LogWritten:
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}")
        told = bounded_json(fields or None, FIELDS_BYTES_MAX)
        return LogWritten(self.attempt, level, storable_text(message), told)

    def _logged(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """The same as log, from any thread."""
        self._soon(self._reports.add, self._line(message, level, fields))

    def _changed(self, change: BreakerChanged) -> None:
        self._soon(self._reports.add, change)

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        raise NotImplementedError

    def _stored(self, name: str, kept: tuple[str, int], media_type: str) -> ArtifactStored:
        return ArtifactStored(self.attempt, name, *kept, media_type)


def _checked(name: str, content: object, media_type: str) -> str:
    """The name of a file that a handler stores. Raises InvalidInput."""
    read_media_type(media_type, "media_type")
    if not issubclass(type(content), bytes | bytearray | memoryview | Path):
        wrong = [{"field": "content", "message": "bytes, or the Path of a file"}]
        raise InvalidInput("the content of an artifact is bytes, or the Path of a file", wrong)
    return check_name(name)

"""Bodies of reports on attempts, by remote workers and external services."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventjobs.domain.events import ProgressReported
from eventjobs.domain.job import Status
from eventjobs.domain.timestamps import microseconds
from eventjobs.domain.validation import ArtifactName, Delay, MediaType, Moment, Name, Sha256
from eventjobs.http.schemas.problem import Problem
from eventjobs.http.schemas.response_model import ResponseModel
from eventjobs.storable import PROGRESS_BYTES_MAX, TEXT_CHARS_MAX, bounded_json

#: Digits of an attempt number.
DIGITS_MAX = 9

#: A job id that is not checked here: each entry has an outcome of its own.
UncheckedId = Annotated[str, Field(description="the id of a job, a UUID")]

Worker = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$",
        description="drawn at random when the worker starts: names must be unique",
    ),
]

Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]

Number = Annotated[float, Field(allow_inf_nan=False)]


class WorkerReport(BaseModel):
    """A report, with the name of its worker."""

    model_config = ConfigDict(extra="forbid", strict=True)

    worker: Worker


class Progress(BaseModel):
    """The progress of the whole job: *done* of *total*."""

    model_config = ConfigDict(extra="forbid", strict=True)

    done: Number | None = None
    total: Number | None = None
    stage: Annotated[str, Field(max_length=200)] | None = None
    message: Text | None = None
    data: Any = None

    def event(self, attempt: int) -> ProgressReported:
        """The event of this report by *attempt*."""
        data = bounded_json(self.data, PROGRESS_BYTES_MAX)
        return ProgressReported(attempt, self.done, self.total, self.stage, self.message, data)


class ProgressByWorker(Progress, WorkerReport):
    """The progress of the whole job, by its worker."""


class LogLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    message: Text
    level: Literal["debug", "info", "warning", "error"] = "info"
    fields: dict[str, Any] | None = None


class LogReport(WorkerReport):
    lines: list[LogLine] = Field(min_length=1, max_length=100)


class StepReport(WorkerReport):
    name: Name
    number: int = Field(ge=0, le=2**31, description="index among the attempt's steps, from 0")
    result: Any = None
    was: Name | None = Field(None, description="the former name of the step whose result it reuses")


class ArtifactReport(WorkerReport):
    name: ArtifactName
    sha256: Sha256 = Field(description="from the answer of the upload")
    media_type: MediaType = "application/octet-stream"


class BreakerReport(WorkerReport):
    name: Name
    state: Annotated[str, Field(min_length=1, max_length=50)]
    failures: int = Field(ge=0, le=2**31)
    until: Moment | None = None

    @property
    def until_us(self) -> int | None:
        return None if self.until is None else microseconds(self.until)


class Success(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    result: Any = None
    issues: list[dict[str, Any]] | None = Field(
        None, max_length=1_000, description="problems that did not stop the job"
    )


class Completion(Success, WorkerReport):
    pass


class CompletedJob(Success):
    job_id: UncheckedId
    attempt: int = Field(ge=0, lt=10**DIGITS_MAX)


class Completions(WorkerReport):
    jobs: list[CompletedJob] = Field(min_length=1, max_length=1_000)


class Failure(WorkerReport):
    code: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="stable, for programs"
    )
    message: Text = Field(description="for people")
    retryable: bool = Field(True, description="whether a retry can help")
    details: Any = Field(None, description="for operators")
    retry_after_s: Delay | None = Field(None, description="instead of the usual retry delay")


class Release(WorkerReport):
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


class HeartbeatResponse(ResponseModel):
    """The answer to a report: whether the worker has to stop, and why."""

    cancel: bool = Field(description="stop the job, then report `cancelled`")
    reason: Literal["cancelled", "timeout", "stalled"] | None
    lease_s: float


class Ended(ResponseModel):
    """The attempt has ended."""


class CallbackResponse(ResponseModel):
    """The outcome of a report."""

    job_id: str
    attempt: int
    status: Status
    repeated: bool = Field(description="the report was recorded before; nothing has changed")
    cancel_requested: bool = Field(description="cancellation was requested: stop")


class Completed(ResponseModel):
    """The outcome of one report."""

    job_id: str
    attempt: int
    status: int
    error: Problem | None = Field(description="why the report was refused")


class CompletedJobs(ResponseModel):
    jobs: list[Completed] = Field(description="in the order of the reports")

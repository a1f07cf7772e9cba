"""What workers elsewhere send: claims, and reports of the attempts they make."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventjobs.domain.events import ProgressReported
from eventjobs.domain.job import Status
from eventjobs.domain.validation import EPOCH, ArtifactName, Delay, MediaType, Moment, Name, Sha256
from eventjobs.http.schemas.jobs import Job, JobStep
from eventjobs.http.schemas.problem import Problem
from eventjobs.http.schemas.response_model import ResponseModel
from eventjobs.storable import PROGRESS_BYTES_MAX, TEXT_CHARS_MAX, bounded_json

WAIT_MAX_S = 3_600
LEASE_MAX_S = 86_400
#: The number of an attempt has no more digits than that.
DIGITS_MAX = 9

#: Of a job that may not be there: each is answered by itself.
GivenId = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Worker = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}$",
        description="drawn at random when the worker starts: two must never have the same",
    ),
]
Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class WorkerReport(BaseModel):
    """Every report says whose it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    worker: Worker


class Limit(BaseModel):
    """Of these types, no more than so many."""

    model_config = ConfigDict(extra="forbid", strict=True)

    types: list[str] = Field(max_length=1_000)
    max: int = Field(ge=1, le=1_000)


class Claim(WorkerReport):
    types: list[str] = Field(max_length=1_000, description="which jobs it can do")
    max: int = Field(1, ge=1, le=1_000, description="how many it can take now")
    limits: list[Limit] = Field(
        default_factory=list, max_length=100, description="further ones, for some of the types"
    )
    children_only: list[str] = Field(
        default_factory=list,
        max_length=1_000,
        description="of these types only jobs that have a parent",
    )
    wait_s: float = Field(0, ge=0, le=WAIT_MAX_S, description="for the first; there is a maximum")
    lease_s: float | None = Field(
        None, ge=1, le=LEASE_MAX_S, description="silence after which its jobs are somebody else's"
    )
    holds: list[GivenId] | None = Field(
        None,
        max_length=10_000,
        description="the jobs it has; any other that was claimed in its name is answered again",
    )


class Progress(BaseModel):
    """How far the whole job is: *done* of *total*."""

    model_config = ConfigDict(extra="forbid", strict=True)

    done: Number | None = None
    total: Number | None = None
    stage: Annotated[str, Field(max_length=200)] | None = None
    message: Text | None = None
    data: Any = None

    def event(self, attempt: int) -> ProgressReported:
        data = bounded_json(self.data, PROGRESS_BYTES_MAX)
        told = (self.done, self.total, self.stage, self.message, data)
        return ProgressReported(attempt, *told)


class ProgressByWorker(Progress, WorkerReport):
    pass


class LogLine(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    message: Text
    level: Literal["debug", "info", "warning", "error"] = "info"
    fields: dict[str, Any] | None = None


class LogReport(WorkerReport):
    lines: list[LogLine] = Field(min_length=1, max_length=100)


class StepReport(WorkerReport):
    name: Name
    number: int = Field(ge=0, le=2**31, description="its place among the attempt's steps, from 0")
    result: Any = None
    was: Name | None = Field(None, description="the step whose result it took over")


class ArtifactReport(WorkerReport):
    name: ArtifactName
    sha256: Sha256 = Field(description="as the upload answered it")
    media_type: MediaType = "application/octet-stream"


class BreakerReport(WorkerReport):
    name: Name
    state: Annotated[str, Field(min_length=1, max_length=50)]
    failures: int = Field(ge=0, le=2**31)
    until: Moment | None = None

    @property
    def until_us(self) -> int | None:
        return None if self.until is None else int((self.until - EPOCH).total_seconds() * 1e6)


class Success(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    result: Any = None
    issues: list[dict[str, Any]] | None = Field(
        None, max_length=1_000, description="what went wrong on the way and was made up for"
    )


class Completion(Success, WorkerReport):
    pass


class CompletedJob(Success):
    job_id: GivenId
    attempt: int = Field(ge=0, lt=10**DIGITS_MAX)


class Completions(WorkerReport):
    jobs: list[CompletedJob] = Field(min_length=1, max_length=1_000)


class Failure(WorkerReport):
    code: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="stable, and for programs"
    )
    message: Text = Field(description="for people")
    retryable: bool = Field(True, description="whether trying again can help")
    details: Any = Field(None, description="for operators")
    retry_after_s: Delay | None = Field(None, description="in place of the usual delay")


class Release(WorkerReport):
    reason: Annotated[str, Field(min_length=1, max_length=1_000)]


class StepDone(JobStep):
    result: Any


class ClaimedJob(Job):
    """A job as its worker gets it."""

    lease_s: float = Field(description="report or send a heartbeat far more often than this")
    steps: Sequence[StepDone] = Field(
        description="what earlier attempts did, and is not to be repeated"
    )


class Claimed(ResponseModel):
    jobs: list[ClaimedJob]


class HeartbeatResponse(ResponseModel):
    """What a worker is told whenever it is heard from."""

    cancel: bool = Field(description="whether to stop, and then to say `cancelled`")
    reason: Literal["cancelled", "timeout", "stalled"] | None
    lease_s: float


class Ended(ResponseModel):
    """The attempt is over."""


class CallbackResponse(ResponseModel):
    """What a report has come to."""

    job_id: str
    attempt: int
    status: Status
    repeated: bool = Field(description="it was there already, and nothing has changed")
    cancel_requested: bool = Field(description="nobody waits for it any longer: stop")


class Completed(ResponseModel):
    """What became of one report."""

    job_id: str
    attempt: int
    status: int
    error: Problem | None = Field(description="why it does not count")


class CompletedJobs(ResponseModel):
    jobs: list[Completed] = Field(description="in the order in which they were reported")

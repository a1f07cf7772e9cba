"""Bodies of jobs."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field

from eventjobs.domain.job import Status
from eventjobs.http.schemas.response_model import ResponseModel, Time


class Stage(ResponseModel):
    name: str
    started_at: str
    ended_at: str | None


class Range(ResponseModel):
    low: float
    high: float


class JobStep(ResponseModel):
    """A completed step, which is not repeated."""

    name: str
    at: str = Time


class JobFailure(ResponseModel):
    code: str
    class_: str = Field(alias="class", description="what failed; see docs/errors.md")
    message: str | None
    retryable: bool


class JobArtifact(ResponseModel):
    name: str
    sha256: str
    size: int
    media_type: str
    url: str


class Links(ResponseModel):
    """Also the record of each completion hook, by the hook's name: its URL, or its id."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | None]

    self: str
    events: str
    history: str
    why: str
    logs: str
    receipt: str
    cancel: str
    retry: str
    children: str
    error: str | None = Field(
        description="of a failed job: error.json, with the details for operators"
    )


class HookError(ResponseModel):
    code: str
    message: str | None


class Hook(ResponseModel):
    """A completion hook of the job, and the record that it made."""

    name: str
    status: Literal["pending", "completed", "failed"]
    id: str | None
    url: str | None
    error: HookError | None
    job_id: str = Field(description="the job that runs the hook")


class Job(ResponseModel):
    """A job as it is now; null where it has no value yet."""

    job_id: str = Field(json_schema_extra={"format": "uuid"})
    type: str
    status: Status
    progress: float = Field(ge=0, le=100)
    stage: str | None
    stages: list[Stage]
    message: str | None
    data: Any
    remaining_s: Range | None
    pace: str | None
    attempt: int
    max_attempts: int
    can_retry: bool
    payload: Any
    result: Any
    issues: list[Any]
    error: JobFailure | None
    artifacts: list[JobArtifact]
    steps: Sequence[JobStep]
    owner: str | None
    tags: list[str]
    priority: int
    queue: str
    concurrency_key: str | None
    timeout_s: float | None
    stall_timeout_s: float | None
    retry_delay_s: float | None
    after: list[str]
    after_failure: Literal["cancel", "run"]
    parent: str | None
    run_at: str | None
    created_at: str = Time
    updated_at: str = Time
    started_at: str | None
    finished_at: str | None
    cancel_requested_at: str | None
    expires_at: str | None
    version: int
    position: int
    links: Links
    hooks: list[Hook]
    masked: bool = Field(description="values of sensitive fields are hidden from this reader")


class JobPage(ResponseModel):
    jobs: list[Job]
    next: str | None = Field(description="the cursor of the next page")
    position: int = Field(description="the page shows all events up to this position")

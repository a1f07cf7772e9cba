"""The body that explains why a job waits, runs or has ended."""

from pydantic import Field

from eventjobs.domain.job import Status
from eventjobs.http.schemas.jobs import JobFailure
from eventjobs.http.schemas.response_model import ResponseModel


class Named(ResponseModel):
    """A job that a reason refers to."""

    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: str | None = Field(None, description="null: the job does not exist")
    since: str | None = Field(None, description="when it started to run")


class Reason(ResponseModel):
    """A reason: `code`, `text`, and the fields that belong to the code."""

    code: str = Field(description="stable, for programs; docs/why.md lists them")
    text: str = Field(description="for people")
    until: str | None = None
    since: str | None = None
    by: str | None = None
    reason: str | None = None
    type: str | None = None
    queue: str | None = None
    key: str | None = None
    rate: str | None = None
    hook: str | None = None
    breaker: str | None = None
    limit: int | None = None
    running: int | None = None
    jobs: list[Named] | None = Field(None, description="at most ten of them")
    worker: str | None = None
    lease_s: float | None = None
    heard_at: str | None = None
    source: str | None = Field(None, description="the file that an imported job was read from")
    read_at: str | None = Field(None, description="when it was read")
    attempt: int | None = None
    max_attempts: int | None = None
    error: JobFailure | None = None
    trace: str | None = Field(None, description="the end of the traceback, or of other details")


class Explanation(ResponseModel):
    """Why a job waits, runs or has ended."""

    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: Status
    reasons: list[Reason]

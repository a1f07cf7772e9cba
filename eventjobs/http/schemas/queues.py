"""What answers about the flow of jobs look like: types, queues, schedules, and why a job waits."""

from typing import Any

from pydantic import Field

from eventjobs.domain.job import Status
from eventjobs.http.schemas.jobs import JobFailure
from eventjobs.http.schemas.response_model import ResponseModel, Time


class Pause(ResponseModel):
    since: str = Time
    by: str
    reason: str | None


class Type(ResponseModel):
    """A type of job; null where nothing limits it."""

    type: str
    queue: str = Field(description="where its jobs wait that do not say")
    waiting: int
    running: int
    concurrency: int | None = Field(description="jobs at once")
    key_concurrency: int = Field(description="jobs at once that have one concurrency key")
    rate: str | None = Field(description="starts, at most, in any second, minute, hour or day")
    paused: Pause | None


class TypeList(ResponseModel):
    types: list[Type]
    next: str | None = Field(description="the cursor of the next page")
    position: int


class Queue(ResponseModel):
    """A queue; null where nothing limits it."""

    queue: str
    waiting: int
    running: int
    concurrency: int | None = Field(description="jobs at once")
    paused: Pause | None


class QueueList(ResponseModel):
    queues: list[Queue]
    next: str | None = Field(description="the cursor of the next page")
    position: int


class Firing(ResponseModel):
    """The job of one time of a schedule."""

    at: str = Time
    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: Status
    url: str | None = Field(description="null once it is hidden")


class FiringError(ResponseModel):
    """Why the newest firing of a schedule submitted no job."""

    at: str = Time
    code: str
    message: str


class Schedule(ResponseModel):
    """A recurring job."""

    name: str
    cron: str
    timezone: str
    type: str
    payload: Any
    next_at: str | None = Field(description="null while it is paused")
    last: Firing | None
    last_error: FiringError | None = Field(
        description="null when the newest firing since the service started submitted its job"
    )
    paused: Pause | None
    jobs: str = Field(description="where all its jobs are")


class Schedules(ResponseModel):
    schedules: list[Schedule]
    next: str | None = Field(description="the cursor of the next page")


class Named(ResponseModel):
    """A job that a reason is about."""

    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: str | None = Field(None, description="null: there is no such job")
    since: str | None = Field(None, description="it has run since then")


class Reason(ResponseModel):
    """Besides `code` and `text`, what there is to know about this one."""

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
    breaker: str | None = None
    limit: int | None = None
    running: int | None = None
    jobs: list[Named] | None = Field(None, description="the first few of them")
    worker: str | None = None
    lease_s: float | None = None
    heard_at: str | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    error: JobFailure | None = None


class Explanation(ResponseModel):
    """Why a job is where it is."""

    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: Status
    reasons: list[Reason]

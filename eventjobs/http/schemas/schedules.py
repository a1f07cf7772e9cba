"""Bodies of schedules."""

from typing import Any

from pydantic import Field

from eventjobs.domain.job import Status
from eventjobs.http.schemas.queues import Pause
from eventjobs.http.schemas.response_model import ResponseModel, Time


class Firing(ResponseModel):
    """The job of one firing of a schedule."""

    at: str = Time
    job_id: str = Field(json_schema_extra={"format": "uuid"})
    status: Status
    url: str | None = Field(description="null once the job is hidden")


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
    next_at: str | None = Field(description="null while the schedule is paused")
    last: Firing | None
    last_error: FiringError | None = Field(
        description="null when the newest firing since the service started submitted its job"
    )
    paused: Pause | None
    jobs: str = Field(description="the list of its jobs")


class Schedules(ResponseModel):
    schedules: list[Schedule]
    next: str | None = Field(description="the cursor of the next page")

"""Bodies with events."""

from typing import Any, Literal

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Event(ResponseModel):
    """An event with its position."""

    position: int
    job_id: str = Field(json_schema_extra={"format": "uuid"})
    version: int
    type: str
    at: str = Time
    actor: str
    data: dict[str, Any]
    masked: Literal[True] | None = Field(
        None, description="true where values of sensitive fields are hidden; absent elsewhere"
    )


class EventPage(ResponseModel):
    events: list[Event]
    next: int = Field(description="`after` of the next page")
    head: int = Field(description="the newest position of the log")
    end: bool = Field(description="the job has ended, and this is its last event")

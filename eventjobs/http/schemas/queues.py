"""Bodies of types and queues."""

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Pause(ResponseModel):
    since: str = Time
    by: str
    reason: str | None


class Type(ResponseModel):
    """A type of job; null where nothing limits it."""

    type: str
    queue: str = Field(description="the queue of its jobs that name none")
    waiting: int
    running: int
    concurrency: int | None = Field(description="running jobs")
    key_concurrency: int = Field(description="running jobs of one concurrency key")
    rate: str | None = Field(
        description="at most so many starts in any second, minute, hour or day"
    )
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
    concurrency: int | None = Field(description="running jobs")
    paused: Pause | None


class QueueList(ResponseModel):
    queues: list[Queue]
    next: str | None = Field(description="the cursor of the next page")
    position: int

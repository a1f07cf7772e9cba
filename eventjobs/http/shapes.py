"""What answers look like: the schemas of everything that goes out."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eventjobs.job import Status

Time = Field(json_schema_extra={"format": "date-time"})


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Stage(Shape):
    name: str
    started_at: str
    ended_at: str | None


class Range(Shape):
    low: float
    high: float


class JobStep(Shape):
    """A completed step, which is not repeated."""

    name: str
    at: str = Time


class JobFailure(Shape):
    code: str
    class_: str = Field(alias="class", description="where to look first; see docs/errors.md")
    message: str | None
    retryable: bool


class JobArtifact(Shape):
    name: str
    sha256: str
    size: int
    media_type: str
    url: str


class Links(Shape):
    self: str
    events: str
    history: str
    why: str
    logs: str
    receipt: str
    cancel: str
    retry: str
    children: str
    error: str | None = Field(description="of a failed job: error.json, with what operators need")


class Job(Shape):
    """A job as it is now; null where there is nothing yet."""

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


class StepDone(JobStep):
    result: Any


class ClaimedJob(Job):
    """A job as its worker gets it."""

    lease_s: float = Field(description="report or send a heartbeat far more often than this")
    steps: Sequence[StepDone] = Field(
        description="what earlier attempts did, and is not to be repeated"
    )


class Claimed(Shape):
    jobs: list[ClaimedJob]


class Heard(Shape):
    """What a worker is told whenever it is heard from."""

    cancel: bool = Field(description="whether to stop, and then to say `cancelled`")
    reason: Literal["cancelled", "timeout", "stalled"] | None
    lease_s: float


class Ended(Shape):
    """The attempt is over."""


class JobPage(Shape):
    jobs: list[Job]
    next: str | None = Field(description="the cursor of the next page")
    position: int = Field(description="everything up to here is in this page")


class Counts(Shape):
    """How many jobs there are by type and status."""

    counts: dict[str, dict[str, int]]
    position: int


class Breaker(Shape):
    """A circuit breaker; *failures* are those in the window, as this process counts them."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    threshold: int | None
    window_s: float | None
    cooldown_s: float | None
    opened_at: str | None = Time
    open_until: str | None = Time
    changed_at: str | None = Time
    job_id: str | None = Field(description="The job whose call opened it, or closed it.")


class Breakers(Shape):
    breakers: list[Breaker]
    next: str | None = Field(description="the cursor of the next page")
    position: int


class Event(Shape):
    """A fact with its place."""

    position: int
    job_id: str = Field(json_schema_extra={"format": "uuid"})
    version: int
    type: str
    at: str = Time
    actor: str
    data: dict[str, Any]


class EventPage(Shape):
    events: list[Event]
    next: int = Field(description="`after` of the next page")
    head: int = Field(description="the newest position of the log")
    end: bool = Field(description="the job has ended, and this was the last of it")


class Stored(Shape):
    """A file that is here now, under the name of its content."""

    sha256: str
    size: int


class WebhookLinks(Shape):
    self: str
    deliveries: str
    redeliver: str


class Webhook(Shape):
    """Who is told of what. Its deliveries are jobs, found under `links.deliveries`."""

    webhook_id: str
    url: str | None
    events: list[str] = Field(description="none: those that end a job")
    types: list[str] = Field(description="of jobs; none: all")
    owner: str | None
    added_at: str = Time
    actor: str
    position: int = Field(description="it is told of events after this one")
    told: int = Field(description="the newest event there is a delivery of")
    links: WebhookLinks


class NewWebhook(Webhook):
    """The *secret* is told this once: the receiver checks signatures with it."""

    secret: str


class WebhookList(Shape):
    webhooks: list[Webhook]
    next: str | None = Field(description="the cursor of the next page")


class Redelivered(Shape):
    deliveries: list[str] = Field(description="the jobs that they are")


class Taken(Shape):
    """What a report has come to."""

    job_id: str
    attempt: int
    status: Status
    repeated: bool = Field(description="it was there already, and nothing has changed")
    cancel_requested: bool = Field(description="nobody waits for it any longer: stop")


class Rebuilt(Shape):
    position: int


class Health(Shape):
    status: Literal["ok"]


class ParkedEvent(Shape):
    position: int
    job_id: str
    type: str
    why: str


class Parked(Shape):
    """Events that this version cannot read; nothing is done with their jobs."""

    count: int
    first: list[ParkedEvent] = Field(description="at most ten of them")


class Readiness(Shape):
    """Whether requests are served in full, and how far the views are behind the log."""

    ready: Literal[True]
    version: str
    log_position: int
    views_position: int
    lag: int
    running: int
    writable: bool
    unwritable: str | None = Field(description="why the log takes no writes")
    views_failing: str | None = Field(description="why the views cannot be read or written")
    recovered: bool = Field(description="false: no job is run before the log takes writes")
    parked: Parked | None = Field(description="null: the views cannot tell now")


class FieldError(Shape):
    field: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with a stable `code` for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    instance: str | None = None
    job_id: str | None = Field(None, description="of the job that may or may not be there")
    expired_at: str | None = Field(None, description="when the job that is gone was hidden")
    errors: list[FieldError] | None = None


class BatchOutcome(Shape):
    """What became of one line."""

    line: int = Field(description="counted from 1")
    status: int
    job_id: str | None = None
    position: int | None = None
    error: Problem | None = None


class Completed(Shape):
    """What became of one report."""

    job_id: str
    attempt: int
    status: int
    error: Problem | None = Field(description="why it does not count")


class CompletedJobs(Shape):
    jobs: list[Completed] = Field(description="in the order in which they were reported")

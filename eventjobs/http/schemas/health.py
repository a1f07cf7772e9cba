"""Bodies of health, counts and breakers."""

from typing import Literal

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Counts(ResponseModel):
    """The number of jobs by type and status."""

    counts: dict[str, dict[str, int]]
    position: int


class Breaker(ResponseModel):
    """A circuit breaker. *failures* are those that this process counted in the window."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    threshold: int | None
    window_s: float | None
    cooldown_s: float | None
    opened_at: str | None = Time
    open_until: str | None = Time
    changed_at: str | None = Time
    job_id: str | None = Field(description="the job whose call opened or closed it")


class Breakers(ResponseModel):
    breakers: list[Breaker]
    next: str | None = Field(description="the cursor of the next page")
    position: int


class RebuildResult(ResponseModel):
    position: int


class Health(ResponseModel):
    status: Literal["ok"]


class ParkedEvent(ResponseModel):
    position: int
    job_id: str
    type: str
    why: str


class Parked(ResponseModel):
    """Events that this version cannot read. Their jobs are hidden and do not run."""

    count: int
    first: list[ParkedEvent] = Field(description="at most ten of them")


class Readiness(ResponseModel):
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
    recovered: bool = Field(description="false: no job runs before the log takes writes")
    parked: Parked | None = Field(description="null while the views are failing")

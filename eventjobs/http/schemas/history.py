"""What answers about a job's past look like: its history, and its receipt."""

from pydantic import Field

from eventjobs.http.schemas.response_model import ResponseModel, Time


class Entry(ResponseModel):
    position: int
    version: int
    at: str = Time
    actor: str
    type: str
    text: str


class AttemptFailure(ResponseModel):
    code: str
    message: str | None
    trace: str | None = Field(None, description="the end of the traceback, or of other details")


class Attempt(ResponseModel):
    attempt: int
    worker: str
    started_at: str = Time
    ended_at: str | None
    duration_s: float | None
    outcome: str
    error: AttemptFailure | None
    reports: int


class History(ResponseModel):
    """What happened to a job, told for a person."""

    job_id: str
    entries: list[Entry]
    attempts: list[Attempt]
    waited_s: float | None


class LateReport(ResponseModel):
    """What a worker told when its attempt had ended: proof that it was still at work."""

    at: str = Time
    after_s: float = Field(description="seconds after the end of its attempt")
    report: str
    actor: str


class ReceiptLine(ResponseModel):
    attempt: int
    worker: str
    service: str | None = Field(description="the external service that took it on")
    lease_s: float | None = Field(description="how often it had to be heard from; null: none")
    started_at: str = Time
    ended_at: str | None
    duration_s: float | None
    outcome: str
    code: str | None = Field(description="why it failed")
    overlaps: list[int] = Field(description="attempts that were at work at the same time")
    late: list[LateReport] = Field(description="reports that were refused")


class Receipt(ResponseModel):
    """Every attempt of a job."""

    job_id: str
    attempts: list[ReceiptLine]
    overlaps: bool
    text: list[str] = Field(description="the same in lines for people")

"""Bodies of a job's history and receipt."""

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
    """What happened to a job, for people."""

    job_id: str
    entries: list[Entry]
    attempts: list[Attempt]
    waited_s: float | None


class LateReport(ResponseModel):
    """A report after the end of its attempt, which proves that the worker was still running."""

    at: str = Time
    after_s: float = Field(description="seconds after the end of its attempt")
    report: str
    actor: str


class ReceiptLine(ResponseModel):
    attempt: int
    worker: str
    service: str | None = Field(description="the external service that accepted the job")
    lease_s: float | None = Field(description="longest time between two reports; null: no lease")
    started_at: str = Time
    ended_at: str | None
    duration_s: float | None
    outcome: str
    code: str | None = Field(description="the code of its failure")
    overlaps: list[int] = Field(description="attempts that ran at the same time")
    late: list[LateReport] = Field(description="refused reports")


class Receipt(ResponseModel):
    """Every attempt of a job."""

    job_id: str
    attempts: list[ReceiptLine]
    overlaps: bool
    text: list[str] = Field(description="the attempts as lines of text")

"""Problem bodies (RFC 9457)."""

from pydantic import BaseModel, Field

from eventjobs.http.schemas.response_model import ResponseModel


class FieldError(ResponseModel):
    field: str
    message: str


class Problem(BaseModel):
    """A problem (RFC 9457) with a stable `code` for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    instance: str | None = None
    job_id: str | None = Field(None, description="the job that was perhaps submitted")
    expired_at: str | None = Field(None, description="when the job was hidden")
    errors: list[FieldError] | None = None


class DialectError(BaseModel):
    """The body of all errors of dialects. `error` and `detail` are the same text."""

    error: str
    detail: str
    code: str
    timestamp: str
    path: str
    request_id: str
    errors: list[FieldError] | None = None

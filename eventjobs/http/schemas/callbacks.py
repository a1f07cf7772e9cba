"""Bodies of the callbacks of external services."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventjobs.domain.outcomes import Failed, Succeeded
from eventjobs.http.schemas.reports import Progress, Text
from eventjobs.outbound.dispatch_response import ErrorCode


class CallbackError(BaseModel):
    """A failure: *code* for programs, *message* for people, *details* for operators."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: ErrorCode
    message: Text = ""
    retryable: bool = True
    details: Any = None


class Callback(BaseModel):
    """A report of an external service: progress, or the end of an attempt."""

    model_config = ConfigDict(extra="forbid", strict=True)

    attempt: int | None = Field(None, description="the attempt of the token; may be left out")
    progress: Progress | None = None
    status: Literal["completed", "failed"] | None = None
    result: Any = None
    error: CallbackError | None = None

    @model_validator(mode="after")
    def _one_report(self) -> "Callback":
        if (self.progress is None) == (self.status is None):
            raise ValueError("give progress or status, one of them")
        if (self.status == "failed") != (self.error is not None):
            raise ValueError("an error belongs to the status failed, and the status to an error")
        if self.status != "completed" and "result" in self.model_fields_set:
            raise ValueError("a result belongs to the status completed")
        return self

    def outcome(self) -> Succeeded | Failed:
        if (error := self.error) is None:
            return Succeeded(self.result)
        return Failed(error.code, error.message, error.retryable, error.details)

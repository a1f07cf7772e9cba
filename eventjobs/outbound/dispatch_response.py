"""The response of an external service to a dispatched job."""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError

from eventjobs.errors import JobError
from eventjobs.outbound.client import OutboundResponse
from eventjobs.storable import storable_text

#: Of a response body. A larger result belongs into an artifact.
RESPONSE_BYTES_MAX = 8 * 2**20


class AcceptedResponse(BaseModel):
    """The body of a 202: the service has accepted the job and calls back."""

    cancel_url: str | None = None


ErrorCode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class ServiceError(BaseModel):
    """The body of an error. Without *retryable* the status decides."""

    code: ErrorCode
    message: str = Field("", max_length=4000)
    retryable: bool | None = None
    details: Any = None


def result_of(response: OutboundResponse) -> Any:
    """The result in a response with a 2xx status. Raises JobError for any other response."""
    status = response.status
    if 200 <= status < 300:
        if not response.whole:
            message = f"the service answered with more than {RESPONSE_BYTES_MAX} bytes"
            raise JobError("service_error", message, retryable=False)
        try:
            return orjson.loads(response.body) if response.body.strip() else None
        except orjson.JSONDecodeError as error:
            message = "the service answered with something that is not JSON"
            raise JobError(
                "service_error", message, retryable=False, details=_text(response)
            ) from error
    retryable = status >= 500 or status in (408, 429)
    try:
        service_error = ServiceError.model_validate_json(response.body)
    except ValidationError:
        code = "service_error" if retryable or status < 400 else "service_refused"
        message = f"the service answered with status {status}"
        service_error = ServiceError(code=code, message=message, details=_text(response))
    if service_error.retryable is not None:
        retryable = service_error.retryable
    raise JobError(
        service_error.code,
        service_error.message,
        retryable=retryable,
        details=service_error.details,
        retry_after_s=response.retry_after_s,
    )


def _text(response: OutboundResponse) -> str:
    return storable_text(response.body[:1000].decode(errors="replace"))

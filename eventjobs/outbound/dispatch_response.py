"""What an external service answers to a dispatched job."""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, ValidationError

from eventjobs.errors import JobError
from eventjobs.outbound.client import OutboundResponse
from eventjobs.storable import storable_text

#: Of an answer; a service with more to tell stores it somewhere and tells where.
RESPONSE_BYTES_MAX = 8 * 2**20


class AcceptedResponse(BaseModel):
    """What matters of the body of a 202."""

    cancel_url: str | None = None


ErrorCode = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")]


class ServiceError(BaseModel):
    """What is wrong, in a service's own words; *retryable* as its status says, if it does not."""

    code: ErrorCode
    message: str = Field("", max_length=4000)
    retryable: bool | None = None
    details: Any = None


def result_of(answer: OutboundResponse) -> Any:
    """The body, when all is well. Raises JobError when it is not."""
    status = answer.status
    if 200 <= status < 300:
        if not answer.whole:
            problem = f"the service answered with more than {RESPONSE_BYTES_MAX} bytes"
            raise JobError("service_error", problem, retryable=False)
        try:
            return orjson.loads(answer.body) if answer.body.strip() else None
        except orjson.JSONDecodeError as error:
            problem = "the service answered with something that is not JSON"
            raise JobError(
                "service_error", problem, retryable=False, details=_text(answer)
            ) from error
    retryable = status >= 500 or status in (408, 429)
    try:
        said = ServiceError.model_validate_json(answer.body)
    except ValidationError:
        code = "service_error" if retryable or status < 400 else "service_refused"
        said = ServiceError(
            code=code, message=f"the service answered with status {status}", details=_text(answer)
        )
    raise JobError(
        said.code,
        said.message,
        retryable=retryable if said.retryable is None else said.retryable,
        details=said.details,
        retry_after_s=answer.retry_after_s,
    )


def _text(answer: OutboundResponse) -> str:
    return storable_text(answer.body[:1000].decode(errors="replace"))

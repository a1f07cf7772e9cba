"""What a client raises when the service refuses a request or cannot be reached."""

from http import HTTPStatus
from typing import Any

from eventjobs.errors import EventjobsError


class ApiError(EventjobsError):
    """The service refused the request: *status*, *code* and *detail* of its problem (RFC 9457).

    *errors* name the fields that are wrong: `field` and `message` of each. *retry_after_s* is
    the seconds of a Retry-After header.
    """

    code: str  # type: ignore[misc]  # the service's, so each has its own

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: list[dict[str, str]] | None = None,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors or []
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    @property
    def is_final(self) -> bool:
        """Whether the same request will be refused later, too."""
        passes = self.status == HTTPStatus.TOO_MANY_REQUESTS or self.status >= 500
        return not passes or self.code == "artifact_damaged"

    @classmethod
    def from_json(cls, problem: dict[str, Any]) -> "ApiError":
        """The error of one item of a batch response."""
        return cls(problem["status"], problem["code"], problem["detail"], problem.get("errors"))


class Unreachable(EventjobsError, code="unreachable"):
    """The service cannot be reached."""


class ConnectionLost(Unreachable, code="connection_lost"):
    """The connection broke before the response was complete."""


class WrongAddress(Unreachable, code="wrong_address"):
    """What answers at this address is not eventjobs."""


class LogChanged(EventjobsError, code="log_changed"):
    """The position to continue from is not in this log: begin again, from 0."""

"""Errors of a request itself, each with its code and HTTP status (RFC 9110, 15)."""

import math
from collections.abc import Mapping
from typing import ClassVar

from eventjobs.errors import EventjobsError, InvalidInput


class RequestError(EventjobsError, code="bad_request"):
    """The request cannot be served as it is."""

    status: ClassVar[int] = 400
    #: The value of Retry-After in seconds.
    retry_after_s: ClassVar[int | None] = None

    def __init_subclass__(
        cls, *, code: str, status: int = 400, retry_after_s: int | None = None
    ) -> None:
        cls.code, cls.status, cls.retry_after_s = code, status, retry_after_s

    def __init__(
        self, message: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        #: Headers of the response.
        self.headers = headers or {}


class BadHost(RequestError, code="bad_host"):
    """The host of the request is not written as a host."""


class MalformedJSON(RequestError, code="malformed_json"):
    """The body is not JSON."""


class BadCursor(RequestError, code="bad_cursor"):
    """This cursor belongs to another list, or to another log."""


class BadToken(RequestError, code="bad_token", status=401):
    """This token is not valid for this job."""


class Unauthenticated(RequestError, code="unauthenticated", status=401):
    """This needs a credential: an API key or a token in Authorization, or a session."""


class Forbidden(RequestError, code="forbidden", status=403):
    """This credential does not permit that."""


class BadForm(RequestError, code="bad_form"):
    """The form is broken, or a field is not as it should be."""


class FileMissing(RequestError, code="file_missing"):
    """The form has no file."""


class FileEmpty(RequestError, code="file_empty"):
    """The file has no bytes."""


class FileDamaged(RequestError, code="file_damaged"):
    """The workbook is cut off or damaged; save it again, and upload it whole."""


class FileProtected(RequestError, code="file_protected"):
    """The workbook has a password; save it without one, and upload it again."""


class ArtifactMasked(RequestError, code="artifact_masked", status=403):
    """The files of a job with sensitive fields are for its owner."""


class CrossOrigin(RequestError, code="cross_origin", status=403):
    """A page of another site may not change anything here."""


class AuthenticationOff(RequestError, code="authentication_off", status=409):
    """Authentication is off: everything is permitted without a session."""


class RouteNotFound(RequestError, code="not_found", status=404):
    """There is nothing at this address."""


class ArtifactNotFound(RequestError, code="artifact_not_found", status=404):
    """The job has no such artifact."""


class MethodNotAllowed(RequestError, code="method_not_allowed", status=405):
    """This address does not support this method."""


class BodyTimeout(RequestError, code="body_timeout", status=408):
    """The body did not arrive in time."""


class HeadTimeout(RequestError, code="head_timeout", status=408):
    """The head of the request did not arrive in time."""


class TargetTooLong(RequestError, code="uri_too_long", status=414):
    """The address of the request is too long."""


class UnsupportedMediaType(RequestError, code="unsupported_media_type", status=415):
    """This media type is not supported here."""


class RangeNotSatisfiable(RequestError, code="range_not_satisfiable", status=416):
    """The file ends before the range begins."""


class ExpectationFailed(RequestError, code="expectation_failed", status=417):
    """The only supported expectation is 100-continue."""


class Misdirected(RequestError, code="misdirected", status=421):
    """This host name is not allowed; with authentication, EVENTJOBS_ALLOWED_HOSTS can allow it."""


class TooManyConnectionsOfAddress(
    RequestError, code="too_many_connections_of_address", status=429, retry_after_s=1
):
    """This client address has as many open connections as one may have."""


class RateLimited(RequestError, code="rate_limited", status=429):
    """There were too many requests of this kind; the headers have the rate."""

    def __init__(self, wait_s: float) -> None:
        #: Seconds until another request may succeed.
        self.wait_s = max(1, math.ceil(wait_s))
        super().__init__(headers={"Retry-After": str(self.wait_s)})


class HeadersTooLarge(RequestError, code="headers_too_large", status=431):
    """A header of the request is too long, or there are too many."""


class UnknownTransferCoding(RequestError, code="unknown_transfer_coding", status=501):
    """The only supported transfer coding is chunked."""


class VersionNotSupported(RequestError, code="http_version_not_supported", status=505):
    """This service supports HTTP/1.1 and HTTP/1.0."""


class OutOfDescriptors(RequestError, code="out_of_descriptors", status=503, retry_after_s=1):
    """The service is nearly out of file descriptors; try again, or raise its limit (ulimit -n)."""


class TooManyConnections(RequestError, code="too_many_connections", status=503, retry_after_s=1):
    """The service has as many open connections as it may have."""


class ViewsBehind(RequestError, code="views_behind", status=503, retry_after_s=1):
    """The views are behind the log; the reason is in /readyz."""


class NotReady(RequestError, code="not_ready", status=503):
    """The service is starting, stopping, or a part of it has stopped working."""


def query_error(name: str, message: str) -> InvalidInput:
    """The error of the query parameter *name*."""
    return InvalidInput("the query does not fit", [{"field": name, "message": message}])

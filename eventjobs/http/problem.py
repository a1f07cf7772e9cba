"""Every error as application/problem+json (RFC 9457): the one table from an error to its status."""

import errno
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import orjson
from aiohttp import web

from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import (
    Conflict,
    CorruptLog,
    DiskFull,
    EventjobsError,
    IdempotencyKeyReused,
    InvalidInput,
    JobExists,
    JobGone,
    JobNotFound,
    JobUnreadable,
    LogError,
    LogUnavailable,
    OutboundRefused,
    OutcomeUnknown,
    Overloaded,
    PreconditionFailed,
    Rejected,
    TooLarge,
    WebhookNotFound,
)

MEDIA_TYPE = "application/problem+json"
#: Of an answer that is a problem.
CODE = web.ResponseKey("code", str)


class RequestError(EventjobsError):
    """The request cannot be served as it is."""

    code = "bad_request"
    status: ClassVar[int] = 400
    #: Seconds after which trying again makes sense.
    retry_after_s: ClassVar[int | None] = None

    def __init__(
        self, message: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}


class BadHost(RequestError):
    """The host of the request is not written as a host."""

    code = "bad_host"


class MalformedJSON(RequestError):
    """The body is not JSON."""

    code = "malformed_json"


class BadCursor(RequestError):
    """This cursor belongs to another list, or to another log."""

    code = "bad_cursor"


class BadToken(RequestError):
    """This token is not good here."""

    code = "bad_token"
    status = 401


class CrossOrigin(RequestError):
    """Another site's page may not change anything here."""

    code = "cross_origin"
    status = 403


class RouteNotFound(RequestError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class ArtifactNotFound(RequestError):
    """The job has no such artifact."""

    code = "artifact_not_found"
    status = 404


class MethodNotAllowed(RequestError):
    """This address does not know this method."""

    code = "method_not_allowed"
    status = 405


class BodyTimeout(RequestError):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408


class TargetTooLong(RequestError):
    """The address of the request is too long."""

    code = "uri_too_long"
    status = 414


class UnsupportedMediaType(RequestError):
    """This kind of body is not read here."""

    code = "unsupported_media_type"
    status = 415


class RangeNotSatisfiable(RequestError):
    """The file ends before the asked range begins."""

    code = "range_not_satisfiable"
    status = 416


class ExpectationFailed(RequestError):
    """The only expectation that is met is 100-continue."""

    code = "expectation_failed"
    status = 417


class Misdirected(RequestError):
    """This service answers to loopback names only: it has no authentication."""

    code = "misdirected"
    status = 421


class HeadersTooLarge(RequestError):
    """A header of the request is too long, or there are too many."""

    code = "headers_too_large"
    status = 431


class UnknownTransferCoding(RequestError):
    """The only transfer coding that is read is chunked."""

    code = "unknown_transfer_coding"
    status = 501


class VersionNotSupported(RequestError):
    """This service speaks HTTP/1.1 and HTTP/1.0."""

    code = "http_version_not_supported"
    status = 505


class OutOfDescriptors(RequestError):
    """The service has hardly a file descriptor left; try again, or raise its limit (ulimit -n)."""

    code = "out_of_descriptors"
    status = 503
    retry_after_s = 1


class ViewsBehind(RequestError):
    """What is asked for is not known yet: the views are behind the log; readyz says why."""

    code = "views_behind"
    status = 503
    retry_after_s = 1


class NotReady(RequestError):
    """The service is starting, stopping, or a part of it has stopped working."""

    code = "not_ready"
    status = 503


#: Status, and the seconds after which trying again makes sense. The nearest ancestor counts.
TABLE: dict[type[EventjobsError], tuple[int, int | None]] = {
    JobNotFound: (404, None),
    JobUnreadable: (500, None),
    JobGone: (410, None),
    WebhookNotFound: (404, None),
    OutboundRefused: (422, None),
    JobExists: (409, None),
    IdempotencyKeyReused: (422, None),
    PreconditionFailed: (412, None),
    Rejected: (409, None),  # WrongState, StaleAttempt
    TooLarge: (413, None),
    InvalidInput: (422, None),  # UnknownType, UnknownArtifact, UnknownJob, ReservedId
    Conflict: (503, 1),
    Overloaded: (503, 1),
    DiskFull: (507, 10),
    LogUnavailable: (503, 1),
    OutcomeUnknown: (503, 1),
    CorruptLog: (500, None),
    LogError: (503, 1),
    EventjobsError: (500, None),
}


def status_of(error: type[EventjobsError]) -> tuple[int, int | None]:
    if issubclass(error, RequestError):
        return error.status, error.retry_after_s
    return next(TABLE[each] for each in error.__mro__ if each in TABLE)


def translated(error: Exception) -> Exception:
    """*error*, or what it is for a client where the process has run out of descriptors."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return OutOfDescriptors()
    return error


def members(error: BaseException, **more: Any) -> dict[str, Any]:
    """The problem as a dict; what is not about the caller's request is told in general terms."""
    errors = None
    if isinstance(error, EventjobsError):
        status, _ = status_of(type(error))
        code = error.code
        plain_to_see = status < 500 or isinstance(error, NotReady)
        detail = error.message if plain_to_see else type(error).__doc__
        errors = error.errors if isinstance(error, InvalidInput) else None
    elif isinstance(error, web.HTTPException):
        status, detail = error.status, None
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    else:
        status, code, detail = 500, "internal", None
    if isinstance(error, JobGone) and error.expired_us is not None:
        more["expired_at"] = rfc3339(error.expired_us)
    phrase = HTTPStatus(status).phrase
    told = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": (detail or phrase).partition("\n")[0],
        "code": code,
        **more,
    }
    return told | {"errors": errors} if errors else told


def response(error: BaseException, path: str, request_id: str, job_id: str | None) -> web.Response:
    """The answer to a request that ended in *error*; *job_id* is told where it helps."""
    more = {"request_id": request_id, "instance": plain(path)}
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    if isinstance(error, OutcomeUnknown) and job_id is not None:
        more["job_id"] = job_id
    if isinstance(error, RequestError):
        headers.update(error.headers)
    if isinstance(error, EventjobsError):
        _, retry_after_s = status_of(type(error))
        if retry_after_s is not None:
            headers["Retry-After"] = str(retry_after_s)
    told = members(error, **more)
    answer = web.Response(status=told["status"], body=orjson.dumps(told), headers=headers)
    answer[CODE] = told["code"]
    return answer


def method_not_allowed(allowed: Iterable[str]) -> MethodNotAllowed:
    listed = ", ".join(sorted(allowed))
    return MethodNotAllowed(f"this address knows {listed}", {"Allow": listed})


def plain(text: str) -> str:
    """*text* as it can be encoded: bytes that are no UTF-8 came in as lone surrogates."""
    return text.encode("utf-8", "replace").decode()

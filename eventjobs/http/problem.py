"""Errors as application/problem+json (RFC 9457), and the table of their statuses."""

import errno
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import (
    Conflict,
    CorruptLog,
    DiskFull,
    EventjobsError,
    IdempotencyKeyReused,
    InvalidCredential,
    InvalidInput,
    JobExists,
    JobGone,
    JobNotFound,
    JobUnreadable,
    KeyNotFound,
    KeysUnavailable,
    LogError,
    LogUnavailable,
    OutboundRefused,
    OutcomeUnknown,
    Overloaded,
    OwnerLimit,
    PreconditionFailed,
    Rejected,
    TooLarge,
    WebhookNotFound,
)
from eventjobs.http.request_errors import MethodNotAllowed, NotReady, OutOfDescriptors, RequestError

MEDIA_TYPE = "application/problem+json"
#: The code of a problem, on its response.
CODE = web.ResponseKey("code", str)


#: The status and another body for the members of a problem, at a time in microseconds since 1970.
ErrorFormat = Callable[[dict[str, Any], int], tuple[int, dict[str, Any]]]

#: Status and Retry-After in seconds. The nearest ancestor of an error counts.
TABLE: dict[type[EventjobsError], tuple[int, int | None]] = {
    InvalidCredential: (401, None),
    KeysUnavailable: (503, 5),
    JobNotFound: (404, None),
    JobUnreadable: (500, None),
    JobGone: (410, None),
    WebhookNotFound: (404, None),
    KeyNotFound: (404, None),
    OutboundRefused: (422, None),
    JobExists: (409, None),
    IdempotencyKeyReused: (422, None),
    PreconditionFailed: (412, None),
    OwnerLimit: (429, 5),
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
    """The status of *error*, and the value of Retry-After in seconds."""
    if issubclass(error, RequestError):
        return error.status, error.retry_after_s
    return next(TABLE[each] for each in error.__mro__ if each in TABLE)


def translate(error: Exception) -> Exception:
    """OutOfDescriptors where the process has no file descriptor left, else *error* itself."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return OutOfDescriptors()
    return error


def members(error: BaseException, **more: Any) -> dict[str, Any]:
    """The members of the problem. Of an error of the service, only the general description is
    shown: its message may hold paths or other internals.
    """
    errors = None
    if isinstance(error, EventjobsError):
        status, _ = status_of(type(error))
        code = error.code
        public = status < 500 or isinstance(error, NotReady)
        detail = error.message if public else type(error).__doc__
        errors = error.errors if isinstance(error, InvalidInput) else None
    elif isinstance(error, web.HTTPException):
        status, detail = error.status, None
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    else:
        status, code, detail = 500, "internal", None
    if isinstance(error, JobGone) and error.expired_us is not None:
        more["expired_at"] = rfc3339(error.expired_us)
    phrase = HTTPStatus(status).phrase
    problem = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": (detail or phrase).partition("\n")[0],
        "code": code,
        **more,
    }
    return problem | {"errors": errors} if errors else problem


def response(
    error: BaseException,
    path: str,
    request_id: str,
    job_id: str | None,
    error_format: ErrorFormat | None = None,
    now_us: int = 0,
) -> web.Response:
    """The response to a request that ended with *error*. *job_id* is shown where the outcome is
    unknown, so that the client can look the job up. *error_format* makes another body.
    """
    more = {"request_id": request_id, "instance": encodable(path)}
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    if isinstance(error, OutcomeUnknown) and job_id is not None:
        more["job_id"] = job_id
    if isinstance(error, RequestError):
        headers.update(error.headers)
    if isinstance(error, InvalidCredential):  # RFC 6750, 3
        headers["WWW-Authenticate"] = 'Bearer realm="eventjobs", error="invalid_token"'
    if isinstance(error, EventjobsError):
        _, retry_after_s = status_of(type(error))
        if retry_after_s is not None:
            headers["Retry-After"] = str(retry_after_s)
    body = problem = members(error, **more)
    status = problem["status"]
    if error_format is not None:
        status, body = error_format(problem, now_us)
        headers["Content-Type"] = "application/json"
    response = web.Response(status=status, body=orjson.dumps(body), headers=headers)
    response[CODE] = problem["code"]
    return response


def method_not_allowed(allowed: Iterable[str]) -> MethodNotAllowed:
    """The error that names the *allowed* methods."""
    listed = ", ".join(sorted(allowed))
    return MethodNotAllowed(f"this address supports {listed}", {"Allow": listed})


def encodable(text: str) -> str:
    """*text* without lone surrogates, which stand for bytes of a request that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()

"""What surrounds every endpoint: request id, origin check, errors as problems, headers."""

import logging
from collections.abc import MutableMapping
from typing import Any

from aiohttp import web
from structlog.contextvars import bind_contextvars

from eventjobs.auth.policy import Action
from eventjobs.errors import EventjobsError
from eventjobs.http import problem
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import PRINCIPAL, check_permission
from eventjobs.http.headers import check_command, is_conditional
from eventjobs.http.request_ids import JOB_ID, REQUEST_ID
from eventjobs.http.routing import Endpoint, FastPath
from eventjobs.observability.logging import get_logger

VARIES = web.RequestKey("varies", bool)


def wrap_endpoint(
    endpoint: Endpoint,
    context: AppContext,
    fast_path: FastPath | None = None,
    *,
    action: Action | None = None,
    varies: bool = False,
    unconditional: bool = False,
) -> Any:
    """*endpoint* as a handler of aiohttp, with a request id, and with errors as problems.

    The request has a principal that is permitted the *action*; without an *action* it has none.

    A route that *varies* answers with `Vary: Accept`. An *unconditional* command is on a resource
    without an ETag, so that no condition with a tag holds.

    This is a wrapper and not a middleware of aiohttp, because it is on the path of every request.
    """
    log = get_logger("eventjobs.http")
    if log.isEnabledFor(logging.DEBUG):
        fast_path = None  # the access log needs the request id, which only the long path sets

    async def handle(request: web.Request) -> web.StreamResponse:
        if fast_path is not None and (response := fast_path(context, request)) is not None:
            return response
        request[REQUEST_ID] = request_id = context.request_ids.of(request)
        bind_contextvars(request_id=request_id)
        if varies:
            request[VARIES] = True
        try:
            if error := context.guard.check(request):
                raise error
            if unconditional and is_conditional(request):
                check_command(request, "")
            if action is not None:
                principal = await context.authenticator.authenticate(request)
                check_permission(principal, action)
                request[PRINCIPAL] = principal
            return await endpoint(context, request)
        except ConnectionError:  # the client has disconnected; aiohttp does not log that
            log.debug("request cut off", method=request.method, path=request.rel_url.raw_path)
            raise
        except Exception as error:  # noqa: BLE001 every error is answered
            return _problem(request, problem.translate(error), log)

    return handle


def _problem(request: web.Request, error: Exception, log: Any) -> web.StreamResponse:
    if not isinstance(error, EventjobsError | web.HTTPException):
        log.error("unexpected error", exc_info=error)
    if request.writer.output_size > 0:
        # A part of the response is sent: only a broken connection shows that it is incomplete.
        if request.transport is not None:
            request.transport.abort()  # a close waits for the client to read
        raise ConnectionResetError("cut off after an error") from error
    job_id = request.get(JOB_ID) or request.match_info.get("id")
    return problem.response(error, request.rel_url.raw_path, request[REQUEST_ID], job_id)


async def add_default_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Set the headers of every response. It is a signal of aiohttp, so that streams have them."""
    if (request_id := request.get(REQUEST_ID)) is not None:
        set_default_headers(response.headers, request_id)
    if VARIES in request:
        response.headers["Vary"] = "Accept"


def set_default_headers(headers: MutableMapping[str, str], request_id: str) -> None:
    """Set the headers that do not depend on the request."""
    headers["Server"] = "eventjobs"  # without versions of the software
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Request-ID"] = request_id

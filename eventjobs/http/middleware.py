"""A route: what is said about it once, and what surrounds its handler."""

import logging
from collections.abc import MutableMapping
from typing import Any

from aiohttp import web
from structlog.contextvars import bind_contextvars

from eventjobs.errors import EventjobsError
from eventjobs.http import problem
from eventjobs.http.app_context import JOB_ID, REQUEST_ID, AppContext
from eventjobs.http.headers import check_command, is_conditional
from eventjobs.http.origin_guard import reject_foreign_origin
from eventjobs.http.routing import Endpoint, FastPath
from eventjobs.observability.logging import get_logger

VARIES = web.RequestKey("varies", bool)


def wrap_endpoint(
    handler: Endpoint,
    site: AppContext,
    quick: FastPath | None = None,
    *,
    varies: bool = False,
    unconditional: bool = False,
) -> Any:
    """*handler* as aiohttp wants it: with a request id, and errors as problems.

    The answers of one that *varies* say that they depend on Accept. An *unconditional* command is
    on a resource that has no tag, so no condition with one holds.

    Around each handler and not a middleware: this is on the path of every request.
    """
    log = get_logger("eventjobs.http")
    if log.isEnabledFor(logging.DEBUG):
        quick = None  # it gives the request no id, for its line

    async def handle(request: web.Request) -> web.StreamResponse:
        if quick is not None and (answer := quick(site, request)) is not None:
            return answer
        request[REQUEST_ID] = request_id = site.ids.of(request)
        bind_contextvars(request_id=request_id)
        if varies:
            request[VARIES] = True
        try:
            if error := reject_foreign_origin(request):
                raise error
            if unconditional and is_conditional(request):
                check_command(request, "")
            return await handler(site, request)
        except ConnectionError:  # the client has gone, or is cut off; aiohttp writes no line of it
            log.debug("request cut off", method=request.method, path=request.rel_url.raw_path)
            raise
        except Exception as error:  # noqa: BLE001 the outermost place there is
            return _problem(request, problem.translated(error), log)

    return handle


def _problem(request: web.Request, error: Exception, log: Any) -> web.StreamResponse:
    if not isinstance(error, EventjobsError | web.HTTPException):
        log.error("unexpected error", exc_info=error)
    if request.writer.output_size > 0:
        # A part of the answer is out: only a broken connection tells that it is not the whole.
        if request.transport is not None:
            request.transport.abort()  # closing would wait for a client that may not read
        raise ConnectionResetError("cut off after an error") from error
    job_id = request.get(JOB_ID) or request.match_info.get("id")
    return problem.response(error, request.rel_url.raw_path, request[REQUEST_ID], job_id)


async def add_default_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put on every response what every response has; a signal, so that streams have it too."""
    if (request_id := request.get(REQUEST_ID)) is not None:
        signature(response.headers, request_id)
    if VARIES in request:
        response.headers["Vary"] = "Accept"


def signature(headers: MutableMapping[str, str], request_id: str) -> None:
    headers["Server"] = "eventjobs"  # and not which versions of what
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Request-ID"] = request_id

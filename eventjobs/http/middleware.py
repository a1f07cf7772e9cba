"""What surrounds every endpoint: request id, origin check, errors as problems, headers."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from aiohttp import web
from structlog.contextvars import bind_contextvars

from eventjobs.auth.policy import Action
from eventjobs.errors import EventjobsError, InvalidCredential, OwnerLimit
from eventjobs.http import problem
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import PRINCIPAL, check_permission
from eventjobs.http.headers import check_command, is_conditional, wants_stream
from eventjobs.http.origin_guard import SAFE_METHODS
from eventjobs.http.proxies import client_network
from eventjobs.http.rate_limits import QUOTA, Quota, RequestKind, RouteRates
from eventjobs.http.raw_response import RawResponse
from eventjobs.http.request_errors import RateLimited
from eventjobs.http.request_ids import REQUEST_ID, job_id_of
from eventjobs.http.routing import Endpoint, FastPath
from eventjobs.observability.logging import get_logger

#: The headers that the response depends on.
VARY = web.RequestKey("vary", str)


def wrap_endpoint(
    endpoint: Endpoint,
    context: AppContext,
    fast_path: FastPath | None = None,
    *,
    action: Action | None = None,
    kind: RequestKind | None = None,
    error_format: problem.ErrorFormat | None = None,
    varies: bool = False,
    unconditional: bool = False,
) -> Any:
    """*endpoint* as a handler of aiohttp, with a request id, and with errors as problems.

    The request has a principal that is permitted the *action*; without an *action* it has none. It
    counts as one of *kind*, or as a stream, against the rate limits. A route that *varies* looks at
    Accept. An *unconditional* command is on a resource without an ETag: no tag matches.
    This is a wrapper and not a middleware of aiohttp, because it is on the path of every request.
    """
    log = get_logger("eventjobs.http")
    if context.access_log.logs_success:
        fast_path = None  # the access log needs what only the long path sets
    rates = context.rate_limits.of_route(kind, varies=varies)
    vary = _vary(context, action, varies=varies)

    async def handle(request: web.Request) -> web.StreamResponse:
        quota = None if rates is None else _count(context, request, rates)
        if fast_path is not None and (quota is None or not quota.exceeded):  # noqa: SIM102
            if (response := fast_path(context, request, vary)) is not None:
                return _with_quota(response, quota)
        began_s = asyncio.get_running_loop().time()
        request[REQUEST_ID] = request_id = context.request_ids.of(request)
        bind_contextvars(request_id=request_id)
        request[VARY] = vary
        try:
            if quota is not None:
                quota.check()
            if error := context.guard.check(request):
                raise error
            if unconditional and is_conditional(request):
                check_command(request, "")
            if action is not None:
                await _authorize(context, request, action, quota)
            return _with_quota(await _serve(endpoint, context, request), quota)
        except ConnectionError:  # the client has disconnected; aiohttp does not log that
            context.access_log.log_cut_off(request, began_s)
            raise
        except Exception as error:  # noqa: BLE001 every error is answered
            return await _answer_error(context, request, error, error_format, log)

    return handle


async def _serve(
    endpoint: Endpoint, context: AppContext, request: web.Request
) -> web.StreamResponse:
    """The response of *endpoint*. Raises InvalidCredential for a read whose credential was revoked
    while it waited.
    """
    response = await endpoint(context, request)
    principal = request.get(PRINCIPAL)
    is_read = request.method in SAFE_METHODS and not response.prepared
    if principal is not None and is_read and not context.service.credentials.is_valid(principal):
        raise InvalidCredential
    return response


def _vary(context: AppContext, action: Action | None, *, varies: bool) -> str:
    """The value of Vary: the headers on which a response may depend."""
    names = ["Accept"] if varies else []
    if action is not None and context.service.settings.auth != "off":
        names += ["Authorization", "Cookie"]
    return ", ".join(names)


def _count(context: AppContext, request: web.Request, route_rates: RouteRates) -> Quota | None:
    """Count the request for its address, and for its principal if that is cached."""
    rates, stream_rates = route_rates
    if rates is not stream_rates and wants_stream(request):
        rates = stream_rates
    if rates is None:
        return None
    address = context.proxies.original(request).address
    request[QUOTA] = quota = Quota(rates, client_network(address))
    if not quota.exceeded and rates.of_principal is not None:
        principal = context.authenticator.get_cached(request)
        if principal is not None:
            quota.count_principal(principal)
    return quota


async def _authorize(
    context: AppContext, request: web.Request, action: Action, quota: Quota | None
) -> None:
    """Set the principal, which may do *action*. Raises RateLimited, and as *check_permission*."""
    principal = await context.authenticator.authenticate(request)
    request[PRINCIPAL] = principal  # the access log names it where it is refused, too
    if quota is not None:
        quota.count_principal(principal)
        quota.check()
    check_permission(principal, action)


def _with_quota(response: web.StreamResponse, quota: Quota | None) -> web.StreamResponse:
    """*response* with the headers of *quota*. All but a RawResponse get them by the signal."""
    if quota is not None and isinstance(response, RawResponse):
        response.add_headers(quota.headers)
    return response


async def _answer_error(
    context: AppContext,
    request: web.Request,
    error: Exception,
    error_format: problem.ErrorFormat | None,
    log: Any,
) -> web.StreamResponse:
    error = problem.translate(error)
    if (
        isinstance(error, RateLimited | OwnerLimit)
        and "Accept" in request[VARY]
        and wants_stream(request)
    ):
        wait_s = error.wait_s if isinstance(error, RateLimited) else 0.0
        return await context.streams.refuse(request, wait_s)
    if not isinstance(error, EventjobsError | web.HTTPException):
        log.error("unexpected error", exc_info=error)
    if request.writer.output_size > 0:
        # A part of the response is sent: only a broken connection shows that it is incomplete.
        if request.transport is not None:
            request.transport.abort()  # a close waits for the client to read
        raise ConnectionResetError("cut off after an error") from error
    path, request_id = request.rel_url.raw_path, request[REQUEST_ID]
    now_us, job_id = context.service.clock.now_us(), job_id_of(request)
    return problem.response(error, path, request_id, job_id, error_format, now_us)


async def add_default_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Set the headers of every response. It is a signal of aiohttp, so that streams have them."""
    if (request_id := request.get(REQUEST_ID)) is not None:
        set_default_headers(response.headers, request_id)
    if vary := request.get(VARY):
        response.headers["Vary"] = vary
    response.headers.setdefault("Cache-Control", "no-store")
    if (quota := request.get(QUOTA)) is not None:
        response.headers.update(quota.headers)


def set_default_headers(headers: MutableMapping[str, str], request_id: str) -> None:
    """Set the headers that do not depend on the request."""
    headers["Server"] = "eventjobs"  # without versions of the software
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Request-ID"] = request_id

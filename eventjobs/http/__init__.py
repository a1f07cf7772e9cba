"""The HTTP interface of a service: its application and its server."""

from aiohttp import web

from eventjobs.attempts.remote_claims import RemoteClaims
from eventjobs.http.access_log import AccessLog
from eventjobs.http.app_context import APP_CONTEXT, AppContext
from eventjobs.http.auth import Authenticator
from eventjobs.http.cors import CrossOriginPolicy
from eventjobs.http.dialects import seed_001_log, seed_004_log
from eventjobs.http.dialects.registry import select_dialect_logs, select_dialects
from eventjobs.http.middleware import add_default_headers, wrap_endpoint
from eventjobs.http.origin_guard import OriginGuard, check_host
from eventjobs.http.owner_limits import OwnerLimits
from eventjobs.http.problem import method_not_allowed
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.rate_limits import RateLimits, RequestKind
from eventjobs.http.request_errors import RouteNotFound
from eventjobs.http.request_ids import RequestIds
from eventjobs.http.routes import APP_ROUTES, ROUTES, all_routes
from eventjobs.http.server import Listening, listen
from eventjobs.http.session_cookies import SessionCookies
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.streams import Streams
from eventjobs.log.long_poll import LongPolls
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service

__all__ = ["ROUTES", "Listening", "check_host", "create_app", "serve"]


def create_app(service: Service) -> web.Application:
    """The application for a started *service*. Closing the service is the caller's task."""
    context = _make_context(service)
    if "001" in context.dialect_logs:
        seed_001_log.start(service.settings)
    if "004" in context.dialect_logs:
        seed_004_log.start(service)
    app = web.Application(client_max_size=service.settings.body_bytes_max)
    app[APP_CONTEXT] = context
    routes = app[APP_ROUTES] = all_routes(context)
    for path in dict.fromkeys(each.path for each in routes):
        resource = app.router.add_resource(path)
        for each in routes:
            if each.path == path:
                handler = wrap_endpoint(
                    each.endpoint,
                    context,
                    each.fast_path,
                    action=each.action,
                    kind=each.kind,
                    error_format=each.error_format,
                    varies=each.varies,
                    unconditional=each.unconditional,
                )
                resource.add_route(each.method, handler)
                if each.method == "GET":
                    resource.add_route("HEAD", handler)
        varies = any(each.varies for each in routes if each.path == path)
        unknown = wrap_endpoint(_unknown_method, context, kind=RequestKind.READ, varies=varies)
        resource.add_route("*", unknown)
    unknown = wrap_endpoint(_unknown_address, context, kind=RequestKind.READ)
    app.router.add_route("*", "/{path:.*}", unknown)
    app.on_response_prepare.append(add_default_headers)
    if context.cors is not None:
        app.on_response_prepare.append(context.cors.on_prepare)

    async def end_waits(_: web.Application) -> None:
        service.leases.close()
        context.long_polls.close()
        await context.streams.close()

    app.on_shutdown.append(end_waits)
    return app


def _make_context(service: Service) -> AppContext:
    snapshots = Snapshots(service.views, service.settings.ttl_s)
    long_polls = LongPolls(service.log, service.clock, service.settings.wait_max_s)
    proxies = TrustedProxies(service.settings.trusted_proxies)
    all_requests = service.settings.log_requests == "all"
    return AppContext(
        service,
        snapshots,
        Streams(service, snapshots),
        long_polls,
        RequestIds(),
        RemoteClaims(
            service.claims,
            service.leases,
            service.attempt_reports,
            service.recorder,
            service.clock,
            long_polls,
        ),
        Authenticator(service.settings, service.credentials, SessionCookies(proxies)),
        proxies,
        OriginGuard(service.settings, proxies),
        RateLimits(service.settings, service.clock),
        OwnerLimits(service.settings.owner_long_polls_max, "long polls"),
        CrossOriginPolicy(origins) if (origins := service.settings.cors_origins) else None,
        AccessLog(get_logger("eventjobs.http"), proxies, all_requests=all_requests),
        select_dialects(service.settings.dialects),
        select_dialect_logs(service.settings.dialect_logs),
    )


async def _unknown_method(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Answer a preflight, or raise MethodNotAllowed for a method that the path does not have."""
    allowed = {each.method for each in request.match_info.route.resource or ()} - {"*"}
    if context.cors is not None and (answer := context.cors.preflight(request, allowed)):
        return answer
    raise method_not_allowed(allowed)


async def _unknown_address(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Refuse a path that has no route. Raises RouteNotFound."""
    raise RouteNotFound


async def serve(service: Service, host: str, port: int) -> Listening:
    """Serve a started *service*; port 0 selects a free port.

    Raises OSError, and InvalidInput for a *host* that is not loopback without authentication.
    """
    listening = await listen(create_app(service), host, port)
    service.dispatcher.address.set_listening_url(listening.url)
    return listening

"""The server on an address, and its graceful close."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from eventjobs.concurrency import forks
from eventjobs.errors import EventjobsError
from eventjobs.http.app_context import APP_CONTEXT, AppContext
from eventjobs.http.connection_limits import ConnectionLimits
from eventjobs.http.origin_guard import check_host
from eventjobs.http.protocol import (
    LINGER_S,
    Connections,
    ServerConnection,
    asks_for_upgrade,
    connection_of,
)
from eventjobs.http.refusals import (
    FIELD_BYTES_MAX,
    FIELDS_MAX,
    TARGET_BYTES_MAX,
    check_expectation,
    refusal_response,
    with_refusals,
)
from eventjobs.observability.logging import get_logger
from eventjobs.settings.formats import format_address

#: Seconds at a close in which an idle connection may still send a request.
LAST_REQUEST_S = 0.1
#: Seconds after which incomplete requests are refused; their responses get as long again.
SHUTDOWN_S = 2.0
#: Seconds of an idle connection after a response. aiohttp's default is an hour.
KEEPALIVE_S = 60.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Listening:
    """A server on one or more bound addresses. The limits of connections count over all."""

    connections: Connections
    context: AppContext
    _runner: web.AppRunner
    _connect: Callable[[], ServerConnection]
    _servers: list[asyncio.Server] = field(default_factory=list)
    #: The host and the port of each server.
    _bound: list[tuple[str, int]] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The host of the first address."""
        return self._bound[0][0]

    @property
    def port(self) -> int:
        return self._bound[0][1]

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """The URL of each address, in the order in which they were added."""
        return [f"http://{format_address(host, port)}" for host, port in self._bound]

    async def add(self, host: str, port: int) -> None:
        """Listen on one more address; port 0 selects a free port. Raises as *listen*."""
        check_host(self.context.service.settings, host)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._connect, host, port, backlog=1024)
        for each in server.sockets:
            forks.close_in_children(each.fileno())
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        self._bound.append((bound[0], bound[1]))

    async def close(self) -> None:
        """Accept no more connections, end streams and long polls, and answer received requests.

        Every response closes its connection from now on. Idle connections are closed last, so that
        every request that was carried out is answered. A body that does not arrive within
        SHUTDOWN_S seconds is refused.
        """
        for server in self._servers:
            server.close()
        self.connections.closing = True
        await self._runner.shutdown()
        await self.connections.wait_closed(LAST_REQUEST_S)
        for each in self.connections:
            each.close_if_idle()
        await self.connections.wait_closed(SHUTDOWN_S)
        for each in self.connections:
            each.abandon_request()
        await self.connections.wait_closed(LINGER_S)
        await self._runner.cleanup()


async def listen(app: web.Application, host: str, port: int) -> Listening:
    """Serve *app*; port 0 selects a free port. Raises OSError, and InvalidInput for a *host* that
    is not loopback, while authentication is off.
    """
    context = app[APP_CONTEXT]
    service = context.service
    settings = service.settings
    runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    manager = runner.server
    assert manager is not None
    connections = Connections(
        ConnectionLimits(
            settings.connections_max, settings.address_connections_max, context.proxies.trusts
        ),
        service.clock,
        head_timeout_s=settings.head_timeout_s,
        stall_s=settings.stall_s,
    )
    manager.request_handler = _with_problems(manager.request_handler, connections, context)
    manager.request_factory = with_refusals(manager.request_factory, context.guard)
    loop = asyncio.get_running_loop()
    log = get_logger("eventjobs.http")

    def connect() -> ServerConnection:
        return ServerConnection(
            connections,
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            access_log=log,
            access_log_class=lambda *_: context.access_log,
            max_line_size=TARGET_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            auto_decompress=False,
        )

    listening = Listening(connections, context, runner, connect)
    try:
        await listening.add(host, port)
    except BaseException:
        await runner.cleanup()
        raise
    return listening


def _with_problems(handle: Handler, connections: Connections, context: AppContext) -> Handler:
    """*handle*, with refusals before routing answered as problems."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request)
        try:
            if connection.refusal is not None:  # a local variable would keep its frames alive
                raise connection.refusal
            check_expectation(request)
            response = await handle(request)
        except (web.HTTPException, EventjobsError) as error:
            response = refusal_response(request, error, context.request_ids.of(request))
            if context.cors is not None:
                context.cors.add_headers(request, response.headers)
        except ConnectionError as error:
            connection.connection_error = error
            raise
        if connections.closing or connection.refusal is not None or asks_for_upgrade(request):
            response.force_close()
        return response

    return answer

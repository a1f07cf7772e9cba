"""The server on an address, and its graceful close."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from eventjobs.concurrency import forks
from eventjobs.errors import EventjobsError
from eventjobs.http.app_context import APP_CONTEXT, AppContext
from eventjobs.http.connection_limits import ConnectionLimits
from eventjobs.http.origin_guard import check_host
from eventjobs.http.protocol import LINGER_S, Connections, connection_of
from eventjobs.http.refusals import (
    asks_for_upgrade,
    check_expectation,
    refusal_response,
    with_refusals,
)
from eventjobs.settings.formats import format_address

#: Seconds at a close in which an idle connection may still send a request.
LAST_REQUEST_S = 0.1
#: Seconds after which incomplete requests are refused; their responses get as long again.
SHUTDOWN_S = 2.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Listening:
    """A server on one or more bound addresses. The limits of connections count over all."""

    connections: Connections
    context: AppContext
    _runner: web.AppRunner
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
        server = await loop.create_server(self.connections.connect, host, port, backlog=1024)
        for each in server.sockets:
            forks.close_in_children(each.fileno())
            _set_timeouts(each, self.context.service.settings.stall_s)
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
        for held in list(self.connections.held):
            held.abort()  # the client has not read the end of its stream
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
        manager,
        ConnectionLimits(
            settings.connections_max, settings.address_connections_max, context.proxies.trusts
        ),
        context.access_log,
        service.clock,
        head_timeout_s=settings.head_timeout_s,
    )
    manager.request_handler = _with_problems(manager.request_handler, connections, context)
    manager.request_factory = with_refusals(manager.request_factory, context.guard)
    listening = Listening(connections, context, runner)
    try:
        await listening.add(host, port)
    except BaseException:
        await runner.cleanup()
        raise
    return listening


def _set_timeouts(listening: socket.socket, stall_s: float) -> None:
    """Let the kernel end connections whose clients are gone. New ones inherit that."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Otherwise a client that reads no response holds its memory, also after a close, and the
        # kernel waits a quarter of an hour for one whose network is gone.
        timeout_ms = max(1, int(stall_s * 1000))
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


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

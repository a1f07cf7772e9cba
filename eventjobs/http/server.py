"""The listening socket: loopback only."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from eventjobs.concurrency import forks
from eventjobs.errors import EventjobsError
from eventjobs.http.access_log import AccessLog
from eventjobs.http.app_context import RequestIds
from eventjobs.http.origin_guard import check_loopback
from eventjobs.http.protocol import (
    FIELD_BYTES_MAX,
    FIELDS_MAX,
    LINGER_S,
    TARGET_BYTES_MAX,
    Connected,
    Connection,
    check,
    connection_of,
    readable,
    refused,
)
from eventjobs.observability.logging import get_logger

#: At a shutdown, for whoever was told that the connection stays, and is just using it.
LAST_CALL_S = 0.1
#: And for what is missing of requests then; their answers get as long again.
SHUTDOWN_S = 2.0
#: aiohttp's default is an hour, and bounds how long headers may take, too.
KEEPALIVE_S = 60.0

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Listening:
    """A bound address, until it is closed."""

    host: str
    port: int
    _server: asyncio.Server
    _runner: web.AppRunner
    _connected: "Connected"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def close(self) -> None:
        """Take no more connections, end streams and long polls, and answer what was asked.

        Every answer now closes its connection. A connection that nothing was asked on is closed
        after that, so that nothing is done that nobody is told of. A body that does not arrive
        in time is refused.
        """
        self._server.close()
        self._connected.leaving = True
        await self._runner.shutdown()
        await self._connected.gone(LAST_CALL_S)
        for each in self._connected.everyone():
            each.close_if_idle()
        await self._connected.gone(SHUTDOWN_S)
        for each in self._connected.everyone():
            each.give_up()
        await self._connected.gone(LINGER_S)
        await self._runner.cleanup()


async def listen(app: web.Application, host: str, port: int) -> Listening:
    """Serve *app*; port 0 picks one. Raises InvalidInput for other machines' *host*, OSError."""
    check_loopback(host)
    runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    manager = runner.server
    assert manager is not None
    connected = Connected()
    manager.request_handler = _answering(manager.request_handler, RequestIds(), connected)
    manager.request_factory = readable(manager.request_factory)
    loop = asyncio.get_running_loop()
    log = get_logger("eventjobs.http")

    def connect() -> Connection:
        return Connection(
            connected,
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            access_log=log,
            access_log_class=AccessLog,
            max_line_size=TARGET_BYTES_MAX,
            max_field_size=FIELD_BYTES_MAX,
            max_headers=FIELDS_MAX,
            auto_decompress=False,
        )

    try:
        server = await loop.create_server(connect, host, port, backlog=1024)
    except BaseException:
        await runner.cleanup()
        raise
    for each in server.sockets:
        forks.close_in_children(each.fileno())
    bound = server.sockets[0].getsockname()
    return Listening(bound[0], bound[1], server, runner, connected)


def _answering(handle: Handle, ids: RequestIds, connected: Connected) -> Handle:
    """*handle*, with what aiohttp refuses before it looks for a route told as a problem."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request)
        try:
            check(connection, request)
            response = await handle(request)
        except (web.HTTPException, EventjobsError) as error:
            response = refused(request, error, ids.of(request))
        except ConnectionError as error:
            connection.cut_off = error
            raise
        if connected.leaving or connection.refusal is not None:
            response.force_close()
        return response

    return answer

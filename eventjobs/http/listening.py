"""The listening socket: loopback only, and answering what is not even HTTP."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web

from eventjobs.errors import InvalidInput
from eventjobs.http import problem
from eventjobs.http.access_log import AccessLog
from eventjobs.http.body import give_up
from eventjobs.http.problem import RequestError
from eventjobs.http.route import RequestIds, signature

#: At a shutdown, for whoever was told that the connection stays, and is just using it.
LAST_CALL_S = 0.1
#: And for what is missing of requests then; their answers get as long again.
SHUTDOWN_S = 2.0
#: aiohttp's default is an hour, and bounds how long headers may take, too.
KEEPALIVE_S = 60.0
#: What a client still sends is read for so long, so that it gets to read why it is refused.
LINGER_S = 1.0

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Listening:
    """A bound address, until it is closed."""

    host: str
    port: int
    _server: asyncio.Server
    _runner: web.AppRunner
    _connected: "_Connected"

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
    connected = _Connected()
    manager.request_handler = _answering(manager.request_handler, RequestIds(), connected)
    loop = asyncio.get_running_loop()
    log = structlog.get_logger("eventjobs.http").bind()

    def connect() -> _Connection:
        return _Connection(
            connected,
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            access_log=log,
            access_log_class=AccessLog,
            auto_decompress=False,
        )

    try:
        server = await loop.create_server(connect, host, port, backlog=1024)
    except BaseException:
        await runner.cleanup()
        raise
    bound = server.sockets[0].getsockname()
    return Listening(bound[0], bound[1], server, runner, connected)


def check_loopback(host: str) -> None:
    """Raises InvalidInput for an address that other machines can reach."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise InvalidInput(
            "there is no authentication yet, so this listens on 127.0.0.1, ::1 or localhost only, "
            f"not on {host!r}; for other machines put a proxy that authenticates in front"
        )


class _Connected:
    """Everyone who is connected, and whether they are to leave."""

    def __init__(self) -> None:
        self.leaving = False
        self._all: set[_Connection] = set()
        self._fewer = asyncio.Event()

    def add(self, connection: "_Connection") -> None:
        self._all.add(connection)

    def discard(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        self._fewer.set()

    def everyone(self) -> list["_Connection"]:
        return list(self._all)

    async def gone(self, within_s: float) -> None:
        """Return when nobody is connected any more, or after *within_s*."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._all:
                    self._fewer.clear()
                    await self._fewer.wait()


class _Connection(web.RequestHandler):
    """Can be left in good order, and tells in our own words what cannot be read as HTTP."""

    __slots__ = ("_connected",)

    def __init__(self, connected: _Connected, manager: web.Server, **more: Any) -> None:
        super().__init__(manager, **more)
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connected.add(self)

    def connection_lost(self, error: BaseException | None) -> None:
        super().connection_lost(error)
        self._connected.discard(self)

    # aiohttp's own way out does not read the bodies of requests that it has begun to handle.

    def close_if_idle(self) -> None:
        """Close it, unless there is something to be answered."""
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def give_up(self) -> None:
        """Wait no longer for what is missing of a request."""
        if self._current_request is not None:
            give_up(self._current_request)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone, or was cut off: there is nobody to tell
        log = structlog.get_logger("eventjobs.http")
        if status >= 500:
            log.error("unexpected error", exc_info=exc)
        else:
            log.info("not HTTP", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is out") from exc
        error = RequestError("this is not a request of HTTP/1.1") if status < 500 else exc
        response = _problem(request, error or RuntimeError(), RequestIds().of(request))
        response.force_close()
        return response


def _answering(handle: Handle, ids: RequestIds, connected: _Connected) -> Handle:
    """*handle*, with what aiohttp refuses before it looks for a route told as a problem."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            response = await handle(request)
        except web.HTTPException as error:
            response = _problem(request, error, ids.of(request))
        if connected.leaving:
            response.force_close()
        return response

    return answer


def _problem(request: web.BaseRequest, error: BaseException, request_id: str) -> web.Response:
    response = problem.response(error, request.rel_url.raw_path, request_id, None)
    # No application is found yet that could sign it.
    signature(response.headers, request_id)
    return response

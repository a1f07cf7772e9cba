"""The listening socket: loopback only, and answering what is not even HTTP."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from eventjobs.errors import InvalidInput
from eventjobs.http import problem
from eventjobs.http.problem import RequestError
from eventjobs.http.route import RequestIds, signature

#: For requests that are under way at a shutdown.
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

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def close(self) -> None:
        """Take no more connections, end streams and long polls, and let requests finish."""
        self._server.close()
        await self._runner.cleanup()


async def listen(app: web.Application, host: str, port: int) -> Listening:
    """Serve *app*; port 0 picks one. Raises InvalidInput for other machines' *host*, OSError."""
    check_loopback(host)
    runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    manager = runner.server
    assert manager is not None
    ids = RequestIds()
    manager.request_handler = _answering(manager.request_handler, ids)
    loop = asyncio.get_running_loop()

    def connect() -> _Connection:
        return _Connection(
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say: none
            auto_decompress=False,
        )

    try:
        server = await loop.create_server(connect, host, port, backlog=1024)
    except BaseException:
        await runner.cleanup()
        raise
    bound = server.sockets[0].getsockname()
    return Listening(bound[0], bound[1], server, runner)


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


class _Connection(web.RequestHandler):
    """Tells in our own words what cannot be read as HTTP."""

    __slots__ = ()

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


def _answering(handle: Handle, ids: RequestIds) -> Handle:
    """*handle*, with what aiohttp refuses before it looks for a route told as a problem."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return _problem(request, error, ids.of(request))

    return answer


def _problem(request: web.BaseRequest, error: BaseException, request_id: str) -> web.Response:
    response = problem.response(error, request.rel_url.raw_path, request_id, None)
    # No application is found yet that could sign it.
    signature(response.headers, request_id)
    return response

"""An external service on this machine, to which jobs are dispatched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import ClientSession, web

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What a test's service must be allowed to talk to.
LOOPBACK = "127.0.0.0/8"


@asynccontextmanager
async def http_server(
    handle: Handle, method: str = "*", path: str = "/{path:.*}"
) -> AsyncIterator[int]:
    """An HTTP server on this machine with the handler *handle* for requests of *method* to *path*;
    its port.
    """
    app = web.Application()
    app.router.add_route(method, path, handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Dispatched:
    """A request that the service received."""

    def __init__(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        self.path = path
        self.headers = headers
        self.raw = raw
        self.body = orjson.loads(raw)

    async def report(self, report: dict[str, Any], token: str | None = None) -> tuple[int, Any]:
        """Call back; the status, and the code of a problem or the answer."""
        callback = self.body["callback"]
        headers = {"Authorization": f"Bearer {token or callback['token']}"}
        async with (
            ClientSession() as session,
            session.post(callback["url"], json=report, headers=headers) as response,
        ):
            answer = await response.json()
            return response.status, answer if response.status == 200 else answer["code"]


class ExternalService:
    """Its address, and the requests that it received."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: asyncio.Queue[Dispatched] = asyncio.Queue()

    async def next(self) -> Dispatched:
        return await self.requests.get()


@asynccontextmanager
async def external_service(*answers: tuple[Any, ...] | None) -> AsyncIterator[ExternalService]:
    """Gives *answers* in turn, then the last one again: a status, a body, and maybe headers.

    After None no response is sent.
    """
    services: list[ExternalService] = []
    left = list(answers)

    async def handle(request: web.Request) -> web.StreamResponse:
        dispatched = Dispatched(request.path, dict(request.headers), await request.read())
        services[0].requests.put_nowait(dispatched)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is None:
            await asyncio.Event().wait()
            raise AssertionError
        status, body, *headers = answer
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        json = {"Content-Type": "application/json"}
        return web.Response(status=status, body=raw, headers=json | (headers or [{}])[0])

    async with http_server(handle) as port:
        services.append(ExternalService(port))
        yield services[0]

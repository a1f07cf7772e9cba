"""Bare aiohttp, configured as in the service: the raw limit of the service over HTTP."""

import asyncio
from pathlib import Path

import orjson
from aiohttp import web

from eventjobs.domain.codec import encode
from eventjobs.domain.recorded import Recorded

from .log import ACTOR, START_US, new_id
from .processes import Children, now_s, obey, raise_descriptor_limit, run
from .sse import Publisher, event
from .sse_readers import PREFACE

HOST = "127.0.0.1"


async def empty_post(request: web.Request) -> web.Response:
    await request.read()
    return web.Response()


async def empty_get(request: web.Request) -> web.Response:
    return web.Response()


async def batch(request: web.Request) -> web.Response:
    """Parses every line, and answers each."""
    lines = [orjson.loads(line) for line in (await request.read()).splitlines()]
    answers = [b'{"line":%d,"status":202}\n' % number for number, _ in enumerate(lines, 1)]
    return web.Response(body=b"".join(answers))


class Hub:
    """Writes the same bytes to every client, those of one turn of the loop at once."""

    def __init__(self) -> None:
        self._transports: set[asyncio.WriteTransport] = set()
        progress = event(1)
        recorded = Recorded(1, new_id(1), 1, START_US, ACTOR, progress, *encode(progress))
        frame = b"id: 1\nevent: event\ndata: %s\n\n" % recorded.json()
        self._chunk = b"%x\r\n%s\r\n" % (len(frame), frame)
        self._unsent = 0

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(PREFACE)
        transport = request.transport
        assert transport is not None
        self._transports.add(transport)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._transports.discard(transport)
        return response

    async def send(self, number: int) -> float:
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        self._unsent += 1
        return now_s()

    def _write(self) -> None:
        chunks, self._unsent = self._chunk * self._unsent, 0
        for transport in self._transports:
            transport.write(chunks)


def bare() -> None:
    async def work() -> None:
        raise_descriptor_limit()
        hub = Hub()
        app = web.Application(client_max_size=0)
        app.router.add_post("/post", empty_post)
        app.router.add_post("/batch", batch)
        app.router.add_get("/get", empty_get)
        app.router.add_get("/events", hub.stream)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0, backlog=1024)
        await site.start()
        publisher = Publisher(hub.send)
        ready = {"port": runner.addresses[0][1], "acks": await publisher.listen(HOST)}
        await obey(ready, publisher.commands)

    run(work())


def bare_with_databases(data: str) -> None:
    """A process with the libraries of the service, an empty server and both databases open."""
    import sqlite3

    import aiosqlite
    import pydantic_settings
    import structlog

    assert aiosqlite
    assert pydantic_settings
    assert structlog
    for name in ("log.db", "views.db"):
        connection = sqlite3.connect(Path(data) / name)
        connection.execute("SELECT max(rowid) FROM sqlite_schema").fetchone()
    bare()


CHILDREN: Children = {"bare": bare, "bare_with_databases": bare_with_databases}

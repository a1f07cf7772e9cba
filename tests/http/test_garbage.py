"""Broken requests leave nothing in memory, without a garbage collection.

The service collects cycles seldom (eventjobs.gc_tuning), so a cycle would keep megabytes for long.
"""

import asyncio
import gc
import socket
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from aiohttp import web

from eventjobs import Context, handler
from tests.conftest import Connect
from tests.support.http_client import Client

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
LINES = b"Content-Type: application/x-ndjson\r\n"
LARGE = b"Content-Length: 900000\r\n"
STREAM = b"Accept: text/event-stream\r\n"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def requests_in_memory() -> list[object]:
    """Requests in memory. `isinstance` would read the `__class__` of every object."""
    return [each for each in gc.get_objects() if issubclass(type(each), web.BaseRequest)]


#: Bytes that are sent before the client resets its connection.
BROKEN = {
    "an upload": b"POST /v1/artifacts HTTP/1.1\r\n" + LARGE + HOST + b"\r\n" + b"z" * 300_000,
    "a submission": b"POST /v1/jobs HTTP/1.1\r\n" + JSON + LARGE + HOST + b"\r\n" + b"z" * 300_000,
    "a submission in chunks": b"POST /v1/jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
    + JSON
    + HOST
    + b"\r\nffff\r\n"
    + b"z" * 1000,
    "a batch": b"POST /v1/jobs/batch HTTP/1.1\r\n"
    + LINES
    + LARGE
    + HOST
    + b"\r\n"
    + b'{"type":"echo"}\n' * 50,
    "a command": b"POST %(here)s/cancel HTTP/1.1\r\n" + JSON + LARGE + HOST + b"\r\n{",
    "a stream": b"GET %(here)s HTTP/1.1\r\n" + STREAM + HOST + b"\r\n",
    "a stream of all": b"GET /v1/events HTTP/1.1\r\n" + STREAM + HOST + b"\r\n",
    "a download": b"GET %(here)s/artifacts/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a pipeline": (b"GET %(here)s HTTP/1.1\r\n" + HOST + b"\r\n") * 20,
    "half a head": b"GET %(here)s HTTP/1.1\r\nHo",
}
#: Requests that are answered, and how many are sent at once.
REFUSED = {
    "no JSON": b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 300000\r\n"
    + JSON
    + HOST
    + b"\r\n"
    + b"z" * 300_000,
    "no submission": b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 9\r\n"
    + JSON
    + HOST
    + b'\r\n{"a": "b"}',
    "too large": b"POST /v1/jobs HTTP/1.1\r\nContent-Length: 99999999\r\n" + JSON + HOST + b"\r\nz",
    "a form": b"POST /v1/artifacts HTTP/1.1\r\nContent-Type: multipart/form-data\r\n"
    + LARGE
    + HOST
    + b"\r\nz",
    "ended early": b"POST /v1/artifacts HTTP/1.1\r\n" + LARGE + HOST + b"\r\n" + b"z" * 300_000,
    "too long": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "no address": b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n",
    "a host of no name": b"GET http://xn--/ HTTP/1.1\r\n" + HOST + b"\r\n",
}


async def open_and_send(
    api: Client, sent: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(sent)
    return reader, writer


async def all_gone(api: Client) -> None:
    """Return when no connection is open, and their tasks have ended."""
    await api.session.close()
    async with asyncio.timeout(20):
        while api.listening.connections:  # noqa: ASYNC110  connections close
            await asyncio.sleep(0)
        while requests_in_memory():  # noqa: ASYNC110  tasks end
            await asyncio.sleep(0)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_request_that_breaks_off_leaves_nothing(client: Connect, kind: str) -> None:
    api = await client(echo, concurrency=0, heartbeat_s=0.05)
    stored = (await api("POST", "/v1/artifacts", data=BytesIO(b"a" * 5_000_000))).json
    job = await api.submit("echo", artifacts={"a": stored["sha256"]})
    sent = BROKEN[kind].replace(b"%(here)s", job["links"]["self"].encode())
    for read in (False, True):
        reader, writer = await open_and_send(api, sent)
        if read and kind.startswith(("a stream", "a download", "a pipeline", "a batch")):
            await reader.read(10)
        else:
            await writer.drain()
            await api.get("/healthz")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await all_gone(api)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("kind", REFUSED)
async def test_a_request_that_is_refused_leaves_nothing(client: Connect, kind: str) -> None:
    api = await client(echo, concurrency=0)
    reader, writer = await open_and_send(api, REFUSED[kind])
    if kind in {"ended early", "a form", "no address"}:
        writer.write_eof()
    assert (await reader.read(20)).startswith(b"HTTP/1.")
    writer.close()
    await all_gone(api)

"""The connection of a stream: what stands behind the request waits, and is answered after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventjobs import Context, handler
from eventjobs.http import held_connections
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.waiting import until

HOST = b"Host: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = HEALTH.replace(HOST, HOST + b"Connection: close\r\n")
END = b"0\r\n\r\n"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


class Connection:
    """A connection on which the stream of a job was asked for."""

    def __init__(
        self, api: Client, job: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._api = api
        self._job = job
        self.reader = reader
        self.writer = writer

    async def wait_until_begun(self) -> None:
        """Return when the stream has begun."""
        await self.reader.readuntil(b"JobSubmitted")
        assert len(self._api.listening.connections.held) == 1

    async def end(self) -> None:
        """End the job, and read the stream to its end."""
        await self._api("POST", f"{self._job['links']['self']}/cancel")
        await self.reader.readuntil(b"event: end")
        await self.reader.readuntil(END)

    async def answer(self) -> bytes:
        """The status line of the next response."""
        line = await self.reader.readline()
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length))
        return line.strip()


@asynccontextmanager
async def stream(api: Client, more: bytes = b"", behind: bytes = b"") -> AsyncIterator[Connection]:
    """The stream of a job, with *more* headers, and what is sent *behind* the request."""
    job = await api.submit("echo")
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    here = job["links"]["self"].encode()
    accept = b"Accept: text/event-stream\r\n"
    writer.write(b"GET %b/events HTTP/1.1\r\n" % here + accept + HOST + more + b"\r\n" + behind)
    try:
        yield Connection(api, job, reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def api(client: Connect) -> Client:
    return await client(echo, concurrency=0)


async def test_the_next_request_is_answered_on_the_connection_of_a_stream(api: Client) -> None:
    async with stream(api) as one:
        await one.wait_until_begun()
        await one.end()
        for _ in range(2):
            one.writer.write(HEALTH)
            assert await one.answer() == b"HTTP/1.1 200 OK"
        assert not api.listening.connections.held


async def test_requests_that_were_sent_before_the_end_of_a_stream_are_answered_after_it(
    api: Client,
) -> None:
    async with stream(api, behind=HEALTH + HEALTH) as one:
        await one.wait_until_begun()
        one.writer.write(HEALTH[:20])
        await api.get("/healthz")
        one.writer.write(HEALTH[20:] + HEALTH)
        await one.end()
        for _ in range(4):
            assert await one.answer() == b"HTTP/1.1 200 OK"


async def test_a_client_that_has_ended_its_side_has_all_answers_before_the_connection_closes(
    api: Client,
) -> None:
    async with stream(api) as one:
        await one.wait_until_begun()
        one.writer.write(HEALTH)
        one.writer.write_eof()
        await until(lambda: any(each.input_ended for each in api.listening.connections.held))
        await one.end()
        assert await one.answer() == b"HTTP/1.1 200 OK"
        assert await one.reader.read() == b""


@pytest.mark.parametrize(
    ("more", "behind"),
    [
        (b"Connection: close\r\n", b""),
        (b"Content-Length: 3\r\n", b"a"),
        (b"", HEALTH[:30]),
        (b"Connection: upgrade\r\nUpgrade: websocket\r\n", b""),
    ],
    ids=["by request", "a body in part", "a request in part", "an upgrade"],
)
async def test_a_connection_that_cannot_be_read_on_is_closed_after_its_stream(
    api: Client, more: bytes, behind: bytes
) -> None:
    async with stream(api, more, behind) as one:
        await one.wait_until_begun()
        one.writer.write(HEALTH)
        await one.end()
        assert await one.reader.read() == b""


async def test_what_is_sent_during_a_stream_is_kept_up_to_a_limit(
    api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_connections, "INPUT_BYTES_MAX", 10_000)
    async with stream(api) as one:
        await one.wait_until_begun()
        [held] = api.listening.connections.held
        one.writer.write(HEALTH * 100_000)
        await until(lambda: len(held.input) > 10_000)
        await one.end()  # the client reads while its own writes wait
        for _ in range(100):
            assert await one.answer() == b"HTTP/1.1 200 OK"
        assert len(held.input) < 1_000_000


async def test_a_live_stream_has_no_task(api: Client) -> None:
    await api.get("/healthz")
    async with stream(api) as first:
        await first.wait_until_begun()
        before = len(asyncio.all_tasks())
        async with stream(api) as second:
            await second.reader.readuntil(b"JobSubmitted")
            await until(lambda: len(asyncio.all_tasks()) == before)


async def test_streams_are_counted_as_connections_until_they_are_lost(client: Connect) -> None:
    api = await client(echo, concurrency=0, connections_max=2)
    async with stream(api) as one:
        await one.wait_until_begun()  # the other connection is of *submit*
        assert b"503" in await api.raw(LAST)
        await one.end()
        assert b"503" in await api.raw(LAST)
    await until(lambda: len(api.listening.connections) == 1)
    assert b"200 OK" in await api.raw(LAST)

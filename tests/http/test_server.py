"""A graceful close: received requests are answered, and no others are carried out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from eventjobs import Context, handler
from eventjobs.domain.events import JobSubmitted
from eventjobs.errors import InvalidInput
from eventjobs.http import server as listening
from tests.conftest import Connect
from tests.support.http_client import Client

BODY = b'{"type":"echo"}'
HOUR_S = 3600.0


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@dataclass
class Connection:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def begin(self, path: str, length: int, media_type: str = "application/json") -> None:
        """Send the head of a POST that expects 100-continue."""
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
        )

    async def wait_until_read(self) -> None:
        """Return when an endpoint reads the body."""
        assert (await self.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")

    async def answer(self) -> tuple[int, bytes, Any]:
        """Status, head and body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        return int(head.split()[1]), head, orjson.loads(body)


@asynccontextmanager
async def connection(api: Client) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout expires, however slow this machine is."""
    monkeypatch.setattr(listening, "LAST_REQUEST_S", HOUR_S)
    monkeypatch.setattr(listening, "SHUTDOWN_S", HOUR_S)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Incomplete requests time out at once."""
    monkeypatch.setattr(listening, "LAST_REQUEST_S", 0.0)
    monkeypatch.setattr(listening, "SHUTDOWN_S", 0.0)


async def closing(api: Client) -> asyncio.Task[None]:
    """The task of a close that has begun: no new connection is accepted."""
    task = asyncio.create_task(api.listening.close())
    while True:
        try:
            async with connection(api):
                await asyncio.sleep(0)
        except ConnectionError:
            return task


async def submissions(api: Client) -> int:
    log = api.service.log
    return sum(isinstance(each.event, JobSubmitted) for each in await log.read(0, 1000))


@pytest.mark.usefixtures("patient")
async def test_a_request_is_answered_whose_body_comes_during_a_shutdown(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    async with connection(api) as one:
        one.begin("/v1/jobs", len(BODY))
        await one.wait_until_read()
        closed = await closing(api)
        one.writer.write(BODY)
        status, head, job = await one.answer()
        assert (status, job["type"]) == (202, "echo")
        assert b"\r\nconnection: close\r\n" in head
        assert await one.reader.read() == b""
    await closed
    assert await submissions(api) == 1


@pytest.mark.usefixtures("patient")
async def test_who_was_told_that_the_connection_stays_is_answered_once_more(
    client: Connect,
) -> None:
    """A client that sends its next request just when the shutdown begins is not cut off."""
    api = await client(echo, concurrency=0)
    path = (await api.submit("echo"))["links"]["self"]
    async with connection(api) as one, connection(api) as other:
        for each in (one, other):
            each.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            status, head, _ = await each.answer()
            assert (status, b"\r\nconnection: close\r\n" in head) == (200, False)
        closed = await closing(api)
        one.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        other.writer.write(b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for each, expected in ((one, 200), (other, 404)):
            status, head, _ = await each.answer()
            assert status == expected
            assert b"\r\nconnection: close\r\n" in head
            assert await each.reader.read() == b""
    await api.session.close()
    await closed


@pytest.mark.usefixtures("impatient")
async def test_a_connection_without_a_request_is_closed(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    async with connection(api) as idle, connection(api) as half:
        half.writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: loc")
        await api.listening.close()
        for each in (idle, half):
            assert await each.reader.read() == b""
    assert await submissions(api) == 0


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_does_not_come_cannot_hold_a_shutdown(client: Connect) -> None:
    """The refusal shows the client that its request was not carried out."""
    api = await client(echo, concurrency=0)
    async with connection(api) as one:
        one.begin("/v1/jobs", len(BODY))
        await one.wait_until_read()
        one.writer.write(BODY[:5])
        closed = await closing(api)
        status, head, problem = await one.answer()
        assert (status, problem["code"]) == (503, "not_ready")
        assert b"\r\nconnection: close\r\n" in head
    await closed
    assert await submissions(api) == 0


@pytest.mark.usefixtures("impatient")
async def test_the_lines_of_a_batch_that_came_are_answered(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    async with connection(api) as one:
        one.begin("/v1/jobs/batch", 1000, "application/x-ndjson")
        await one.wait_until_read()
        one.writer.write(BODY + b"\n" + BODY + b"\n" + BODY[:5])
        await api.service.log.wait(1)
        closed = await closing(api)
        answer = await one.reader.readuntil(b"0\r\n\r\n")
    await closed
    lines = [orjson.loads(each) for each in answer.splitlines() if each.startswith(b"{")]
    assert [(each["line"], each["status"]) for each in lines] == [(1, 202), (2, 202), (3, 503)]
    assert lines[2]["error"]["code"] == "not_ready"
    assert await submissions(api) == 2


async def test_one_more_address_serves_the_same_and_closes_with_the_first(client: Connect) -> None:
    api = await client(echo, connections_max=1)
    await api.listening.add("127.0.0.1", 0)
    first, second = api.listening.urls
    assert (first, first != second) == (api.listening.url, True)
    port = int(second.rpartition(":")[2])
    # The client has an open connection to the first address: the limit counts over both.
    assert (await api.get("/healthz")).status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()
    await api.listening.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_an_address_that_is_not_loopback_is_not_added(client: Connect) -> None:
    api = await client(echo)
    with pytest.raises(InvalidInput, match="without authentication"):
        await api.listening.add("0.0.0.0", 0)
    assert len(api.listening.urls) == 1

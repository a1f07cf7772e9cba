"""Limits of connections: the time and the size of a head, and how many may be open."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from eventjobs.http import protocol
from eventjobs.http.connection_limits import ConnectionLimits
from eventjobs.http.refusals import HEAD_BYTES_MAX
from eventjobs.http.request_errors import TooManyConnections, TooManyConnectionsOfAddress
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import echo

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGUN = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "


class Connection:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the next response."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, orjson.loads(body)

    async def end(self) -> bytes:
        """What is sent until the service ends its side."""
        return await asyncio.wait_for(self.reader.read(), 20)


@asynccontextmanager
async def connection(api: Client, source: str = "127.0.0.1") -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(
        api.listening.host, api.listening.port, local_addr=(source, 0)
    )
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110  the fact has no event
            await asyncio.sleep(0)


async def wait_for_head(api: Client, size: int) -> None:
    """Return when the only connection has received *size* bytes of an incomplete head."""
    await until(lambda: [each._head_bytes for each in api.listening.connections] == [size])


async def open_connections(api: Client, count: int) -> None:
    await until(lambda: len(api.listening.connections) == count)


# --- slow heads


async def test_a_head_that_arrives_byte_by_byte_is_answered_408(
    client: Connect, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte came within the timeout of an idle connection, which is a minute."""
    caplog.set_level("INFO")
    api = await client(echo, clock=clock, head_timeout_s=15)
    async with connection(api) as one:
        one.writer.write(BEGUN)
        await wait_for_head(api, len(BEGUN))
        for number in range(1, 4):
            await clock.advance(4.9)
            one.writer.write(b"x")
            await wait_for_head(api, len(BEGUN) + number)
        await clock.advance(0.3)
        status, headers, problem = await one.answer()
        assert (status, problem["code"]) == (408, "head_timeout")
        assert problem["request_id"] == headers["x-request-id"]
        assert await one.end() == b""
    await open_connections(api, 0)
    assert "head_timeout" in caplog.text
    assert "unexpected" not in caplog.text


async def test_a_head_in_time_is_answered(client: Connect, clock: FakeClock) -> None:
    api = await client(echo, clock=clock, head_timeout_s=15)
    async with connection(api) as one:
        for _ in range(3):  # the time begins with the first byte of each
            one.writer.write(GET[:30])
            await wait_for_head(api, 30)
            await clock.advance(14.0)
            one.writer.write(GET[30:])
            assert (await one.answer())[0] == 200
            await clock.advance(16.0)


async def test_a_connection_without_a_request_is_closed_silently(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(echo, clock=clock, head_timeout_s=15)
    async with connection(api) as silent, connection(api) as empty:
        empty.writer.write(b"\r\n" * 9)
        await open_connections(api, 2)
        await clock.advance(15.1)
        assert await silent.end() == await empty.end() == b""


async def test_an_idle_connection_is_closed(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "KEEPALIVE_S", 0.2)
    api = await client(echo)
    async with connection(api) as one:
        one.writer.write(GET + b"\r\n")  # an empty line is no request
        assert (await one.answer())[0] == 200
        assert await one.end() == b""


async def test_a_slow_head_after_a_request_in_progress_is_answered_after_it(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(echo, clock=clock, concurrency=0, head_timeout_s=15, wait_max_s=20)
    here = (await api.submit("echo"))["links"]["self"]
    await api.session.close()
    await open_connections(api, 0)
    async with connection(api) as one:
        waits = f'GET {here} HTTP/1.1\r\nPrefer: wait=20\r\nIf-None-Match: "1"\r\n'.encode()
        one.writer.write(waits + b"Host: localhost\r\n\r\n")
        await api.wait_for_long_poll()
        one.writer.write(BEGUN)
        await wait_for_head(api, len(BEGUN))
        await clock.advance(15.1)
        one.writer.write(b"ignored")
        await clock.advance(5.0)
        assert (await one.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 304 ")
        status, _, problem = await one.answer()
        assert (status, problem["code"]) == (408, "head_timeout")
        assert await one.end() == b""


async def test_a_slow_body_has_the_limits_of_bodies(client: Connect, clock: FakeClock) -> None:
    api = await client(echo, clock=clock, head_timeout_s=1, body_timeout_s=30)
    async with connection(api) as one:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        one.writer.write(head + b"Content-Length: 15\r\nExpect: 100-continue\r\n\r\n")
        await one.reader.readuntil(b"100 Continue\r\n\r\n")
        [server_side] = api.listening.connections
        for number, each in enumerate(b'{"type":"echo"}', 1):
            body = server_side._request.content if server_side._request else None
            one.writer.write(bytes([each]))
            await until(lambda: body is None or body.total_bytes == number)  # noqa: B023
            await clock.advance(2.0)
        assert (await one.answer())[0] == 202
        one.writer.write(GET)
        assert (await one.answer())[0] == 200


# --- large heads


async def test_an_incomplete_head_has_a_limit_in_bytes(client: Connect) -> None:
    """128 fields of 8 KiB were a megabyte of memory for each connection."""
    api = await client(echo)
    async with connection(api) as one:
        one.writer.write(BEGUN[:-3])
        for number in range(100):
            one.writer.write(b"X%d: %b\r\n" % (number, b"x" * 4000))
        status, _, problem = await one.answer()
        assert (status, problem["code"]) == (431, "headers_too_large")
        assert problem["detail"] == f"a head has at most {HEAD_BYTES_MAX} bytes"


# --- clients that do not read


async def test_a_client_that_reads_no_response_is_disconnected(client: Connect) -> None:
    """It held its connection for ever, and up to a megabyte for each response."""
    api = await client(echo, concurrency=0, stall_s=0.5)
    here = (await api.submit("echo", "x" * 400_000))["links"]["self"]
    await api.session.close()
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(one, (api.listening.host, api.listening.port))
        sent = f"GET {here} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        await loop.sock_sendall(one, sent * 20)
        await open_connections(api, 1)
        [server_side] = api.listening.connections
        await until(lambda: server_side.writing_paused)
        async with asyncio.timeout(20):
            await api.listening.connections.wait_closed(20)
        assert len(api.listening.connections) == 0


# --- how many are open


async def test_connections_above_the_limit_are_answered_503(
    client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    api = await client(echo, connections_max=2)
    async with connection(api) as one, connection(api) as two:
        for each in (one, two):
            each.writer.write(GET)
            assert (await each.answer())[0] == 200
        for _ in range(5):
            async with connection(api) as more:
                more.writer.write(GET)
                status, headers, problem = await more.answer()
                assert (status, problem["code"]) == (503, "too_many_connections")
                assert headers["retry-after"] == "1"
                assert headers["connection"] == "close"
                assert problem["request_id"] == headers["x-request-id"]
                more.writer.write_eof()
                assert await more.end() == b""
        one.writer.close()
        await open_connections(api, 1)
        assert (await api.get("/healthz")).status == 200
    assert caplog.text.count("connections refused") == 1
    assert "too_many_connections" not in (await api.get("/openapi.json")).body.decode()


async def test_one_address_cannot_take_all_connections(
    client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    api = await client(echo, address_connections_max=1)
    async with connection(api, "127.0.0.2") as one, connection(api, "127.0.0.2") as two:
        one.writer.write(GET)
        assert (await one.answer())[0] == 200
        status, headers, problem = await two.answer()
        assert (status, problem["code"]) == (429, "too_many_connections_of_address")
        assert headers["retry-after"] == "1"
        async with connection(api, "127.0.0.3") as other:
            other.writer.write(GET)
            assert (await other.answer())[0] == 200
    await open_connections(api, 0)
    async with connection(api, "127.0.0.2") as again:
        again.writer.write(GET)
        assert (await again.answer())[0] == 200
    assert "address=127.0.0.2" in caplog.text


async def test_connections_from_a_trusted_proxy_are_of_many_clients(client: Connect) -> None:
    api = await client(
        echo, address_connections_max=1, trusted_proxies="127.0.0.2", auth="optional"
    )
    async with connection(api, "127.0.0.2") as one, connection(api, "127.0.0.2") as two:
        for each in (one, two):
            each.writer.write(GET)
            assert (await each.answer())[0] == 200


class From:
    """A transport of a client at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 1) if name == "peername" else None


def admit(limits: ConnectionLimits, address: str) -> str:
    transport: Any = From(address)
    return limits.admit(transport)


async def test_a_network_of_ipv6_is_one_client() -> None:
    limits = ConnectionLimits(100, 1, is_proxy=lambda _: False)
    admit(limits, "2001:db8::1")
    admit(limits, "2001:db8:0:1::1")
    admit(limits, "fe80::1%lo")
    for same in ("2001:db8::1", "2001:db8::ffff:1", "fe80::2%lo"):
        with pytest.raises(TooManyConnectionsOfAddress):
            admit(limits, same)


async def test_a_proxy_has_the_limit_of_all_alone() -> None:
    limits = ConnectionLimits(3, 1, is_proxy=lambda address: address == "10.0.0.1")
    admitted = [admit(limits, each) for each in ("10.0.0.1", "10.0.0.1", "10.0.0.2")]
    with pytest.raises(TooManyConnections):
        admit(limits, "10.0.0.1")
    for each in admitted:
        limits.release(each)
    for each in ("10.0.0.2", "10.0.0.1", "10.0.0.1"):
        admit(limits, each)

"""Reading a request's body: media types, length and time."""

import asyncio

import pytest

from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_jobs import HANDLERS
from tests.support.waiting import time_passing

ECHO = b'{"type":"echo"}'
CHUNKED = (
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
async def test_only_plain_json_is_read(client: Connect, headers: dict[str, str]) -> None:
    api = await client(*HANDLERS)
    reply = await api(
        "POST",
        "/v1/jobs",
        data=b'{"type":"echo"}',
        headers=headers,
        skip_auto_headers=["Content-Type"],
    )
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge+json"])
async def test_json_may_be_called_more_exactly(client: Connect, kind: str) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers={"Content-Type": kind})
    assert reply.status == 202


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("size", [1024, 1025])
async def test_a_body_without_a_length_is_limited_too(client: Connect, size: int) -> None:
    """It has arrived before it is read."""
    api = await client(*HANDLERS, body_bytes_max=1024)
    answer = await api.raw(CHUNKED + b"\r\n" + chunk(ECHO.ljust(size)) + chunk(b""))
    assert_limited(answer, size)


@pytest.mark.parametrize("size", [1024, 1025])
async def test_a_body_that_arrives_in_parts_is_limited_before_its_end(
    client: Connect, clock: FakeClock, size: int
) -> None:
    api = await client(*HANDLERS, clock=clock, body_bytes_max=1024)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(CHUNKED + b"Expect: 100-continue\r\n\r\n")
    await reader.readuntil(b"100 Continue\r\n\r\n")
    for part in (ECHO, b" " * 600, b" " * (size - len(ECHO) - 600)):
        writer.write(chunk(part))
        await clock.advance(1.0)
    if size == 1024:
        writer.write(chunk(b""))
    answer = await time_passing(clock, reader.readuntil(b"}"))
    writer.close()
    assert_limited(answer, size)


def assert_limited(answer: bytes, size: int) -> None:
    assert answer.startswith(b"HTTP/1.1 202 " if size == 1024 else b"HTTP/1.1 413 ")
    assert (b'"code":"too_large"' in answer) == (size > 1024)


async def test_a_body_that_stops_coming_is_given_up(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    answer = await time_passing(clock, api.raw(head), 10.0)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in answer


async def test_a_broken_body_is_a_bad_request(client: Connect) -> None:
    api = await client(*HANDLERS)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    answer = await api.raw(head)
    assert answer.startswith(b"HTTP/1.0 400 ")  # aiohttp's version for an unreadable request
    assert b'"code":"bad_request"' in answer
    assert api.service.log.head == 0

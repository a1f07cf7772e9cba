"""Requests arrive as they are sent, and responses are bounded in size and time."""

import asyncio
import socket

import pytest
from aiohttp import web

from eventjobs.clock import SystemClock
from eventjobs.errors import OutboundFailed, OutboundTimeout
from eventjobs.outbound.client import OutboundClient, OutboundResponse
from tests.support.clock import FakeClock
from tests.support.external_service import http_server
from tests.support.outbound import post
from tests.support.waiting import time_passing

#: The blocks of IANA's special-purpose registries, as they are shipped.


# --- the request


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    paths = []

    async def handle(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "http://169.254.169.254/secret"})

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        assert (await post(outbound, f"http://127.0.0.1:{port}/a")).status == 307
    assert paths == ["/a"]


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up by itself."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="direct")

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        assert (await post(outbound, f"http://127.0.0.1:{port}/")).body == b"direct"


# --- the response


async def test_what_is_sent_arrives_as_it_is() -> None:
    seen: list[tuple[str, bytes, dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, await request.read(), dict(request.headers)))
        return web.json_response({"ok": True}, status=202)

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        headers = {"Content-Type": "application/json", "X-One": "1"}
        url = f"http://127.0.0.1:{port}/"
        answer = await outbound.post(url, b'{"a":1}', headers, timeout_s=10.0)
    assert answer == OutboundResponse(202, b'{"ok": true}')
    [(method, body, received)] = seen
    assert (method, body) == ("POST", b'{"a":1}')
    assert received["Content-Type"] == "application/json"
    assert received["X-One"] == "1"
    assert "Accept-Encoding" not in received


@pytest.mark.parametrize(("header", "seconds"), [("120", 120.0), ("soon", None), ("-1", None)])
async def test_an_answer_can_say_when_to_ask_again(header: str, seconds: float | None) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": header})

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        answer = await post(outbound, f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.retry_after_s) == (503, seconds)


async def test_an_answer_is_read_so_far_and_no_further() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1_000_000)

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        url = f"http://127.0.0.1:{port}/"
        answer = await outbound.post(url, b"", {}, timeout_s=10.0, response_bytes_max=1000)
    assert answer == OutboundResponse(200, b"x" * 1000, whole=False)


async def test_a_body_that_is_packed_small_is_not_unpacked() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        assert (await post(outbound, f"http://127.0.0.1:{port}/")).body == b"not gzip"


@pytest.mark.parametrize("begins", [False, True])
async def test_a_slow_answer_is_waited_for_so_long(begins: bool) -> None:
    """From the beginning to the end of it, however steadily it drips."""
    clock = FakeClock()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begins:
            await response.prepare(request)
            await response.write(b"x")
        await asyncio.Event().wait()
        return response

    async with http_server(handle) as port, OutboundClient(clock, "127.0.0.1") as outbound:
        began_s = clock.monotonic_s()
        with pytest.raises(OutboundTimeout, match="30 s"):
            await time_passing(clock, post(outbound, f"http://127.0.0.1:{port}/", 30.0), 1.0)
        assert 30.0 <= clock.monotonic_s() - began_s <= 31.0


async def test_nobody_there_is_a_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening
        async with OutboundClient(SystemClock(), "127.0.0.1") as outbound:
            with pytest.raises(OutboundFailed, match="no connection could be made"):
                await post(outbound, f"http://127.0.0.1:{taken.getsockname()[1]}/")


async def test_an_answer_that_breaks_off_is_a_failure() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with http_server(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        with pytest.raises(OutboundFailed, match="the connection broke"):
            await post(outbound, f"http://127.0.0.1:{port}/")


async def test_what_is_under_way_is_cut_off_by_closing() -> None:
    arrived = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        return web.Response()

    async with http_server(handle) as port:
        outbound = OutboundClient(SystemClock(), "127.0.0.1")
        asking = asyncio.create_task(post(outbound, f"http://127.0.0.1:{port}/"))
        await arrived.wait()
        await outbound.close()
        with pytest.raises(OutboundFailed):
            await asking

"""A name is resolved for each request, and only its allowed addresses are contacted."""

import asyncio
import socket
import threading
from typing import Any

import pytest
from aiohttp import web

from eventjobs.clock import SystemClock
from eventjobs.errors import OutboundFailed, OutboundRefused, OutboundTimeout
from eventjobs.outbound.client import OutboundClient
from tests.support.clock import FakeClock
from tests.support.external_service import http_server
from tests.support.outbound import PreparedResolver, post
from tests.support.waiting import time_passing


async def test_a_name_that_is_allowed_and_then_not_is_refused_when_it_is_connected_to() -> None:
    """Checked first and fetched after, the second answer would reach what is behind the wall."""
    reached = []

    async def handle(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async with http_server(handle) as port:
        # 127.0.0.2 stands for a public address at which no server listens.
        names = PreparedResolver("127.0.0.2", "127.0.0.1")
        async with OutboundClient(SystemClock(), f"127.0.0.2:{port}", resolver=names) as outbound:
            url = f"http://rebinding.example:{port}/"
            outbound.policy.check(url)
            with pytest.raises(OutboundFailed):
                await post(outbound, url)
            with pytest.raises(OutboundRefused):
                await post(outbound, url)
    assert names.answers == []  # asked once for each connection, and never again
    assert reached == []


async def test_a_name_is_looked_up_for_each_request_and_no_connection_outlives_its_address() -> (
    None
):
    async def handle(request: web.Request) -> web.Response:
        return web.Response()

    async with http_server(handle) as port:
        names = PreparedResolver("127.0.0.1", "127.0.0.2")
        async with OutboundClient(SystemClock(), "127.0.0.1", resolver=names) as outbound:
            url = f"http://rebinding.example:{port}/"
            assert (await post(outbound, url)).status == 200
            with pytest.raises(OutboundRefused):
                await post(outbound, url)


@pytest.mark.parametrize("answers", ["127.0.0.2 127.0.0.3 127.0.0.1", "127.0.0.3 127.0.0.2"])
async def test_of_the_addresses_of_a_name_only_allowed_ones_are_contacted(answers: str) -> None:
    contacted: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        contacted.append(writer.get_extra_info("sockname")[0])
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.2", 0) as refused:
        port: int = refused.sockets[0].getsockname()[1]
        also_refused = await asyncio.start_server(accept, "127.0.0.3", port)
        allowed = await asyncio.start_server(accept, "127.0.0.1", port)
        async with also_refused, allowed:
            names = PreparedResolver(answers)
            async with OutboundClient(SystemClock(), "127.0.0.1", resolver=names) as outbound:
                with pytest.raises((OutboundFailed, OutboundRefused)):
                    await post(outbound, f"http://mixed.example:{port}/")
    assert contacted == (["127.0.0.1"] if "127.0.0.1" in answers else [])


async def test_a_name_server_that_is_silent_holds_up_its_own_requests_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = threading.Event()
    asked = []

    def getaddrinfo(host: str, *arguments: object, **more: object) -> None:
        asked.append(host)
        answer.wait()
        raise OSError("the name server is silent")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    clock = FakeClock()
    async with OutboundClient(clock) as outbound:
        asking = [post(outbound, f"https://{number}.example/") for number in range(100)]
        waiting = asyncio.gather(*asking, return_exceptions=True)
        while len(asked) < 100:
            await asyncio.to_thread(str)  # there is a thread for this, all the time
        looking = [each for each in threading.enumerate() if each.name.startswith("lookup ")]
        assert all(each.daemon for each in looking), "the process could not exit"
        outcomes = await time_passing(clock, waiting_for(waiting), 5.0)
        answer.set()
        for each in looking:
            await asyncio.to_thread(each.join)
    assert {type(each) for each in outcomes} == {OutboundTimeout}


async def waiting_for(waiting: "asyncio.Future[list[Any]]") -> list[Any]:
    return await waiting


async def test_a_name_that_there_is_not_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*arguments: object, **more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with OutboundClient(SystemClock()) as outbound:
        with pytest.raises(OutboundFailed, match="there is no such host"):
            await post(outbound, "https://nobody.example/")


async def test_a_name_of_this_machine_is_looked_up_as_the_system_does() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="here")

    async with http_server(handle) as port, OutboundClient(SystemClock(), "localhost") as outbound:
        assert (await post(outbound, f"http://localhost:{port}/")).body == b"here"

"""What this service sends to addresses that somebody gave it, and what it refuses to."""

import asyncio
import csv
import ipaddress
import socket
import threading
from importlib.resources import files
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import SystemClock
from eventjobs.errors import InvalidInput, OutboundFailed, OutboundRefused, OutboundTimeout
from eventjobs.outbound.address_policy import AddressPolicy
from eventjobs.outbound.client import OutboundClient, OutboundResponse
from eventjobs.outbound.signing import signature
from tests.support.clock import FakeClock
from tests.support.external_service import somebody
from tests.support.waiting import time_passing

#: The blocks of IANA's special-purpose registries, as they are shipped.
REGISTRY = (
    files("eventjobs.outbound").joinpath("special_purpose_addresses.csv").read_text().splitlines()
)
BLOCKS = [row["Address Block"] for row in csv.DictReader(REGISTRY)]


class Names(AbstractResolver):
    """A resolver that answers with the next of what was prepared."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0).split()
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in addresses
        ]

    async def close(self) -> None:
        pass


async def post(outbound: OutboundClient, url: str, timeout_s: float = 10.0) -> OutboundResponse:
    return await outbound.post(
        url, b"{}", {"Content-Type": "application/json"}, timeout_s=timeout_s
    )


async def refuses(outbound: OutboundClient, url: str) -> bool:
    try:
        await post(outbound, url)
    except OutboundRefused:
        return True
    return False


# --- where it goes


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.51.100.7"),
        *("::", "::1", "fe80::1", "fd00::1", "fec0::1", "ff0e::1", "2001:db8::1", "2001::1"),
        # an IPv4 address in one of version 6: mapped, compatible, NAT64, 6to4
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1"),
        *("2002:7f00:1::", "2002:a00:1::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Judged only: nothing is sent to such an address, also when the judgement should be wrong."""
    outbound = OutboundClient(SystemClock())
    with pytest.raises(OutboundRefused):
        outbound.policy.check(f"http://[{address}]/" if ":" in address else f"http://{address}/")
    assert not outbound.policy.allows("name.example", address, 80)


@pytest.mark.parametrize("block", BLOCKS)
def test_no_address_of_a_special_purpose_block_is_public(block: str) -> None:
    network = ipaddress.ip_network(block)
    outbound = OutboundClient(SystemClock())
    for address in (network[0], network[-1]):
        assert not outbound.policy.allows("name.example", str(address), 443)


def test_the_special_purpose_blocks_are_those_of_both_registries() -> None:
    networks = [ipaddress.ip_network(block) for block in BLOCKS]
    assert sum(each.version == 4 for each in networks) == 26
    assert sum(each.version == 6 for each in networks) == 25
    # 6to4 relays and AS112: routed everywhere, and nobody's web server.
    assert {"192.88.99.0/24", "192.31.196.0/24", "2620:4f:8000::/48"} <= set(BLOCKS)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "192.88.98.1"])
def test_a_public_address_is_talked_to_on_the_ports_of_the_web_alone(address: str) -> None:
    outbound = OutboundClient(SystemClock())
    assert outbound.policy.allows("name.example", address, 443)
    assert outbound.policy.allows("name.example", address, 80)
    assert not outbound.policy.allows("name.example", address, 22)
    assert not outbound.policy.allows("name.example", address, 8080)


@pytest.mark.parametrize(
    "url",
    [
        *("", "name.example", "//name.example/", "ftp://name.example/", "file:///etc/passwd"),
        *("http:///path", "http://name.example:99999/", "http://[::1/", "http://[fe80::1%25lo]/"),
        *("http://user:word@name.example/", "http://user@name.example/"),
        # what the C library takes for 127.0.0.1
        *("http://2130706433/", "http://127.1/", "http://017700000001/", "http://127.0.0.1./"),
        *("http://0x7f.1/", "http://0x7f000001/", "http://localhost/"),
    ],
)
async def test_what_is_no_address_of_the_web_is_refused(url: str) -> None:
    async with OutboundClient(SystemClock()) as outbound:
        assert await refuses(outbound, url)


async def test_a_name_that_is_allowed_and_then_not_is_refused_when_it_is_connected_to() -> None:
    """Checked first and fetched after, the second answer would reach what is behind the wall."""
    reached = []

    async def handle(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async with somebody(handle) as port:
        # 127.0.0.2 stands for a public address at which no server listens.
        names = Names("127.0.0.2", "127.0.0.1")
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

    async with somebody(handle) as port:
        names = Names("127.0.0.1", "127.0.0.2")
        async with OutboundClient(SystemClock(), "127.0.0.1", resolver=names) as outbound:
            url = f"http://rebinding.example:{port}/"
            assert (await post(outbound, url)).status == 200
            with pytest.raises(OutboundRefused):
                await post(outbound, url)


@pytest.mark.parametrize("answers", ["127.0.0.2 127.0.0.3 127.0.0.1", "127.0.0.3 127.0.0.2"])
async def test_of_the_addresses_of_a_name_only_allowed_ones_are_contacted(answers: str) -> None:
    contacted: list[str] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        contacted.append(writer.get_extra_info("sockname")[0])
        writer.close()

    async with await asyncio.start_server(accepted, "127.0.0.2", 0) as refused:
        port: int = refused.sockets[0].getsockname()[1]
        also_refused = await asyncio.start_server(accepted, "127.0.0.3", port)
        allowed = await asyncio.start_server(accepted, "127.0.0.1", port)
        async with also_refused, allowed:
            names = Names(answers)
            async with OutboundClient(SystemClock(), "127.0.0.1", resolver=names) as outbound:
                with pytest.raises((OutboundFailed, OutboundRefused)):
                    await post(outbound, f"http://mixed.example:{port}/")
    assert contacted == (["127.0.0.1"] if "127.0.0.1" in answers else [])


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    paths = []

    async def handle(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "http://169.254.169.254/secret"})

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        assert (await post(outbound, f"http://127.0.0.1:{port}/a")).status == 307
    assert paths == ["/a"]


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look the name up by itself."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="direct")

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        assert (await post(outbound, f"http://127.0.0.1:{port}/")).body == b"direct"


# --- what is allowed besides


@pytest.mark.parametrize(
    ("allow", "host", "address", "port"),
    [
        ("127.0.0.0/8", "name", "127.0.0.1", 8000),
        ("127.0.0.0/8", "name", "::ffff:127.0.0.1", 8000),
        ("10.1.2.3", "name", "10.1.2.3", 1),
        ("analysis.internal", "analysis.internal", "10.9.9.9", 8000),
        ("Analysis.Internal.", "analysis.internal", "fd00::1", 8000),
        ("analysis.internal", "analysis.internal.", "10.9.9.9", 8000),
        ("localhost:8000", "localhost", "::1", 8000),
        ("10.0.0.0/8:8000", "name", "10.9.9.9", 8000),
        ("::1", "name", "::1", 8000),
        ("fd00::/8", "name", "fd12::1", 8000),
        ("[::1]:8000", "name", "::1", 8000),
        ("[fd00::/8]:8000", "name", "fd12::1", 8000),
        ("8.8.8.8:8443", "name", "8.8.8.8", 8443),
        (" a.internal , b.internal:1 ,", "b.internal", "10.0.0.1", 1),
    ],
)
def test_private_addresses_can_be_allowed(allow: str, host: str, address: str, port: int) -> None:
    assert AddressPolicy(allow).allows(host, address, port)
    assert not AddressPolicy().allows(host, address, port)


@pytest.mark.parametrize(
    ("allow", "host", "address", "port"),
    [
        ("127.0.0.0/8", "name", "10.0.0.1", 80),
        ("127.0.0.0/8", "name", "::1", 80),
        ("localhost:8000", "localhost", "127.0.0.1", 8001),
        ("10.0.0.0/8:8000", "name", "10.9.9.9", 80),
        ("[::1]:8000", "name", "::1", 80),
        ("analysis.internal", "evil.analysis.internal", "10.9.9.9", 80),
        ("analysis.internal", "analysis.internal.evil.example", "10.9.9.9", 80),
    ],
)
def test_and_nothing_else_is_allowed_by_it(allow: str, host: str, address: str, port: int) -> None:
    assert not AddressPolicy(allow).allows(host, address, port)


@pytest.mark.parametrize(
    "allow",
    ["10.1.2.3/8", "10.0.0.0/33", "10.0.0", "name:99999", "name:0", "a b", "http://name/", "[::1"],
)
def test_a_list_that_cannot_be_read_is_an_error(allow: str) -> None:
    with pytest.raises(InvalidInput):
        OutboundClient(SystemClock(), allow)


# --- what comes back


async def test_what_is_sent_arrives_as_it_is() -> None:
    seen: list[tuple[str, bytes, dict[str, str]]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, await request.read(), dict(request.headers)))
        return web.json_response({"ok": True}, status=202)

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        headers = {"Content-Type": "application/json", "X-One": "1"}
        url = f"http://127.0.0.1:{port}/"
        answer = await outbound.post(url, b'{"a":1}', headers, timeout_s=10.0)
    assert answer == OutboundResponse(202, b'{"ok": true}')
    [(method, body, received)] = seen
    assert (method, body) == ("POST", b'{"a":1}')
    assert received["Content-Type"] == "application/json"
    assert received["X-One"] == "1"
    assert "Accept-Encoding" not in received


@pytest.mark.parametrize(("said", "seconds"), [("120", 120.0), ("soon", None), ("-1", None)])
async def test_an_answer_can_say_when_to_ask_again(said: str, seconds: float | None) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": said})

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        answer = await post(outbound, f"http://127.0.0.1:{port}/")
    assert (answer.status, answer.retry_after_s) == (503, seconds)


async def test_an_answer_is_read_so_far_and_no_further() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1_000_000)

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        url = f"http://127.0.0.1:{port}/"
        answer = await outbound.post(url, b"", {}, timeout_s=10.0, response_bytes_max=1000)
    assert answer == OutboundResponse(200, b"x" * 1000, whole=False)


async def test_a_body_that_is_packed_small_is_not_unpacked() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
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

    async with somebody(handle) as port, OutboundClient(clock, "127.0.0.1") as outbound:
        began_s = clock.monotonic_s()
        with pytest.raises(OutboundTimeout, match="30 s"):
            await time_passing(clock, post(outbound, f"http://127.0.0.1:{port}/", 30.0), 1.0)
        assert 30.0 <= clock.monotonic_s() - began_s <= 31.0


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

    async with somebody(handle) as port, OutboundClient(SystemClock(), "localhost") as outbound:
        assert (await post(outbound, f"http://localhost:{port}/")).body == b"here"


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

    async with somebody(handle) as port, OutboundClient(SystemClock(), "127.0.0.1") as outbound:
        with pytest.raises(OutboundFailed, match="the connection broke"):
            await post(outbound, f"http://127.0.0.1:{port}/")


async def test_what_is_under_way_is_cut_off_by_closing() -> None:
    arrived = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        return web.Response()

    async with somebody(handle) as port:
        outbound = OutboundClient(SystemClock(), "127.0.0.1")
        asking = asyncio.create_task(post(outbound, f"http://127.0.0.1:{port}/"))
        await arrived.wait()
        await outbound.close()
        with pytest.raises(OutboundFailed):
            await asking


# --- signatures


def test_a_signature_is_one_that_the_library_of_the_standard_accepts() -> None:
    secret = MasterKey(bytes(32)).signing_secret("dispatch", "analyse")
    body = '{"name":"Zoë"}'.encode()
    now_us = SystemClock().now_us()
    headers = signature(secret, "msg_1", body, now_us)
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(now_us // 1_000_000)
    assert Webhook(secret).verify(body, headers) == {"name": "Zoë"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers | {"webhook-id": "msg_2"})


def test_a_signature_is_the_one_of_the_standards_own_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at_us = 1_614_265_330_000_000
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', at_us)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

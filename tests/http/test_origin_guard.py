"""Requests of other sites and other machines are refused."""

from typing import Any

import pytest

from eventjobs.errors import InvalidInput
from eventjobs.http.origin_guard import OriginGuard, check_host
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.request_errors import BadHost, Misdirected, RequestError
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", {"Host": "evil.example:8080"}, "misdirected"),
        ("GET", {"Host": "127.0.0.1.evil.example"}, "misdirected"),
        ("POST", {"Origin": "http://evil.example"}, "cross_origin"),
        ("POST", {"Origin": "null"}, "cross_origin"),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, "cross_origin"),
        ("POST", {"Sec-Fetch-Site": "same-site"}, "cross_origin"),
    ],
)
async def test_a_page_of_another_site_is_refused(
    client: Connect, method: str, headers: dict[str, str], code: str
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    await api.get(address)
    reply = await api(method, address + ("/cancel" if method == "POST" else ""), headers=headers)
    assert reply.code == code
    assert api.service.log.head == 1


async def test_our_own_pages_and_programs_may_come_in(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    here = f"127.0.0.1:{api.listening.port}"
    for headers in (
        {"Origin": f"http://{here}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{here}"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:1234"},
    ):
        reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=headers)
        assert reply.status == 202


def host_error(host: str, **settings: Any) -> type[RequestError] | None:
    return OriginGuard(Settings(**settings), TrustedProxies(())).host_error(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "127.0.0.1 "])
def test_only_loopback_is_listened_on_without_authentication(host: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_host(Settings(), host)
    for advice in ("EVENTJOBS_AUTH=required", "EVENTJOBS_ALLOWED_HOSTS", "eventjobs keys create"):
        assert advice in str(error.value)


@pytest.mark.parametrize("auth", ["optional", "required"])
def test_with_authentication_any_address_is_listened_on(auth: Any) -> None:
    for host in ("0.0.0.0", "::", "192.168.0.1", "jobs.example.com", "127.0.0.1"):
        check_host(Settings(auth=auth), host)


def test_allowed_hosts_without_authentication_are_refused() -> None:
    for hosts in ("*", "jobs.example.com"):
        with pytest.raises(InvalidInput, match="EVENTJOBS_ALLOWED_HOSTS needs authentication"):
            check_host(Settings(allowed_hosts=hosts), "127.0.0.1")
        assert host_error("jobs.example.com", allowed_hosts=hosts) is Misdirected


def test_loopback_has_several_names() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_host(Settings(), host)
    for host in (
        *("127.0.0.1:80", "[::1]:80", "[::1]", "app.localhost:80", "LOCALHOST"),
        *("localhost.", "LocalHost.:80", "127.0.0.1."),
    ):
        assert host_error(host) is None
    for host in ("", "localhost.evil.example", "10.0.0.1:80", "[2001:db8::1]:80"):
        assert host_error(host) is Misdirected


#: Names that resolve to the service's address in an attack by DNS rebinding.
OTHER_NAMES = [
    *(
        "evil.example",
        "evil.example:8080",
        "EVIL.example.",
        "localhost.evil.example",
        "localhost..",
    ),
    *(
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "evillocalhost",
        "jobs.example.com.evil.example",
    ),
    *("notjobs.example.com", "a.jobs.example.com", "example.com", "2130706433", "0x7f.1", "127.1"),
    *("", ".", "*", ".example.com", "jobs.example.com%2eevil"),
]


@pytest.mark.parametrize("host", OTHER_NAMES)
@pytest.mark.parametrize("auth", ["off", "optional", "required"])
def test_a_host_name_that_is_not_allowed_is_refused_in_every_mode(host: str, auth: str) -> None:
    assert host_error(host, auth=auth, allowed_hosts="jobs.example.com") is Misdirected


@pytest.mark.parametrize(
    "host",
    [
        *("jobs.example.com", "JOBS.Example.com:443", "jobs.example.com.", "jobs.example.com.:80"),
        *("10.1.2.3", "10.1.2.3:8080", "[2001:db8::1]", "[2001:DB8::1]:8080", "192.0.2.7:80"),
        *("b.dev", "a.b.dev", "A.b.DEV:1", "localhost:8080", "[::1]"),
    ],
)
def test_with_authentication_addresses_and_allowed_names_are_answered(host: str) -> None:
    """A probe of an orchestrator has the address of the container as its host."""
    assert host_error(host, auth="required", allowed_hosts="Jobs.example.com., .b.dev") is None


def test_any_name_is_allowed_by_an_asterisk() -> None:
    assert host_error("evil.example:80", auth="required", allowed_hosts="*") is None
    for host in ("a b", "jobs.example.com:99999", "[::1", "[fe80::1%eth0]", "a@b", "a/b"):
        assert host_error(host, auth="required", allowed_hosts="*") is BadHost


async def test_with_authentication_a_host_is_checked_in_every_place(client: Connect) -> None:
    api = await client(*HANDLERS, auth="required", allowed_hosts="jobs.example.com")
    for host in ("jobs.example.com", "192.0.2.7:8080", f"localhost:{api.listening.port}"):
        assert (await api.get("/healthz", Host=host)).status == 200
    assert (await api.get("/healthz", Host="evil.example")).code == "misdirected"
    for target, named, status in (
        (b"http://evil.example/healthz", b"jobs.example.com", 421),
        (b"http://jobs.example.com/healthz", b"evil.example", 421),
        (b"http://jobs.example.com/healthz", b"jobs.example.com", 200),
        (b"http://192.0.2.7/healthz", b"localhost", 200),
    ):
        head = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (target, named)
        assert (await api.raw(head)).startswith(b"HTTP/1.1 %d " % status)


async def test_a_host_of_an_untrusted_proxy_is_ignored(client: Connect) -> None:
    api = await client(*HANDLERS, auth="optional", trusted_proxies="192.0.2.0/24")
    named = {"X-Forwarded-Host": "localhost", "Forwarded": "for=127.0.0.1;host=localhost"}
    reply = await api("GET", "/healthz", headers={**named, "Host": "evil.example"})
    assert reply.code == "misdirected"
    named = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    assert (await api("GET", "/healthz", headers=named)).status == 200
    headers = {**named, "Origin": "http://evil.example"}
    assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=headers)).code == "cross_origin"


async def test_the_host_of_a_trusted_proxy_is_checked_besides_its_own(client: Connect) -> None:
    api = await client(
        *HANDLERS,
        concurrency=0,
        auth="optional",
        allowed_hosts="jobs.example.com",
        trusted_proxies="127.0.0.1",
    )
    for headers, code in (
        ({"X-Forwarded-Host": "evil.example"}, "misdirected"),
        ({"Forwarded": "host=evil.example"}, "misdirected"),
        ({"X-Forwarded-Host": "jobs.example.com", "Host": "evil.example"}, "misdirected"),
        ({"Forwarded": "host=jobs.example.com", "Host": "evil.example"}, "misdirected"),
        (
            {"X-Forwarded-Host": "jobs.example.com", "Origin": "https://evil.example"},
            "cross_origin",
        ),
    ):
        reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=headers)
        assert reply.code == code
    for headers in (
        {"X-Forwarded-Host": "jobs.example.com", "Origin": "https://jobs.example.com"},
        {"Forwarded": 'host="jobs.example.com:444"', "Origin": "https://jobs.example.com:444"},
        {"X-Forwarded-Host": "a b", "Forwarded": 'host="'},
    ):
        assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=headers)).status == 202

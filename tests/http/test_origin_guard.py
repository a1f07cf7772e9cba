"""Requests of other sites and other machines are refused."""

import pytest

from eventjobs.errors import InvalidInput
from eventjobs.http.origin_guard import check_loopback, host_error
from eventjobs.http.request_errors import Misdirected
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


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "127.0.0.1 "])
def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(InvalidInput, match="authenticat"):
        check_loopback(host)


def test_loopback_has_several_names() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_loopback(host)
    for host in ("127.0.0.1:80", "[::1]:80", "[::1]", "app.localhost:80", "LOCALHOST"):
        assert host_error(host) is None
    for host in ("", "localhost.evil.example", "10.0.0.1:80", "[2001:db8::1]:80"):
        assert host_error(host) is Misdirected

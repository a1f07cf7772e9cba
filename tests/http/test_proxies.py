"""The client behind trusted proxies, as Forwarded and X-Forwarded-* describe it."""

import time
from ipaddress import ip_address

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from eventjobs.http.headers import host_name
from eventjobs.http.proxies import FORWARDED_CHARS_MAX, HOPS_MAX, OriginalRequest, TrustedProxies
from eventjobs.settings import Settings

CLIENT = "203.0.113.7"
PROXY = "10.0.0.1"

Headers = list[tuple[str, str]]


def original(headers: Headers, peer: str = PROXY, trusted: str = "10.0.0.0/8") -> OriginalRequest:
    request = make_mocked_request("GET", "/", CIMultiDict(headers)).clone(remote=peer)
    return TrustedProxies(Settings(trusted_proxies=trusted).trusted_proxies).original(request)


def from_forwarded(*values: str) -> OriginalRequest:
    return original([("Forwarded", value) for value in values])


def from_x_forwarded(
    client: str, proto: str | None = None, host: str | None = None
) -> OriginalRequest:
    named = {"X-Forwarded-For": client, "X-Forwarded-Proto": proto, "X-Forwarded-Host": host}
    return original([(name, value) for name, value in named.items() if value is not None])


DIRECT = OriginalRequest(PROXY, "http", None)
SPOOFED = [
    ("Forwarded", "for=192.0.2.9;proto=https;host=evil.example"),
    ("X-Forwarded-For", "192.0.2.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
]


@pytest.mark.parametrize("peer", [CLIENT, "::1", "2001:db8::1", "", "11.0.0.1", "unix"])
def test_headers_of_other_peers_are_ignored(peer: str) -> None:
    assert original(SPOOFED, peer) == OriginalRequest(peer, "http", None)
    assert original(SPOOFED, peer, trusted="") == OriginalRequest(peer, "http", None)


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("10.9.8.7", "10.0.0.0/8"),
        ("10.0.0.1", "192.0.2.0/24, 10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fd00::5", "fd00::/8"),
        ("::1", "127.0.0.1,::1"),
    ],
)
def test_a_trusted_proxy_is_an_address_or_in_a_network(peer: str, trusted: str) -> None:
    assert original(SPOOFED, peer, trusted) == ("192.0.2.9", "https", "evil.example")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"for={CLIENT}", (CLIENT, "http", None)),
        (f'For="{CLIENT}:4711";Proto=HTTPS', (CLIENT, "https", None)),
        ('for="[2001:db8:CAFE::17]:4711"', ("2001:db8:cafe::17", "http", None)),
        (
            'for="[2001:db8::17]"; proto=https; host="[2001:db8::1]:8443"',
            ("2001:db8::17", "https", "[2001:db8::1]:8443"),
        ),
        (
            f"for={CLIENT};by=10.0.0.1;host=jobs.example.com;x=y",
            (CLIENT, "http", "jobs.example.com"),
        ),
        (f'for={CLIENT};ext="a, for=1.1.1.1; \\" b"', (CLIENT, "http", None)),
        (f';;for="{CLIENT[:5]}\\{CLIENT[5:]}";', (CLIENT, "http", None)),
        (f'for={CLIENT};host="jobs.example.com:443"', (CLIENT, "http", "jobs.example.com:443")),
        # the last proxy saw 10.0.0.2, and that one saw the client
        (
            f"for=1.1.1.1, for={CLIENT};proto=https, for=10.0.0.2;proto=http",
            (CLIENT, "https", None),
        ),
        (f"for={CLIENT};host=a.example, for=10.0.0.2", (CLIENT, "http", "a.example")),
        (f"for={CLIENT}, for=10.0.0.2;host=a.example", (CLIENT, "http", "a.example")),
        ("for=10.0.0.3, for=10.0.0.2", ("10.0.0.3", "http", None)),
        # an unknown node ends the chain
        ("for=1.1.1.1, for=unknown;proto=https", (PROXY, "https", None)),
        ('for=1.1.1.1, for="_hidden", for=10.0.0.2', ("10.0.0.2", "http", None)),
        ("proto=https;host=jobs.example.com", (PROXY, "https", "jobs.example.com")),
        # an ill-formed value of a well-formed pair is ignored
        (f'for={CLIENT};proto=ftp;host="a b"', (CLIENT, "http", None)),
        (f'for={CLIENT};host="a:99999"', (CLIENT, "http", None)),
        ("for=999.1.1.1;proto=https", (PROXY, "https", None)),
        ('for="[::1"', DIRECT),
        ('for="10.0.0.2:"', DIRECT),
    ],
)
def test_forwarded_is_read_as_in_rfc_7239(value: str, expected: OriginalRequest) -> None:
    assert from_forwarded(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        'for="1.1.1.1',
        'for=", for="[2001:db8::1]"',
        f'for=1.1.1.1;x=", for="{CLIENT}"',
        "for=1.1.1.1;for=2.2.2.2",
        "for=2001:db8::1",
        "for 1.1.1.1",
        "for=",
        "=1.1.1.1",
        "1.1.1.1",
        "for=1.1.1.1 proto=https",
        "for=1.1.1.1;pro to=https",
        'for="1.1.1.1"x',
        "for=\N{LATIN SMALL LETTER E WITH ACUTE}",
        f"for=1.1.1.1{';' * FORWARDED_CHARS_MAX}",
    ],
)
def test_a_malformed_forwarded_says_nothing(value: str) -> None:
    assert from_forwarded(value) == DIRECT
    assert from_forwarded(value, f"for={CLIENT}") == DIRECT


def test_forwarded_may_have_several_lines() -> None:
    assert from_forwarded("for=1.1.1.1", f"for={CLIENT};proto=https") == (CLIENT, "https", None)
    assert from_forwarded(f"for={CLIENT}, for=10.0.0.3", "", "for=10.0.0.2") == (
        CLIENT,
        "http",
        None,
    )


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (CLIENT, CLIENT),
        (f" {CLIENT}:4711 ", CLIENT),
        ("2001:DB8::17", "2001:db8::17"),
        ("[2001:db8::17]:4711", "2001:db8::17"),
        (f"1.1.1.1, {CLIENT}", CLIENT),
        (f"garbage, {CLIENT}", CLIENT),
        (f"1.1.1.1, {CLIENT},10.0.0.3 , 10.0.0.2", CLIENT),
        ("10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("1.1.1.1, garbage", PROXY),
        ("1.1.1.1, garbage, 10.0.0.2", "10.0.0.2"),
        ("1.1.1.1,, 10.0.0.2", "10.0.0.2"),
        ("", PROXY),
        (", ".join(["1.1.1.1"] + ["10.0.0.2"] * HOPS_MAX), "10.0.0.2"),
    ],
)
def test_x_forwarded_for_is_followed_back_to_front(client: str, address: str) -> None:
    assert from_x_forwarded(client) == (address, "http", None)


@pytest.mark.parametrize(
    ("proto", "host", "scheme", "named"),
    [
        ("https", "a.example", "https", "a.example"),
        ("HTTPS", "a.example:8443", "https", "a.example:8443"),
        # the last one is of the nearest proxy, and the first one is the client's own
        ("http, https, http", "evil.example, a.example, inner", "https", "a.example"),
        ("https, http", "a.example, inner", "https", "a.example"),
        ("gopher", "a b", "http", None),
        ("", "", "http", None),
    ],
)
def test_scheme_and_host_are_those_of_the_first_proxy(
    proto: str, host: str, scheme: str, named: str | None
) -> None:
    assert from_x_forwarded(f"1.1.1.1, {CLIENT}, 10.0.0.2", proto, host) == (CLIENT, scheme, named)


def test_scheme_and_host_count_without_an_address() -> None:
    headers = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a.example")]
    assert original(headers) == (PROXY, "https", "a.example")


def test_forwarded_counts_before_x_forwarded_of_the_same_client() -> None:
    headers = [
        ("Forwarded", f"for={CLIENT};host=a.example;proto=https"),
        ("X-Forwarded-Host", "b.example"),
        ("X-Forwarded-Proto", "http"),
    ]
    assert original(headers) == (CLIENT, "https", "a.example")
    assert original([*headers, ("X-Forwarded-For", CLIENT)]) == (CLIENT, "https", "a.example")


@pytest.mark.parametrize("value", ["for=1.1.1.1;proto=https;host=evil.example", 'for="', "host=a"])
def test_a_header_that_the_proxy_passed_on_names_nobody(value: str) -> None:
    """A proxy sets one of the two headers, and passes the other on from the client."""
    headers = [("Forwarded", value), ("X-Forwarded-For", CLIENT)]
    assert original(headers) == DIRECT
    headers = [("Forwarded", f"for={CLIENT}"), ("X-Forwarded-For", "1.1.1.1")]
    assert original(headers) == DIRECT


def test_a_client_with_tls_is_secure() -> None:
    request = make_mocked_request("GET", "/", {"X-Forwarded-Proto": "https"}).clone(remote=PROXY)
    assert not TrustedProxies(()).is_secure(request)
    request = make_mocked_request("GET", "/", {"X-Forwarded-Proto": "https"}).clone(remote=PROXY)
    assert TrustedProxies(Settings(trusted_proxies=PROXY).trusted_proxies).is_secure(request)
    assert TrustedProxies(()).is_secure(make_mocked_request("GET", "/").clone(scheme="https"))


NODES = st.sampled_from([CLIENT, "10.0.0.2", '"[2001:db8::1]:80"', "unknown", "_x", "999.1.1.1"])
PIECES = st.sampled_from(
    ["for=", "proto=", "host=", "https", ",", ";", '"', "\\", " ", "=", "é", "\x85"]
)
TEXTS = st.lists(NODES | PIECES | st.text(max_size=3), max_size=8).map("".join)


@given(st.dictionaries(st.sampled_from([name for name, _ in SPOOFED]), TEXTS))
def test_no_header_is_an_error_or_leads_to_what_is_no_address(headers: dict[str, str]) -> None:
    address, scheme, host = original(list(headers.items()))
    assert str(ip_address(address)) == address
    assert scheme in ("http", "https")
    assert host is None or host_name(host)


@pytest.mark.parametrize(
    "headers",
    [
        [("Forwarded", " " * 8000 + "x")] * 100,
        [("Forwarded", " " * 8100)],
        [("Forwarded", "for=" + "a" * 8000 + "\\")],
        [("Forwarded", 'for="' + "\\" * 8001)],
        [("Forwarded", "for=10.0.0.2," * 620)],
        [("Forwarded", ",;" * 4000)],
        [("X-Forwarded-For", "10.0.0.2," * 900)] * 100,
        [("X-Forwarded-For", "," * 8000), ("X-Forwarded-Proto", "," * 8000)] * 50,
        [("X-Forwarded-For", "[" * 8000), ("X-Forwarded-Host", "a" * 8000)],
    ],
)
def test_huge_headers_take_no_time(headers: Headers) -> None:
    began = time.process_time()
    assert original(headers).address.startswith("10.0.0.")
    assert time.process_time() - began < 0.1

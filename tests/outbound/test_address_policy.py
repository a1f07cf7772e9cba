"""Requests reach public addresses on the web's ports, and what is allowed by name."""

import csv
import ipaddress
from importlib.resources import files

import pytest

from eventjobs.clock import SystemClock
from eventjobs.errors import InvalidInput, OutboundRefused
from eventjobs.outbound.address_policy import AddressPolicy
from eventjobs.outbound.client import OutboundClient
from tests.support.outbound import refuses

REGISTRY = (
    files("eventjobs.outbound").joinpath("special_purpose_addresses.csv").read_text().splitlines()
)


BLOCKS = [row["Address Block"] for row in csv.DictReader(REGISTRY)]


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
    # 6to4 relays and AS112: routed everywhere, and no web servers.
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

"""Which addresses requests may be sent to: the public internet, and what is allowed by name."""

import csv
import ipaddress
import re
from dataclasses import dataclass
from importlib.resources import files

from eventjobs.errors import InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _special_purpose() -> frozenset[Network]:
    """The blocks of IANA's two special-purpose address registries (RFC 6890).

    The file has their columns "Address Block", "Name" and "RFC", as published at
    iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
    """
    text = files("eventjobs.outbound").joinpath("special_purpose_addresses.csv").read_text("ascii")
    return frozenset(
        ipaddress.ip_network(row["Address Block"]) for row in csv.DictReader(text.splitlines())
    )


#: No address in them is public, also where the registry says "globally reachable": such an address
#: is that of a protocol, and never the one web server that a user has named.
SPECIAL_PURPOSE = _special_purpose()
#: Where the public may be talked to; everything else is named in outbound_allow.
PUBLIC_PORTS = frozenset({80, 443})
#: IPv6 addresses outside of it are not routed on the internet (RFC 4291, 2.4).
UNICAST = ipaddress.ip_network("2000::/3")


@dataclass(frozen=True, slots=True)
class AllowRule:
    """A host or a network that may be talked to, at one port or at all."""

    host: str | None
    network: Network | None
    port: int | None

    def matches(self, host: str, ip: Address, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return ip in self.network
        return host.rstrip(".").lower() == self.host


def parse_rule(text: str) -> AllowRule:
    """From "host", "host:80", "10.0.0.0/8", "10.0.0.0/8:80", "fd00::/8" or "[fd00::/8]:80"."""
    parts = re.fullmatch(r"(\[[^\[\]]+\]|[^:]+):(\d{1,5})", text)
    name, port = (parts[1], int(parts[2])) if parts else (text, None)
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if port is not None and not 0 < port < 65_536:
        raise InvalidInput(f"{text!r} has no port that there could be")
    try:
        return AllowRule(None, ipaddress.ip_network(name), port)
    except ValueError as error:
        if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9._-]+", name):
            raise InvalidInput(f"{text!r} is no host, address or network: {error}") from error
        return AllowRule(name.rstrip(".").lower(), None, port)


def parse_address(address: str) -> Address:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def is_public(ip: Address) -> bool:
    if ip.is_multicast or (ip.version == 6 and ip not in UNICAST):
        return False
    return not any(ip in block for block in SPECIAL_PURPOSE)


def refusal(host: str, port: int) -> str:
    return f"{host} port {port} is not public; EVENTJOBS_OUTBOUND_ALLOW can allow it"

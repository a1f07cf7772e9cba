"""The address policy: requests go to the public internet, and to what a setting allows."""

import csv
import ipaddress
import re
from dataclasses import dataclass
from importlib.resources import files

from yarl import URL

from eventjobs.errors import InvalidInput, OutboundRefused

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


#: Their addresses are not public. That includes blocks which the registry calls "globally
#: reachable": they belong to a protocol, and not to one web server.
SPECIAL_PURPOSE = _special_purpose()
#: The ports of public addresses. Others have to be allowed in outbound_allow.
PUBLIC_PORTS = frozenset({80, 443})
#: IPv6 addresses outside of it are not routed on the internet (RFC 4291, 2.4).
UNICAST = ipaddress.ip_network("2000::/3")


@dataclass(frozen=True, slots=True)
class AllowRule:
    """An allowed host or network, at one port or at every port."""

    host: str | None
    network: Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "AllowRule":
        """From "host", "host:80", "10.0.0.0/8", "10.0.0.0/8:80", "fd00::/8" or "[fd00::/8]:80".

        Raises InvalidInput.
        """
        parts = re.fullmatch(r"(\[[^\[\]]+\]|[^:]+):(\d{1,5})", text)
        name, port = (parts[1], int(parts[2])) if parts else (text, None)
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        if port is not None and not 0 < port < 65_536:
            raise InvalidInput(f"{text!r} has no port that there could be")
        try:
            return cls(None, ipaddress.ip_network(name), port)
        except ValueError as error:
            if not re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9._-]+", name):
                raise InvalidInput(f"{text!r} is no host, address or network: {error}") from error
            return cls(name.rstrip(".").lower(), None, port)

    def matches(self, host: str, ip: Address, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return ip in self.network
        return host.rstrip(".").lower() == self.host


class AddressPolicy:
    """Which addresses requests may be sent to.

    *allow* is a comma-separated list of hosts, addresses and networks, each with a port after a
    colon or without one for every port: `127.0.0.0/8, analysis.internal:8000`. An allowed host may
    have any address. Raises InvalidInput for a list that cannot be read.
    """

    def __init__(self, allow: str = "") -> None:
        self._rules = [AllowRule.parse(rule) for rule in map(str.strip, allow.split(",")) if rule]

    def check(self, url: str) -> URL:
        """*url*, parsed. Raises OutboundRefused if no request to it can be allowed.

        A host name is not resolved here: its addresses are checked when a connection is made.
        """
        try:
            target = URL(url)
            host, port = target.host, target.port
        except ValueError as error:
            raise OutboundRefused("this is not a URL") from error
        if target.scheme not in ("http", "https") or not host or not port:
            raise OutboundRefused("give a whole URL that begins with http:// or https://")
        if target.user is not None or target.password is not None:
            raise OutboundRefused("a URL must not contain a password: it would appear in logs")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return target
        self.check_addresses(host, [host], port)
        return target

    def check_addresses(self, host: str, addresses: list[str], port: int) -> list[str]:
        """The allowed ones of the *addresses* of *host*. Raises OutboundRefused without any."""
        allowed = [address for address in addresses if self.allows(host, address, port)]
        if not allowed:
            # The message has no address: what a name resolves to in this network is private.
            message = f"{host} port {port} is not public; EVENTJOBS_OUTBOUND_ALLOW can allow it"
            raise OutboundRefused(message)
        return allowed

    def allows(self, host: str, address: str, port: int) -> bool:
        """Whether a connection to *address*, an address of *host*, may be made at *port*."""
        ip = _parse_address(address)
        if any(rule.matches(host, ip, port) for rule in self._rules):
            return True
        return port in PUBLIC_PORTS and _is_public(ip)


def _parse_address(address: str) -> Address:
    """An IPv4-mapped IPv6 address is parsed as its IPv4 address."""
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def _is_public(ip: Address) -> bool:
    if ip.is_multicast or (ip.version == 6 and ip not in UNICAST):
        return False
    return not any(ip in block for block in SPECIAL_PURPOSE)

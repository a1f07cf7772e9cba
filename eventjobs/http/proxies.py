"""The client of a request behind proxies: Forwarded (RFC 7239) and X-Forwarded-*."""

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web

from eventjobs.http.headers import header_list, host_name
from eventjobs.settings.formats import Network

#: Proxies in a row that are followed, and the longest list of Forwarded that is read.
HOPS_MAX = 32
FORWARDED_CHARS_MAX = 8192

#: Possessive repetition keeps the time linear.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_PAIR = rf'{_WORD}=(?:{_WORD}|"(?:[^"\\]|\\.)*+")'
_SEPARATOR = r"[ \t]*+;[ \t]*+"
#: A member of the list.
_ELEMENT = re.compile(rf"[ \t]*+((?:{_PAIR})?+(?:{_SEPARATOR}(?:{_PAIR})?+)*+)[ \t]*+(?:,|$)")
_NAMED_VALUE = re.compile(rf'({_WORD})=(?:({_WORD})|"((?:[^"\\]|\\.)*+)")')
#: An address with or without a port. A port may be obfuscated (RFC 7239, 6).
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[A-Za-z0-9._-]+)?|([0-9A-Fa-f:.]+)")
_SCHEMES = frozenset({"http", "https"})


class OriginalRequest(NamedTuple):
    """What the client of a request sees: its own address, and the scheme and host that it used.

    The *host* has a port unless that is the scheme's own; it is None where no proxy named it, so
    that it is in the header Host. The *address* is empty where the transport has none.
    """

    address: str
    scheme: str
    host: str | None


class _Hop(NamedTuple):
    """What one proxy says of the request that it received. None: nothing, or malformed."""

    address: str | None
    scheme: str | None
    host: str | None


ORIGINAL = web.RequestKey("original", OriginalRequest)


class TrustedProxies:
    """Reads the client of a request from the headers of proxies at addresses in *networks*.

    Headers of other peers are ignored, because anybody can send them. Nothing here raises an error:
    a malformed value is ignored.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        #: Whether a proxy at this address is trusted.
        self.trusts: Callable[[str], bool] = lru_cache(maxsize=1024)(self._contains)

    def original(self, request: web.BaseRequest) -> OriginalRequest:
        """The request as its client sent it."""
        cached: OriginalRequest | None = request.get(ORIGINAL)
        if cached is not None:
            return cached
        peer = request.remote or ""
        original = OriginalRequest(peer, request.scheme, None)
        # A request that aiohttp cannot parse has no headers, as a plain dict.
        if self._networks and request.headers and self.trusts(peer):
            original = self._behind_proxy(request, original)
        request[ORIGINAL] = original
        return original

    def is_secure(self, request: web.BaseRequest) -> bool:
        """Whether the client uses TLS."""
        scheme = self.original(request).scheme if self._networks else request.scheme
        return scheme == "https"

    def base_url(self, request: web.BaseRequest) -> str:
        """The address of the service as the client uses it; empty where no header names a host."""
        original = self.original(request)
        host = original.host or request.headers.get("Host")
        return f"{original.scheme}://{host}" if host else ""

    def _behind_proxy(self, request: web.BaseRequest, direct: OriginalRequest) -> OriginalRequest:
        """Forwarded counts before X-Forwarded-*.

        Where a request has both, they have to name the same client: most proxies set only one of
        them and pass the other on as the client sent it.
        """
        original = direct
        if "X-Forwarded-For" in request.headers or "Forwarded" not in request.headers:
            original = self._follow(direct, _hops_of_x_forwarded(request))
        if "Forwarded" in request.headers:
            forwarded = self._follow(direct, _hops_of_forwarded(request))
            if "X-Forwarded-For" in request.headers and original.address != forwarded.address:
                return direct
            original = forwarded
        return original

    def _follow(self, direct: OriginalRequest, hops: list[_Hop]) -> OriginalRequest:
        """The farthest request that a trusted proxy describes. The peer added the last hop."""
        address, scheme, host = direct
        for hop in reversed(hops):
            scheme, host = hop.scheme or scheme, hop.host or host
            if hop.address is None:
                break
            address = hop.address
            if not self.trusts(address):
                break
        return OriginalRequest(address, scheme, host)

    def _contains(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in each for each in self._networks)


@lru_cache(maxsize=10_000)
def client_network(address: str) -> str:
    """The network around *address* that one client holds: of IPv6 its first 64 bits (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""  # a socket without addresses
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((parsed, 64), strict=False))
        parsed = parsed.ipv4_mapped
    return str(parsed)


def _hops_of_forwarded(request: web.BaseRequest) -> list[_Hop]:
    """The hops of Forwarded; none where any part of it is malformed: quotes may then span what a
    client wrote and what a proxy appended.
    """
    text = header_list(request, "Forwarded")
    hops: list[_Hop] = []
    position = 0
    while position < len(text) <= FORWARDED_CHARS_MAX:
        element = _ELEMENT.match(text, position)
        if element is None:
            return []
        position = element.end()
        pairs: dict[str, str] = {}
        for name, token, quoted in _NAMED_VALUE.findall(element[1]):
            if name.lower() in pairs:  # each may occur once (RFC 7239, 4)
                return []
            pairs[name.lower()] = token or re.sub(r"\\(.)", r"\1", quoted)
        if pairs:
            hops.append(_hop(pairs.get("for"), pairs.get("proto"), pairs.get("host")))
    return hops


def _hops_of_x_forwarded(request: web.BaseRequest) -> list[_Hop]:
    """The hops of X-Forwarded-For, each with its scheme and host.

    A proxy may append to the lists of schemes and hosts or replace them, so these may be shorter:
    the first value then also counts for the hops before it.
    """
    nodes, schemes, hosts = (
        header_list(request, f"X-Forwarded-{name}").rsplit(",", HOPS_MAX)[-HOPS_MAX:]
        for name in ("For", "Proto", "Host")
    )
    return [
        _hop(nodes[-n], schemes[-min(n, len(schemes))], hosts[-min(n, len(hosts))])
        for n in range(len(nodes), 0, -1)
    ]


def _hop(node: str | None, scheme: str | None, host: str | None) -> _Hop:
    scheme, host = (scheme or "").strip().lower(), (host or "").strip()
    named = host if host_name(host) else None
    return _Hop(_address(node or ""), scheme if scheme in _SCHEMES else None, named)


@lru_cache(maxsize=1024)
def _address(node: str) -> str | None:
    """The IP address of *node*; None for an unknown, obfuscated or malformed one."""
    match = _NODE.fullmatch(node.strip())
    if match is None:
        return None
    try:
        return str(ipaddress.ip_address(match[1] or match[2] or match[3]))
    except ValueError:
        return None

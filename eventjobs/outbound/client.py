"""The only way this service talks to an address that somebody gave it.

Such an address must not become a way into the network that the service stands in. It is checked
where the connection is made, not before: a name that was looked up twice can have two answers.
"""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from eventjobs.clock import Clock, timeout
from eventjobs.concurrency import forks
from eventjobs.concurrency.threads import run_in_new_thread
from eventjobs.errors import OutboundFailed, OutboundRefused, OutboundTimeout
from eventjobs.outbound.address_policy import (
    PUBLIC_PORTS,
    is_public,
    parse_address,
    parse_rule,
    refusal,
)


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """What came back. Of a body that is too long only the beginning, and *whole* says so.

    *retry_after_s* is how long the other side asks not to be asked again, where it does.
    """

    status: int
    body: bytes
    whole: bool = True
    retry_after_s: float | None = None


class OutboundClient:
    """Sends requests to public addresses on ports 80 and 443, and to what *allow* names.

    *allow* is a list, with commas, of hosts, addresses and networks, each with a port after a
    colon or without one for every port: `127.0.0.0/8, analysis.internal:8000`. A host that is
    named may have any address. Raises InvalidInput for a list that cannot be read.
    """

    def __init__(
        self, clock: Clock, allow: str = "", *, resolver: AbstractResolver | None = None
    ) -> None:
        self._clock = clock
        self._rules = [parse_rule(each) for each in map(str.strip, allow.split(",")) if each]
        self._resolver = resolver
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut off what is under way. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        answer_bytes_max: int = 65_536,
    ) -> OutboundResponse:
        """POST *body* and read what comes back, whatever its status; a redirect is not followed.

        Raises OutboundRefused when the address is not one to talk to, OutboundTimeout when all of
        it together takes longer than *timeout_s*, OutboundFailed when there is no answer.
        """
        target = self.check(url)
        try:
            async with (
                timeout(self._clock, timeout_s),
                self._open_session().post(
                    target, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                received = bytearray()
                async for part in response.content.iter_any():
                    received += part
                    if len(received) > answer_bytes_max:
                        break
                whole = len(received) <= answer_bytes_max
                body = bytes(received[:answer_bytes_max])
                return OutboundResponse(
                    response.status, body, whole, _retry_after_s(response.headers)
                )
        except TimeoutError as error:
            raise OutboundTimeout(f"no answer within {timeout_s:g} s") from error
        except InvalidURL as error:
            raise OutboundRefused("this is not an address that can be asked") from error
        except (ClientError, OSError) as error:
            raise OutboundFailed(f"no answer: {_reason(error)}") from error

    def check(self, url: str) -> URL:
        """*url* as far as it can be judged without asking for it. Raises OutboundRefused.

        For telling somebody early; *post* checks again, and the addresses behind a name too.
        """
        try:
            target = URL(url)
            host, port = target.host, target.port
        except ValueError as error:
            raise OutboundRefused("this is not a URL") from error
        if target.scheme not in ("http", "https") or not host or not port:
            raise OutboundRefused("give a whole URL that begins with http:// or https://")
        if target.user is not None or target.password is not None:
            raise OutboundRefused("a URL is no place for a password: it is told in logs")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return target  # a name; what it stands for is looked at when it is looked up
        if not self.allows(host, host, port):
            raise OutboundRefused(refusal(host, port))
        return target

    def allows(self, host: str, address: str, port: int) -> bool:
        """Whether *address*, which *host* stands for, may be connected to at *port*."""
        ip = parse_address(address)
        if any(each.matches(host, ip, port) for each in self._rules):
            return True
        return port in PUBLIC_PORTS and is_public(ip)

    def _open_session(self) -> ClientSession:
        if self._session is None:
            guard = _AllowedResolver(self, self._resolver or _SystemResolver())
            connector = TCPConnector(
                resolver=guard,
                use_dns_cache=False,
                # A kept connection that the other side has just closed would lose the request.
                force_close=True,
                socket_factory=forks.create_private_socket,
                limit=0,  # whoever sends has limits of his own, and waits for no stranger's
            )
            self._session = ClientSession(
                connector=connector,
                # The clock's time counts, and for all of it.
                timeout=ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                cookie_jar=DummyCookieJar(),
                trust_env=False,  # a proxy would make the connection, and look up the name
                auto_decompress=False,  # a few kilobytes can be gigabytes
                skip_auto_headers=("Accept-Encoding",),
                headers={"User-Agent": "eventjobs"},
            )
        return self._session


class _SystemResolver(AbstractResolver):
    """As the system resolves names. A name server that is silent holds up its own request alone:
    threads that are shared would all be waiting for it soon, and keep the process from exiting.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        flags = socket.AI_ADDRCONFIG
        look = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=flags)
        found = await run_in_new_thread(look, f"lookup {host}")
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=numeric,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        pass


class _AllowedResolver(AbstractResolver):
    """The last word before a connection: nothing but allowed addresses come out of it."""

    def __init__(self, outbound: OutboundClient, resolver: AbstractResolver) -> None:
        self._outbound = outbound
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        allowed = [each for each in found if self._outbound.allows(host, each["host"], port)]
        if not allowed:
            # Without the addresses: what a name means in this network is nobody's business.
            raise OutboundRefused(refusal(host, port))
        return allowed

    async def close(self) -> None:
        await self._resolver.close()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """In seconds (RFC 9110, 10.2.3); a date would need the other side's clock to be right."""
    asked = headers.get("Retry-After", "")
    return float(asked) if re.fullmatch(r"[0-9]{1,7}", asked) else None


def _reason(error: Exception) -> str:
    """What happened, without addresses and paths."""
    match error:
        case ClientConnectorDNSError():
            return "there is no such host"
        case ClientConnectorCertificateError() | ClientSSLError():
            return "no safe connection could be made"
        case ClientConnectorError():
            return "nobody took the connection"
        case _:
            return "the connection broke"

"""The client for requests to addresses that users gave: external services and webhook receivers.

Such an address must not open the network of the service (SSRF). It is checked when the connection
is made (resolver.py), not only before.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from aiohttp.abc import AbstractResolver

from eventjobs.clock import Clock, timeout
from eventjobs.concurrency import forks
from eventjobs.errors import OutboundFailed, OutboundRefused, OutboundTimeout
from eventjobs.outbound.address_policy import AddressPolicy
from eventjobs.outbound.resolver import AllowedResolver, SystemResolver


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """A response. *body* is cut off at the limit of the request, and *whole* is False then.

    *retry_after_s* is the Retry-After header, in seconds.
    """

    status: int
    body: bytes
    whole: bool = True
    retry_after_s: float | None = None


class OutboundClient:
    """Sends requests to the addresses that *allow* (as for AddressPolicy) permits."""

    def __init__(
        self, clock: Clock, allow: str = "", *, resolver: AbstractResolver | None = None
    ) -> None:
        self.policy = AddressPolicy(allow)
        self._clock = clock
        self._resolver = resolver
        self._session: ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cut off the requests in progress. Idempotent."""
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
        response_bytes_max: int = 65_536,
    ) -> OutboundResponse:
        """The response to a POST of *body*, with any status. A redirect is not followed.

        Raises OutboundRefused when the address is not allowed, OutboundTimeout when connection,
        request and response together take longer than *timeout_s*, OutboundFailed when there is no
        response.
        """
        return await self._request("POST", url, body, headers, timeout_s, response_bytes_max)

    async def get(
        self, url: str, headers: Mapping[str, str], *, timeout_s: float, response_bytes_max: int
    ) -> OutboundResponse:
        """The response to a GET; for the rest as *post*."""
        return await self._request("GET", url, None, headers, timeout_s, response_bytes_max)

    async def _request(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
        response_bytes_max: int,
    ) -> OutboundResponse:
        target = self.policy.check(url)
        try:
            async with (
                timeout(self._clock, timeout_s),
                self._open_session().request(
                    method, target, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                received = bytearray()
                async for part in response.content.iter_any():
                    received += part
                    if len(received) > response_bytes_max:
                        break
                whole = len(received) <= response_bytes_max
                return OutboundResponse(
                    response.status,
                    bytes(received[:response_bytes_max]),
                    whole,
                    _retry_after_s(response.headers),
                )
        except TimeoutError as error:
            raise OutboundTimeout(f"no answer within {timeout_s:g} s") from error
        except InvalidURL as error:
            raise OutboundRefused("this is not an address that can be asked") from error
        except (ClientError, OSError) as error:
            raise OutboundFailed(f"no answer: {_reason(error)}") from error

    def _open_session(self) -> ClientSession:
        if self._session is None:
            resolver = AllowedResolver(self.policy, self._resolver or SystemResolver())
            connector = TCPConnector(
                resolver=resolver,
                use_dns_cache=False,
                # A reused connection that the other side has just closed would lose the request.
                force_close=True,
                socket_factory=forks.create_private_socket,
                limit=0,  # the callers have limits, and must not wait for each other
            )
            self._session = ClientSession(
                connector=connector,
                # The timeout of *post* replaces these.
                timeout=ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                cookie_jar=DummyCookieJar(),
                trust_env=False,  # a proxy would resolve the name and connect, without the policy
                auto_decompress=False,  # a few kilobytes can expand to gigabytes
                skip_auto_headers=("Accept-Encoding",),
                headers={"User-Agent": "eventjobs"},
            )
        return self._session


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The Retry-After header in seconds (RFC 9110, 10.2.3). A date is ignored: it would need the
    other side's clock to be right.
    """
    value = headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"[0-9]{1,7}", value) else None


def _reason(error: Exception) -> str:
    """The error in words, without addresses and paths of this network."""
    match error:
        case ClientConnectorDNSError():
            return "there is no such host"
        case ClientConnectorCertificateError() | ClientSSLError():
            return "no safe connection could be made"
        case ClientConnectorError():
            return "no connection could be made"
        case _:
            return "the connection broke"

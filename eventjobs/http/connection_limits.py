"""Limits of open connections: of all, of one client address, and by file descriptors."""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

from eventjobs.http.proxies import client_network
from eventjobs.http.request_errors import (
    OutOfDescriptors,
    RequestError,
    TooManyConnections,
    TooManyConnectionsOfAddress,
)
from eventjobs.observability.logging import get_logger

#: Descriptors that connections leave to files, the log and processes; at most a quarter of all.
RESERVED_DESCRIPTORS = 64
#: Seconds between two log lines about connections that are refused for one reason.
REPEATED_S = 10.0


class ConnectionLimits:
    """Counts the open connections, and refuses those above a limit.

    The address of a client is the peer address of its socket. Connections from an address for which
    *is_proxy* returns True come from many clients, and have no limit of their address.
    """

    def __init__(
        self,
        connections_max: int,
        address_connections_max: int | None,
        is_proxy: Callable[[str], bool],
    ) -> None:
        self._connections_max = connections_max
        self._address_connections_max = address_connections_max
        self._is_proxy = is_proxy
        self._open = 0
        self._open_by_address: Counter[str] = Counter()
        self._logged_s: dict[type[RequestError], float] = {}

    def admit(self, transport: asyncio.BaseTransport) -> str:
        """Count the new connection of *transport*, and return the address to release it by.

        Raises OutOfDescriptors, TooManyConnections or TooManyConnectionsOfAddress, and logs that at
        most every REPEATED_S.
        """
        address = self._limited_address(transport)
        if (descriptors := _exceeded_descriptors(transport)) is not None:
            raise self._refusal(OutOfDescriptors, limit=descriptors)
        if self._open >= self._connections_max:
            raise self._refusal(TooManyConnections, limit=self._connections_max)
        if address:
            limit = self._address_connections_max
            if limit is not None and self._open_by_address[address] >= limit:
                raise self._refusal(TooManyConnectionsOfAddress, limit=limit, address=address)
            self._open_by_address[address] += 1
        self._open += 1
        return address

    def release(self, address: str) -> None:
        """Stop counting a connection of *address*, as *admit* returned it."""
        self._open -= 1
        if address:
            self._open_by_address[address] -= 1
            if not self._open_by_address[address]:
                del self._open_by_address[address]

    def _limited_address(self, transport: asyncio.BaseTransport) -> str:
        """The address by which *transport* is counted; empty where addresses have no limit."""
        peer = transport.get_extra_info("peername")
        if self._address_connections_max is None or not peer or self._is_proxy(peer[0]):
            return ""
        return client_network(str(peer[0]))

    def _refusal(self, error: type[RequestError], **more: Any) -> RequestError:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s.get(error, -REPEATED_S) >= REPEATED_S:
            self._logged_s[error] = now_s
            log = get_logger("eventjobs.http")
            write = log.error if error is OutOfDescriptors else log.warning
            write("connections refused", error=error.__doc__, open=self._open, **more)
        return error()


def _exceeded_descriptors(transport: asyncio.BaseTransport) -> int | None:
    """The limit of file descriptors, where the connection of *transport* leaves too few.

    The kernel assigns the lowest free number, so the number of the newest descriptor is a lower
    bound of those in use.
    """
    connection = transport.get_extra_info("socket")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connection is None or limit == resource.RLIM_INFINITY:
        return None
    if connection.fileno() < limit - min(RESERVED_DESCRIPTORS, limit // 4):
        return None
    return limit

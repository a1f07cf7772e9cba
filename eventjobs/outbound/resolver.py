"""Name resolution for outgoing requests: only allowed addresses reach the connector."""

import socket
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from eventjobs.concurrency.threads import run_in_new_thread
from eventjobs.outbound.address_policy import AddressPolicy


class SystemResolver(AbstractResolver):
    """Resolves names as the system does, each in a thread of its own.

    A name server that does not respond delays one request. In a thread pool it would soon block
    all threads, and keep the process from exiting.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        flags = socket.AI_ADDRCONFIG
        look = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=flags)
        results = await run_in_new_thread(look, f"lookup {host}")
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in results
        ]

    async def close(self) -> None:
        pass


class AllowedResolver(AbstractResolver):
    """Resolves names by *resolver*, and leaves out the addresses that *policy* does not allow.

    The connector connects to nothing else. A check before it would not be enough: a second lookup
    of the same name can have another result (DNS rebinding).
    """

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OutboundRefused when no address is allowed."""
        results = await self._resolver.resolve(host, port, family)
        allowed = self._policy.check_addresses(host, [each["host"] for each in results], port)
        return [each for each in results if each["host"] in allowed]

    async def close(self) -> None:
        await self._resolver.close()

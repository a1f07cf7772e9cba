"""Requests out, and a resolver with prepared answers."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from eventjobs.errors import OutboundRefused
from eventjobs.outbound.client import OutboundClient, OutboundResponse


class PreparedResolver(AbstractResolver):
    """A resolver that answers with the next of what was prepared."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0).split()
        return [
            ResolveResult(hostname=host, host=each, port=port, family=family, proto=0, flags=0)
            for each in addresses
        ]

    async def close(self) -> None:
        pass


async def post(outbound: OutboundClient, url: str, timeout_s: float = 10.0) -> OutboundResponse:
    return await outbound.post(
        url, b"{}", {"Content-Type": "application/json"}, timeout_s=timeout_s
    )


async def refuses(outbound: OutboundClient, url: str) -> bool:
    try:
        await post(outbound, url)
    except OutboundRefused:
        return True
    return False

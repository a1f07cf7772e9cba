"""Limits for a client that reads slowly, or not at all."""

import asyncio
import socket
from contextlib import suppress

from aiohttp import web

from eventjobs.clock import Clock, timeout
from eventjobs.http.streams.subscriber import Subscriber


def limit_buffers(transport: asyncio.Transport, high: int) -> None:
    """Bound what the transport and the kernel hold for a client: *high* bytes, and 64 KiB."""
    transport.set_write_buffer_limits(high=high)
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Autotuning would let megabytes for a client that never reads pile up unseen.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)


async def drain(request: web.Request, subscriber: Subscriber, clock: Clock, stall_s: float) -> None:
    """Wait while the subscriber is full. Raises TimeoutError if it reads nothing for *stall_s*."""
    if not subscriber.is_full:
        return
    draining = asyncio.ensure_future(request.writer.drain())
    try:
        while not draining.done():
            unsent_bytes = subscriber.unsent_bytes
            with suppress(TimeoutError):
                async with timeout(clock, stall_s):
                    await asyncio.shield(draining)
            if not draining.done() and subscriber.unsent_bytes >= unsent_bytes:
                raise TimeoutError("the client reads nothing")
    finally:
        draining.cancel()

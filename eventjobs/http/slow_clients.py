"""Writes to a client that may have stopped reading."""

from aiohttp import web

from eventjobs.clock import timeout
from eventjobs.service import Service


async def write(
    service: Service, request: web.Request, response: web.StreamResponse, data: bytes | bytearray
) -> None:
    """Write *data*. Raises ConnectionResetError after the client has read nothing for `stall_s`.

    Otherwise a stopped client would hold its connection and the response's memory for ever.
    """
    try:
        async with timeout(service.clock, service.settings.stall_s):
            await response.write(data)
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()  # a close waits for the client to read
        raise ConnectionResetError("the client reads nothing") from error

"""Writing to a client that may have stopped reading."""

from aiohttp import web

from eventjobs.clock import timeout
from eventjobs.service import Service


async def write(
    service: Service, request: web.Request, response: web.StreamResponse, data: bytes | bytearray
) -> None:
    """Write *data*; raises ConnectionResetError once the client has read nothing for too long.

    It would otherwise hold its connection, and what is being sent, for ever.
    """
    try:
        async with timeout(service.clock, service.settings.stall_s):
            await response.write(data)
    except TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()  # closing would wait for what is written to be read
        raise ConnectionResetError("the client reads nothing") from error

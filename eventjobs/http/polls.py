"""Long polls: one lookup, and another one after each event that may change its result."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import HttpVersion11, web

from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.held_requests import HELD, HeldRequest
from eventjobs.http.protocol import connection_of

Result = TypeVar("Result")

#: An interim response, which clients of HTTP/1.1 ignore (RFC 9110, 15.2).
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


class Poll(HeldRequest):
    """A long poll that waits. It ends when its client leaves."""

    def __init__(self, request: web.BaseRequest, end: Callable[[], object]) -> None:
        self._request = request
        self._end = end
        self.is_waiting = True

    def leave(self) -> None:
        self._end()

    def write_probe(self) -> None:
        transport = self._request.transport
        if self.is_waiting and transport is not None and self._request.version >= HttpVersion11:
            transport.write(INTERIM)


async def poll(
    context: AppContext,
    request: web.Request,
    lookup: Callable[[], Awaitable[Result | None]],
    wait_s: float,
    wait: Callable[[int], Awaitable[object]],
) -> Result | None:
    """The first result of *lookup* that is not None; None after *wait_s*.

    *wait* is that of LongPolls.repeat. Raises OwnerLimit; ConnectionResetError when the client has
    left.
    """
    if wait_s <= 0 or context.long_polls.is_closed:
        return await lookup()
    with context.owner_polls.hold(principal_of(request)):
        try:
            async with context.long_polls.bounded_wait(wait_s) as end:
                request[HELD] = held = Poll(request, end)
                if connection_of(request).input_ended:
                    held.probe()
                try:
                    return await context.long_polls.repeat(lookup, wait)
                finally:
                    held.is_waiting = False
                    del request[HELD]
        except TimeoutError:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has disconnected") from None
            return None

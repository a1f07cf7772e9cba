"""One connected client of a stream."""

import asyncio
from typing import Literal

from eventjobs.http.streams.selection import JobFilter

HEARTBEAT = b":\n\n"

#: Between the two writes that find out whether a client that sends no more still reads.
PROBE_S = 1.0

#: Why a client is no longer at the head.
Left = Literal["behind", "gone", "ended", "shutdown"]


class Subscriber:
    """One open stream."""

    def __init__(
        self,
        transport: asyncio.Transport,
        selection: JobFilter,
        buffer_bytes_max: int,
        *,
        chunked: bool,
    ) -> None:
        self.selection = selection
        #: Everything it wants up to here was written to it; while it is at the head, and the hub
        #: is further, up to the hub's position.
        self.position = 0
        self.written_bytes = 0
        self._transport = transport
        self._chunked = chunked
        self._buffer_bytes_max = buffer_bytes_max
        self._left: asyncio.Future[Left] | None = None

    @property
    def gone(self) -> bool:
        return self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size()

    @property
    def full(self) -> bool:
        return self.unsent > self._buffer_bytes_max

    def abort(self) -> None:
        self._transport.abort()

    def go_live(self) -> asyncio.Future[Left]:
        """It is at the head now; done when it has to do something itself again."""
        self._left = asyncio.get_running_loop().create_future()
        return self._left

    @property
    def listening(self) -> bool:
        return self._left is not None and not self._left.done()

    def detach(self, why: Left) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(why)

    def probe(self) -> None:
        """Write to a client that sends no more: if it has gone, its machine answers the first write
        with a reset, and the second one fails.
        """
        self.write(HEARTBEAT)
        asyncio.get_running_loop().call_later(PROBE_S, self.write, HEARTBEAT)

    def write(self, plain: bytes, chunk: bytes | None = None) -> None:
        """Past the response object, whose own write costs ten times as much."""
        if self.gone:
            return  # asyncio says nothing of what is written then; uvloop raises
        self.written_bytes += len(plain)
        if self._chunked:
            self._transport.write(as_chunk(plain) if chunk is None else chunk)
        else:
            self._transport.write(plain)


def as_chunk(data: bytes) -> bytes:
    """*data* as one chunk of HTTP/1.1 (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)

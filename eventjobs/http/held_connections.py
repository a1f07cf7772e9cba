"""Connections while a stream is written to them: a transport and its limits, without aiohttp."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from eventjobs.clock import Clock, timeout
from eventjobs.http.held_requests import HeldRequest

#: Bytes of the next requests that are kept during a stream. More are not read.
INPUT_BYTES_MAX = 65_536
#: Bytes that the kernel holds for a client which has not read them.
SEND_BUFFER_BYTES = 65_536


class ServedConnection(Protocol):
    """A connection whose request is being answered."""

    def hand_over(self, held: "HeldConnection") -> None:
        """Let *held* write the rest of the response, after what is written so far.

        The handler of the request returns then, without another await.
        """


class ConnectionOwner(Protocol):
    """The open connections of a server, and whether it is closing them."""

    closing: bool

    def discard(self, held: "HeldConnection") -> None:
        """Drop a connection that is lost."""

    def take_back(self, held: "HeldConnection") -> None:
        """Answer the next requests of *held*."""


class HeldConnection(asyncio.Protocol, HeldRequest):
    """A connection between the head and the end of a stream.

    It stands in for aiohttp's connection, whose parser, request, response and tasks would take five
    times the memory of everything else that a quiet stream needs.
    """

    __slots__ = (
        "_owner",
        "_writable",
        "address",
        "input",
        "input_ended",
        "is_chunked",
        "is_paused",
        "is_reusable",
        "log_end",
        "requests",
        "transport",
        "written_bytes",
    )

    transport: asyncio.Transport | None
    address: str | None

    def __init__(self, *, is_chunked: bool) -> None:
        #: None before the stream and after it.
        self.transport = None
        self._owner: ConnectionOwner | None = None
        #: The address by which the connection is counted.
        self.address = None
        #: Whether the response is in chunks of HTTP/1.1.
        self.is_chunked = is_chunked
        #: Whether the connection goes on with the next requests after the stream.
        self.is_reusable = False
        #: Those that were read before the stream, and what was received since.
        self.requests: Sequence[Any] = ()
        self.input = b""
        #: Whether the client has ended its side.
        self.input_ended = False
        #: Whether the transport has more to send than its bound.
        self.is_paused = False
        self._writable: asyncio.Future[None] | None = None
        self.written_bytes = 0
        #: Logs the stream at its end, with the bytes that were written.
        self.log_end: Callable[[int], None] | None = None

    def begin(
        self, owner: ConnectionOwner, transport: asyncio.Transport, address: str | None
    ) -> None:
        """Become the protocol of *transport*, whose client is counted by *address*."""
        self._owner = owner
        self.transport = transport
        self.address = address
        transport.set_protocol(self)
        transport.resume_reading()

    def limit_buffers(self, high: int) -> None:
        """Bound what is held for the client: *high* bytes here, and SEND_BUFFER_BYTES."""
        assert self.transport is not None
        self.transport.set_write_buffer_limits(high=high)
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            # Autotuning would let megabytes for a client that never reads pile up unseen.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    # --- callbacks of the transport

    def data_received(self, data: bytes) -> None:
        if not self.is_reusable:
            return
        self.input += data
        if len(self.input) > INPUT_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the connection open: a client may end its side, and still read (RFC 9293, 3.6)."""
        self.input_ended = True
        self.probe()
        return True

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.resume_writing()
        if self._owner is not None:
            self._owner.discard(self)
            self._owner = None
        self._log_end()
        self.leave()

    # --- what a stream does

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed, closing, or no longer this stream's."""
        return self.transport is None or self.transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Bytes in the transport's buffer."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def write_bytes(self, data: bytes) -> None:
        """Write *data* at once.

        The bytes go to the transport: a write of aiohttp's response object costs ten times as much.
        """
        if self.transport is None or self.transport.is_closing():
            return  # a write would be silent in asyncio, and an error in uvloop
        self.written_bytes += len(data)
        self.transport.write(data)

    async def drain(self, clock: Clock, stall_s: float) -> None:
        """Wait while it is paused. Raises TimeoutError when nothing was read for *stall_s*."""
        while self.is_paused:
            unsent_bytes = self.unsent_bytes
            self._writable = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with timeout(clock, stall_s):
                    await self._writable
            self._writable = None
            if self.is_paused and self.unsent_bytes >= unsent_bytes:
                raise TimeoutError("the client reads nothing")

    def end(self) -> None:
        """End the response. The connection is closed, or goes on with the next requests."""
        if self.is_chunked:
            self.write_bytes(b"0\r\n\r\n")
        self._log_end()
        if self.transport is None or self._owner is None:
            return
        # A connection that would be idle is not needed while the server closes.
        is_needed = self.requests or self.input or not self._owner.closing
        if self.is_reusable and is_needed and not self.transport.is_closing():
            self._owner.take_back(self)
            self.transport = self._owner = None
        else:
            self.transport.close()

    def abort(self) -> None:
        """Close the connection, and drop what is unsent."""
        if self.transport is not None:
            self.transport.abort()
        self._log_end()

    def _log_end(self) -> None:
        if self.log_end is not None:
            self.log_end(self.written_bytes)
            self.log_end = None

"""One open stream: its filter, its position, and writes to its transport."""

import asyncio
from typing import Literal

from aiohttp import web

from eventjobs.auth.principals import Principal
from eventjobs.http.streams.frames import HEARTBEAT, as_chunk
from eventjobs.http.streams.job_filter import JobFilter

#: Seconds between the two writes of a probe.
PROBE_S = 1.0

#: Why a subscriber is no longer live.
DetachReason = Literal["behind", "gone", "ended", "revoked", "shutdown"]


class Subscriber:
    """One client of a stream.

    A subscriber catches up by reading from its position, and then goes live: a broadcaster writes
    new events to it, until it is detached.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        job_filter: JobFilter,
        buffer_bytes_max: int,
        *,
        principal: Principal,
        chunked: bool,
    ) -> None:
        self.job_filter = job_filter
        self.principal = principal
        #: Whether its credential was revoked or has expired, or permits the stream no longer.
        self.is_revoked = False
        #: All that matches up to this position was written. While the subscriber is live, the
        #: broadcaster's position counts, if that is higher.
        self.position = 0
        self.written_bytes = 0
        self._transport = transport
        self._chunked = chunked
        self._buffer_bytes_max = buffer_bytes_max
        self._detached: asyncio.Future[DetachReason] | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed or closing."""
        return self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """Bytes in the transport's buffer."""
        return self._transport.get_write_buffer_size()

    @property
    def is_full(self) -> bool:
        """Whether the transport's buffer is over its bound."""
        return self.unsent_bytes > self._buffer_bytes_max

    def abort(self) -> None:
        self._transport.abort()

    def go_live(self) -> asyncio.Future[DetachReason]:
        """Returns a future that is done when the subscriber is detached."""
        self._detached = asyncio.get_running_loop().create_future()
        return self._detached

    @property
    def is_live(self) -> bool:
        return self._detached is not None and not self._detached.done()

    def detach(self, reason: DetachReason) -> None:
        if self._detached is not None and not self._detached.done():
            self._detached.set_result(reason)

    def probe(self) -> None:
        """Find out whether a client that closed its sending side still reads.

        The machine of a client that has gone answers the first write with a reset, and the second
        write fails.
        """
        self.write(HEARTBEAT)
        asyncio.get_running_loop().call_later(PROBE_S, self.write, HEARTBEAT)

    def write(self, frames: bytes, chunk: bytes | None = None) -> None:
        """Write *frames* at once. *chunk* is the same as a chunk of HTTP, if it is encoded already.

        The bytes go to the transport: a write of aiohttp's response object costs ten times as much.
        """
        if self.is_gone:
            return  # a write would be silent in asyncio, and an error in uvloop
        self.written_bytes += len(frames)
        if self._chunked:
            self._transport.write(as_chunk(frames) if chunk is None else chunk)
        else:
            self._transport.write(frames)


#: The subscriber of a request that is answered with a stream.
SUBSCRIBER = web.RequestKey("subscriber", Subscriber)

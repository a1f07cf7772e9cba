"""Who follows the events at the head of the log: streams, and polls that wait for one event."""

import asyncio
from abc import ABC, abstractmethod
from typing import Literal

from aiohttp import web

from eventjobs.auth.principals import Principal
from eventjobs.http.held_requests import HeldRequest
from eventjobs.http.streams.frames import HEARTBEAT, Frames
from eventjobs.http.streams.job_filter import JobFilter

#: Why a follower is no longer live.
DetachReason = Literal["behind", "gone", "ended", "revoked", "shutdown"]


class Follower(ABC):
    """A filter and a position.

    A follower catches up by reading from its position, and then goes live: a broadcaster offers new
    events to it, until it is detached.
    """

    def __init__(self, job_filter: JobFilter, position: int = 0) -> None:
        self.job_filter = job_filter
        #: All that matches up to this position was read. While the follower is live, the
        #: broadcaster's position counts, if that is higher.
        self.position = position
        self._detached: asyncio.Future[DetachReason] | None = None

    @abstractmethod
    def offer(self, frames: Frames) -> DetachReason | None:
        """Take *frames*, or say why not. Never waits."""

    def beat(self, heartbeat: Frames) -> DetachReason | None:
        """Take *heartbeat*, or say why not."""
        return None

    def go_live(self) -> asyncio.Future[DetachReason]:
        """Returns a future that is done when the follower is detached."""
        self._detached = asyncio.get_running_loop().create_future()
        return self._detached

    @property
    def is_live(self) -> bool:
        return self._detached is not None and not self._detached.done()

    def detach(self, reason: DetachReason) -> None:
        if self._detached is not None and not self._detached.done():
            self._detached.set_result(reason)


class EventWait(Follower):
    """A long poll that waits for the next event that matches; it then reads from its position."""

    def offer(self, frames: Frames) -> DetachReason | None:
        return "behind"


class Subscriber(Follower, HeldRequest):
    """One client of a stream."""

    def __init__(
        self,
        transport: asyncio.Transport,
        job_filter: JobFilter,
        buffer_bytes_max: int,
        *,
        principal: Principal,
        chunked: bool,
    ) -> None:
        super().__init__(job_filter)
        self.principal = principal
        #: Whether its credential was revoked or has expired, or permits the stream no longer.
        self.is_revoked = False
        self.written_bytes = 0
        self._transport = transport
        self._chunked = chunked
        self._buffer_bytes_max = buffer_bytes_max

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

    def leave(self) -> None:
        self.detach("gone")

    def write_probe(self) -> None:
        self.write(Frames(HEARTBEAT))

    def offer(self, frames: Frames) -> DetachReason | None:
        if self.is_gone:
            return "gone"
        if self.is_full:
            return "behind"
        self.write(frames)
        return None

    def beat(self, heartbeat: Frames) -> DetachReason | None:
        return self.offer(heartbeat)

    def write(self, frames: Frames) -> None:
        """Write *frames* at once.

        The bytes go to the transport: a write of aiohttp's response object costs ten times as much.
        """
        if self.is_gone:
            return  # a write would be silent in asyncio, and an error in uvloop
        self.written_bytes += len(frames)
        self._transport.write(frames.chunk if self._chunked else frames.data)


#: The subscriber of a request that is answered with a stream.
SUBSCRIBER = web.RequestKey("subscriber", Subscriber)

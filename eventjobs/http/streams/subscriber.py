"""Who follows the events at the head of the log: streams, and polls that wait for one event."""

import asyncio
from abc import ABC, abstractmethod
from typing import Literal, Protocol

from eventjobs.auth.principals import Principal
from eventjobs.http.held_connections import HeldConnection
from eventjobs.http.streams.frames import HEARTBEAT, Frames
from eventjobs.http.streams.job_filter import JobFilter

#: Why a follower is no longer live.
DetachReason = Literal["behind", "gone", "ended", "revoked", "shutdown"]


class Follower(ABC):
    """A filter and a position.

    A follower catches up by reading from its position, and then joins a broadcaster, which offers
    new events to it until it is detached.
    """

    job_filter: JobFilter
    #: All that matches up to this position was read. While the follower is live, the broadcaster's
    #: position counts, if that is higher.
    position: int

    @abstractmethod
    def offer(self, frames: Frames) -> DetachReason | None:
        """Take *frames*, or say why not. Never waits."""

    @abstractmethod
    def beat(self, heartbeat: Frames) -> DetachReason | None:
        """Take *heartbeat*, or say why not."""

    @abstractmethod
    def on_detached(self, reason: DetachReason) -> None:
        """Go on without the broadcaster, from the position."""


class EventWait(Follower):
    """A long poll that waits for the next event that matches; it then reads from its position."""

    def __init__(self, job_filter: JobFilter, position: int) -> None:
        self.job_filter = job_filter
        self.position = position
        #: Set when the event has come.
        self.detached = asyncio.Event()

    def offer(self, frames: Frames) -> DetachReason | None:
        return "behind"

    def beat(self, heartbeat: Frames) -> DetachReason | None:
        return None

    def on_detached(self, reason: DetachReason) -> None:
        self.detached.set()


class SubscriberFeed(Protocol):
    """Has what subscribers read."""

    def serve(self, subscriber: "Subscriber") -> None:
        """Write what the subscriber misses, until it is live."""

    def remove(self, subscriber: "Subscriber") -> None:
        """Drop a subscriber whose stream has ended. Harmless to repeat."""


class Subscriber(Follower, HeldConnection):
    """One client of a stream. While it is live it has no task."""

    __slots__ = ("_feed", "is_revoked", "job_filter", "position", "principal", "request_id")

    def __init__(
        self,
        feed: SubscriberFeed,
        job_filter: JobFilter,
        position: int,
        *,
        principal: Principal,
        request_id: str,
        is_chunked: bool,
    ) -> None:
        super().__init__(is_chunked=is_chunked)
        self._feed = feed
        self.job_filter = job_filter
        self.position = position
        self.principal = principal
        self.request_id = request_id
        #: Whether its credential was revoked or has expired, or permits the stream no longer.
        self.is_revoked = False

    def write(self, frames: Frames) -> None:
        """Write *frames* at once."""
        self.write_bytes(frames.chunk if self.is_chunked else frames.data)

    def offer(self, frames: Frames) -> DetachReason | None:
        # For each client and event: no other method is called.
        transport = self.transport
        if transport is None or transport.is_closing():
            return "gone"
        if self.is_paused:
            return "behind"
        data = frames.chunk if self.is_chunked else frames.data
        self.written_bytes += len(data)
        transport.write(data)
        return None

    def beat(self, heartbeat: Frames) -> DetachReason | None:
        return self.offer(heartbeat)

    def on_detached(self, reason: DetachReason) -> None:
        if reason != "gone":
            self._feed.serve(self)

    def leave(self) -> None:
        self._feed.remove(self)

    def write_probe(self) -> None:
        self.write(Frames(HEARTBEAT))

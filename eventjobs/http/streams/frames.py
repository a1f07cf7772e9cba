"""Server-sent events as bytes (WHATWG HTML, 9.2), and how many are written at once."""

import random
from collections.abc import Callable
from typing import TypeVar

import orjson

from eventjobs.domain.events import HookCompleted, HookFailed, JobExpired, ends_job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.http.streams.snapshots import Snapshot

T = TypeVar("T")

#: Bytes of frames in one write. Only a single frame may be longer.
WRITE_BYTES = 131_072

#: The longest wait for a rate after which a refused client reconnects, in seconds.
RETRY_MAX_S = 60.0

HEARTBEAT = b":\n\n"
#: The first bytes of every stream. Some proxies hold the headers back until the body begins.
HELLO = b"retry: 2000\n" + HEARTBEAT


def event_size(recorded: Recorded) -> int:
    return len(recorded.json())


def event_frame(recorded: Recorded) -> bytes:
    return b"id: %d\nevent: event\ndata: %s\n\n" % (recorded.position, recorded.json())


def snapshot_frame(snapshot: Snapshot, position: int) -> bytes:
    """A `job` frame with the snapshot, or a `gone` frame if the job is hidden."""
    job = snapshot.job
    if job.expired_us is None:
        return b"id: %d\nevent: job\ndata: %s\n\n" % (position, snapshot.body)
    gone = {"job_id": job.job_id, "expired_at": rfc3339(job.expired_us), "position": job.position}
    return b"id: %d\nevent: gone\ndata: %s\n\n" % (position, orjson.dumps(gone))


def reset_frame(head: int) -> bytes:
    """The client's cursor is not a position of this log; the stream begins again from 0."""
    return b'event: reset\ndata: {"head":%d}\n\n' % head


def end_frame(position: int) -> bytes:
    """All jobs of the stream have ended. The cursor before it lets a reconnect get a 204."""
    return b'id: %d\n\nevent: end\ndata: {"reason":"finished"}\n\n' % position


def retry_later_frame(wait_s: float = 0.0) -> bytes:
    """The frame that delays a reconnect: at random, so that not all clients come at one moment."""
    wait_ms = int(min(wait_s, RETRY_MAX_S) * 1000)
    return b"retry: %d\n\n" % (wait_ms + random.randint(1_000, 10_000))  # noqa: S311


class Frames:
    """Frames that are encoded once and written to many clients, as a chunk of HTTP/1.1 (RFC 9112,
    7.1). Its length is that of the frames, in bytes.
    """

    __slots__ = ("_begin", "chunk")

    def __init__(self, data: bytes) -> None:
        head = b"%x\r\n" % len(data)
        self.chunk = head + data + b"\r\n"
        self._begin = len(head)

    def __len__(self) -> int:
        return len(self.chunk) - self._begin - 2

    @property
    def data(self) -> bytes:
        """The frames for HTTP/1.0, which has no chunks."""
        return self.chunk[self._begin : -2]


def prefix_that_fits(items: list[T], size: Callable[[T], int]) -> list[T]:
    """The first *items* that fit in one write; at least one. *size* is in bytes."""
    total = 0
    for number, item in enumerate(items):
        total += size(item)
        if total > WRITE_BYTES and number:
            return items[:number]
    return items


def is_end(recorded: Recorded) -> bool:
    """Whether the event ends its job or a completion hook, or hides the job. A stream of named jobs
    may end after it.
    """
    event = recorded.event
    return ends_job(event) or isinstance(event, JobExpired | HookCompleted | HookFailed)

"""The streams of a service (WHATWG HTML, 9.2): events after a cursor, or the newest snapshots."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import LOCAL, Principal
from eventjobs.clock import Timer, sleep
from eventjobs.commands.access import mask_for, permits_id
from eventjobs.domain.job import Job
from eventjobs.errors import EventjobsError, JobGone, JobNotFound
from eventjobs.http.auth import principal_of
from eventjobs.http.headers import stream_cursor
from eventjobs.http.held_connections import ServedConnection
from eventjobs.http.owner_limits import OwnerLimits
from eventjobs.http.request_errors import ViewsBehind
from eventjobs.http.request_ids import REQUEST_ID
from eventjobs.http.requests import present_caught_up, require_job
from eventjobs.http.streams.broadcast import EventBroadcaster, SnapshotBroadcaster
from eventjobs.http.streams.catch_up import EventCatchUp, SnapshotCatchUp
from eventjobs.http.streams.feed import Feed
from eventjobs.http.streams.frames import HELLO, reset_frame, retry_later_frame
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.subscriber import EventWait, Subscriber
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "private, no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}

#: Seconds in which streams end at a shutdown. A client that has not read all then is cut off.
GOODBYE_S = 1.0
#: Streams that read what they miss at a time, and write in one turn of the event loop.
CATCH_UPS_MAX = 4


class StreamHead(web.StreamResponse):
    """A response whose head is sent with the first bytes of the body, in one write."""

    _send_headers_immediately = False


class Streams:
    """Every open stream of one service. Its length is their number."""

    def __init__(self, service: Service, snapshots: Snapshots) -> None:
        self._service = service
        self._settings = service.settings
        self.lookup = lookup = JobLookup(service.jobs)
        turns = asyncio.Semaphore(CATCH_UPS_MAX)
        self._events = Feed(
            service,
            EventBroadcaster(service.log, lookup),
            EventCatchUp(service.log, service.views, lookup),
            turns,
            self._remove,
        )
        self._snapshots = Feed(
            service,
            SnapshotBroadcaster(service.views, snapshots),
            SnapshotCatchUp(service.views, service.log, snapshots, self._settings.page_max),
            turns,
            self._remove,
        )
        self._feeds = (self._events, self._snapshots)
        #: The timer of each is for the end of its credential.
        self._open: dict[Subscriber, Timer | None] = {}
        self._owner_streams = OwnerLimits(self._settings.owner_streams_max, "streams")
        self._none_open = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._credentials = service.credentials
        self._credentials.on_revoked(self._end_streams_of)
        self._timer: Timer | None = None
        self._log = get_logger("eventjobs.stream")

    def __len__(self) -> int:
        return len(self._open)

    async def events(
        self, request: web.Request, job_filter: JobFilter, after: int | None
    ) -> web.StreamResponse:
        """Every matching event after the cursor, in order."""
        return await self._open_stream(request, job_filter, after, self._events)

    async def snapshots(
        self, request: web.Request, job_filter: JobFilter, after: int | None = None
    ) -> web.StreamResponse:
        """The present snapshot of each matching job, then a newer one whenever a job changes.

        A client that reads slowly skips snapshots, never the newest one of a job.
        """
        with suppress(ViewsBehind):
            await present_caught_up(self._service)
        return await self._open_stream(request, job_filter, after, self._snapshots)

    async def wait_for_event(self, wait: EventWait) -> None:
        """Return when an event after the position of *wait* matches. *wait* is at that event then;
        it moves past events that do not match in any case.
        """
        self._start()
        broadcaster = self._events.broadcaster
        if wait.position < broadcaster.position:
            return  # it has to read what it misses
        wait.detached.clear()
        broadcaster.join(wait)
        try:
            await wait.detached.wait()
        finally:
            broadcaster.detach(wait, "gone")  # where it is cut off

    async def refuse(self, request: web.Request, wait_s: float = 0.0) -> web.StreamResponse:
        """A stream that ends at once. The client reconnects *wait_s* seconds later or more.

        Any status but 200 would make an EventSource give up for ever.
        """
        return await _begin(request, retry_later_frame(wait_s))

    async def close(self) -> None:
        """End every stream cleanly; each client reconnects after a delay of its own."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for feed in self._feeds:
            feed.close()
        if self._open:
            self._none_open.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._none_open.wait()
        for subscriber in list(self._open):
            subscriber.abort()

    # --- broadcasters, which run once there is a stream

    def _start(self) -> None:
        if self._tasks:
            return
        self._events.broadcaster.position = self._service.log.head
        for feed in self._feeds:
            name = type(feed.broadcaster).__name__
            self._tasks.append(asyncio.create_task(feed.run(), name=name))
        self._tasks.append(asyncio.create_task(self._end_unheld(), name="unheld"))
        self._send_heartbeats()

    def _send_heartbeats(self) -> None:
        for feed in self._feeds:
            feed.broadcaster.send_heartbeat()
        self._timer = self._service.clock.call_later(
            self._settings.heartbeat_s, self._send_heartbeats
        )

    # --- one stream

    async def _open_stream(
        self, request: web.Request, job_filter: JobFilter, after: int | None, feed: Feed
    ) -> web.StreamResponse:
        """Begin a stream, which goes on after its request. Raises OwnerLimit, and as
        *_named_jobs*.
        """
        principal = principal_of(request)
        self._owner_streams.acquire(principal)
        subscriber: Subscriber | None = None
        try:
            jobs = await self._named_jobs(principal, job_filter)
            after, resumed = stream_cursor(request, after)
            head = self._service.log.head
            if resumed and after <= head and _is_over(jobs, after):
                return web.Response(status=204)  # makes an EventSource stop reconnecting
            job_filter = await self._for_reader(principal, job_filter, jobs)
            # Refusing with 503 would make an EventSource give up for ever.
            if self._closing or len(self._open) >= self._settings.streams_max:
                return await self.refuse(request)
            hello = HELLO if after <= head else HELLO + reset_frame(head)
            response = await _begin(request, hello)
            if response.prepared:
                position = after if after <= head else 0
                subscriber = Subscriber(
                    feed,
                    job_filter,
                    position,
                    principal=principal,
                    request_id=request[REQUEST_ID],
                    is_chunked=request.version >= (1, 1),
                )
                # Nothing has waited since the check: the head is written to an open transport.
                cast(ServedConnection, request.protocol).hand_over(subscriber)
                subscriber.limit_buffers(self._settings.stream_buffer_bytes_max)
                self._add(subscriber)
                feed.serve(subscriber)
            return response
        finally:
            if subscriber is None:
                self._owner_streams.release(principal)

    def _add(self, subscriber: Subscriber) -> None:
        left_s = self._credentials.left_s(subscriber.principal)
        expiry: Timer | None = None
        if not self._credentials.is_valid(subscriber.principal):
            subscriber.is_revoked = True  # since the request began
        elif left_s is not None:
            expiry = self._service.clock.call_later(left_s, partial(self._revoke, subscriber))
        self._open[subscriber] = expiry
        self._start()

    def _remove(self, subscriber: Subscriber) -> None:
        if subscriber not in self._open:
            return
        if (expiry := self._open.pop(subscriber)) is not None:
            expiry.cancel()
        self._owner_streams.release(subscriber.principal)
        if not self._open:
            self._none_open.set()

    def _end_streams_of(self, credential: str) -> None:
        """End the streams of principals that have this credential."""
        for subscriber in list(self._open):
            if credential in subscriber.principal.credentials:
                self._revoke(subscriber)

    async def _end_unheld(self) -> None:
        """End the streams of jobs that their workers hold no longer, from time to time."""
        while True:
            await sleep(self._service.clock, self._settings.heartbeat_s)
            for subscriber in list(self._open):
                if not await self._is_permitted(subscriber) and subscriber in self._open:
                    self._revoke(subscriber)

    async def _is_permitted(self, subscriber: Subscriber) -> bool:
        """Whether the principal may still read what the stream has. That changes for the jobs that
        a worker holds, and their children.
        """
        principal, job_filter = subscriber.principal, subscriber.job_filter
        if principal is LOCAL or not principal.worker_types or job_filter.ids is None:
            return True
        try:
            jobs = await self._named_jobs(principal, job_filter)
            return await self._for_reader(principal, job_filter, jobs) == job_filter
        except JobGone:
            return True  # it ends by itself
        except EventjobsError:
            return False

    def _revoke(self, subscriber: Subscriber) -> None:
        """End the stream. A client that does not read the end is cut off after GOODBYE_S."""
        subscriber.is_revoked = True
        subscriber.is_reusable = False
        for feed in self._feeds:
            feed.broadcaster.detach(subscriber, "revoked")
        self._service.clock.call_later(GOODBYE_S, subscriber.abort)

    async def _for_reader(
        self, principal: Principal, job_filter: JobFilter, jobs: Sequence[Job]
    ) -> JobFilter:
        """*job_filter* for the named *jobs*, and for what *principal* may read of them."""
        if job_filter.ids is None:
            return job_filter
        masks = [await mask_for(self._service.jobs, principal, job) for job in jobs]
        reader = None if masks.count(None) == len(masks) else principal.owner or ""
        return replace(job_filter.among(jobs), reader=reader)

    async def _named_jobs(self, principal: Principal, job_filter: JobFilter) -> list[Job]:
        """The jobs that *job_filter* names. Raises JobNotFound, also for a job that *principal* may
        not read; JobGone when all are hidden.
        """
        jobs = []
        for job_id in sorted(job_filter.ids or ()):
            missing = f"there is no job {job_id}"
            if not await permits_id(self._service.jobs, principal, Action.READ, job_id):
                raise JobNotFound(missing)
            job = await self._service.jobs.current(job_id)
            jobs.append(require_job(job, missing, hidden=True))
        if jobs and all(job.expired_us is not None for job in jobs):
            require_job(max(jobs, key=lambda job: job.expired_us or 0))
        return jobs


def _is_over(jobs: Sequence[Job], after: int) -> bool:
    """Whether a stream of the named *jobs* has nothing after that position, and never will."""
    return bool(jobs) and all(job.is_over and job.position <= after for job in jobs)


async def _begin(request: web.Request, frames: bytes) -> web.StreamResponse:
    """The head of a stream, written with its first *frames*. HEAD has neither."""
    response = StreamHead(headers=HEADERS)
    if request.version < (1, 1):
        response.force_close()  # the end of the connection is the end of the body
    if request.method != "HEAD":
        await response.prepare(request)
        await response.write(frames)
    return response

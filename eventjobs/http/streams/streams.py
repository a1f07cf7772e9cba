"""The streams of a service (WHATWG HTML, 9.2): events after a cursor, or the newest snapshots."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from aiohttp import web

from eventjobs.auth.policy import Action
from eventjobs.auth.principals import LOCAL, Principal
from eventjobs.clock import Timer, sleep
from eventjobs.commands.access import mask_for, permits_id
from eventjobs.domain.job import Job
from eventjobs.errors import EventjobsError, JobGone, JobNotFound, JobUnreadable
from eventjobs.http.auth import principal_of
from eventjobs.http.headers import stream_cursor
from eventjobs.http.held_requests import HELD
from eventjobs.http.owner_limits import OwnerLimits
from eventjobs.http.request_errors import ViewsBehind
from eventjobs.http.requests import present_caught_up, require_job
from eventjobs.http.streams.backpressure import drain, limit_buffers
from eventjobs.http.streams.broadcast import EventBroadcaster, SnapshotBroadcaster
from eventjobs.http.streams.catch_up import CatchUp, EventCatchUp, SnapshotCatchUp
from eventjobs.http.streams.frames import HELLO, Frames, end_frame, reset_frame, retry_frame
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.live_followers import LiveFollowers
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.subscriber import SUBSCRIBER, EventWait, Subscriber
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
#: The longest wait for a rate after which a refused client reconnects, in seconds.
RETRY_MAX_S = 60.0
#: Streams that read what they miss at a time, and write in one turn of the event loop.
CATCH_UPS_MAX = 4


class Streams:
    """Every open stream of one service. Its length is their number."""

    def __init__(self, service: Service, snapshots: Snapshots) -> None:
        self._service = service
        self._settings = service.settings
        self.lookup = lookup = JobLookup(service.jobs)
        self._events = EventBroadcaster(service.log, lookup)
        self._snapshots = SnapshotBroadcaster(service.views, snapshots)
        self._missed_events = EventCatchUp(service.log, service.views, lookup)
        self._missed_snapshots = SnapshotCatchUp(
            service.views, service.log, snapshots, self._settings.page_max
        )
        self._catch_ups = asyncio.Semaphore(CATCH_UPS_MAX)
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
        with self._owner_streams.hold(principal_of(request)):
            return await self._stream(request, job_filter, after, self._events, self._missed_events)

    async def snapshots(
        self, request: web.Request, job_filter: JobFilter, after: int | None = None
    ) -> web.StreamResponse:
        """The present snapshot of each matching job, then a newer one whenever a job changes.

        A client that reads slowly skips snapshots, never the newest one of a job.
        """
        with suppress(ViewsBehind):
            await present_caught_up(self._service)
        with self._owner_streams.hold(principal_of(request)):
            return await self._stream(
                request, job_filter, after, self._snapshots, self._missed_snapshots
            )

    async def wait_for_event(self, wait: EventWait) -> None:
        """Return when an event after the position of *wait* matches. *wait* is at that event then;
        it moves past events that do not match in any case.
        """
        self._start()
        if wait.position < self._events.position:
            return  # it has to read what it misses
        detached = wait.go_live()
        self._events.join(wait)
        try:
            await asyncio.wait([detached])  # a wait that is cut off is detached below
        finally:
            self._events.detach(wait, "gone")
            self._events.leave(wait)

    async def refuse(self, request: web.Request, wait_s: float = 0.0) -> web.StreamResponse:
        """A stream that ends at once. The client reconnects *wait_s* seconds later or more.

        Any status but 200 would make an EventSource give up for ever.
        """
        response = web.StreamResponse(headers=HEADERS)
        if request.version < (1, 1):
            response.force_close()  # the end of the connection is the end of the body
        if request.method != "HEAD":
            await response.prepare(request)
            await response.write(_retry_later(wait_s))
        return response

    async def close(self) -> None:
        """End every stream cleanly; each client reconnects after a delay of its own."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._events.detach_all("shutdown")
        self._snapshots.detach_all("shutdown")
        if self._open:
            self._none_open.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._none_open.wait()
        for subscriber in self._open:
            subscriber.abort()

    # --- broadcasters, which run once there is a stream

    def _start(self) -> None:
        if self._tasks:
            return
        self._events.position = self._service.log.head
        for broadcaster in (self._events, self._snapshots):
            name = type(broadcaster).__name__
            self._tasks.append(asyncio.create_task(self._run(broadcaster), name=name))
        self._tasks.append(asyncio.create_task(self._end_unheld(), name="unheld"))
        self._send_heartbeats()

    async def _run(self, broadcaster: EventBroadcaster | SnapshotBroadcaster) -> None:
        while True:
            try:
                await broadcaster.run()
            except Exception as error:  # noqa: BLE001 without it, its streams would be silent
                self._log.error(
                    "streams interrupted", hub=type(broadcaster).__name__, exc_info=error
                )
            broadcaster.detach_all("behind")  # each subscriber reads what it misses
            await sleep(self._service.clock, 1.0)

    def _send_heartbeats(self) -> None:
        self._events.send_heartbeat()
        self._snapshots.send_heartbeat()
        self._timer = self._service.clock.call_later(
            self._settings.heartbeat_s, self._send_heartbeats
        )

    # --- one stream

    async def _stream(
        self,
        request: web.Request,
        job_filter: JobFilter,
        after: int | None,
        broadcaster: LiveFollowers,
        catch_up: CatchUp,
    ) -> web.StreamResponse:
        principal = principal_of(request)
        jobs = await self._named_jobs(principal, job_filter)
        after, resumed = stream_cursor(request, after)
        head = self._service.log.head
        if resumed and after <= head and _is_over(jobs, after):
            return web.Response(status=204)  # makes an EventSource stop reconnecting
        response = web.StreamResponse(headers=HEADERS)
        transport = request.transport
        if request.method == "HEAD" or transport is None:  # None: the client has disconnected
            return response
        limit = self._settings.stream_buffer_bytes_max
        limit_buffers(transport, limit)
        chunked = request.version >= (1, 1)
        job_filter = await self._for_reader(principal, job_filter, jobs)
        subscriber = Subscriber(transport, job_filter, limit, principal=principal, chunked=chunked)
        try:
            if not chunked:
                response.force_close()  # the end of the connection is the end of the body
            await response.prepare(request)
            # Refusing with 503 would make an EventSource give up for ever.
            if self._closing or len(self._open) >= self._settings.streams_max:
                await _end_until_later(subscriber, response)
                return response
            subscriber.write(Frames(HELLO))
            if after > head:
                subscriber.write(Frames(reset_frame(head)))
                after = 0
            subscriber.position = after
            request[SUBSCRIBER] = request[HELD] = subscriber
            self._add(subscriber)
            await self._serve(request, response, subscriber, broadcaster, catch_up)
        except (ConnectionError, TimeoutError) as error:
            self._log.info("reader dropped", error=str(error))
            subscriber.abort()
        finally:
            self._remove(subscriber)
            broadcaster.leave(subscriber)
        return response

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
        if (expiry := self._open.pop(subscriber, None)) is not None:
            expiry.cancel()
        if not self._open:
            self._none_open.set()

    async def _serve(
        self,
        request: web.Request,
        response: web.StreamResponse,
        subscriber: Subscriber,
        broadcaster: LiveFollowers,
        catch_up: CatchUp,
    ) -> None:
        """Catch up and go live in turn, until the stream ends."""
        checked = -1  # the position at which the named jobs had not ended
        while not subscriber.is_gone:
            async with aclosing(catch_up.frames(subscriber)) as batches:
                while (frames := await self._next(batches, subscriber, catch_up)) is not None:
                    if frames:
                        subscriber.write(frames)
                        await self._drain(request, subscriber)
            if subscriber.is_revoked:
                await response.write_eof()
                return
            if self._closing:
                await _end_until_later(subscriber, response)
                return
            if checked != subscriber.position:
                if await self._is_finished(subscriber):
                    subscriber.write(Frames(end_frame(subscriber.position)))
                    await self._drain(request, subscriber)
                    await response.write_eof()
                    return
                checked = subscriber.position
                continue
            # No await since the catch-up found nothing: there is no gap.
            detached = subscriber.go_live()
            broadcaster.join(subscriber)
            await detached
            broadcaster.leave(subscriber)
            checked = -1
            await self._drain(request, subscriber)

    async def _next(
        self, batches: AsyncGenerator[Frames, None], subscriber: Subscriber, catch_up: CatchUp
    ) -> Frames | None:
        """The next frames of a catch-up, in its turn; None at its end, or when it must not go on.

        Nothing is awaited after the catch-up has reached its end.
        """
        if subscriber.position < catch_up.head and not self._must_end(subscriber):
            async with self._catch_ups:
                await asyncio.sleep(0)  # other tasks run between two batches
                return None if self._must_end(subscriber) else await anext(batches, None)
        return None if self._must_end(subscriber) else await anext(batches, None)

    def _must_end(self, subscriber: Subscriber) -> bool:
        return self._closing or subscriber.is_revoked or subscriber.is_gone

    async def _drain(self, request: web.Request, subscriber: Subscriber) -> None:
        await drain(request, subscriber, self._service.clock, self._settings.stall_s)

    async def _is_finished(self, subscriber: Subscriber) -> bool:
        """Whether all named jobs have ended, and their last events were written."""
        if subscriber.job_filter.ids is None:
            return False
        for job_id in sorted(subscriber.job_filter.ids):
            try:
                job = await self._service.jobs.current(job_id)
            except JobUnreadable:
                continue  # such a job has no further events
            if job is not None and not (job.is_over and job.position <= subscriber.position):
                return False
        return True

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
                if not await self._is_permitted(subscriber):
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
        for broadcaster in (self._events, self._snapshots):
            broadcaster.detach(subscriber, "revoked")
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


async def _end_until_later(subscriber: Subscriber, response: web.StreamResponse) -> None:
    """End a stream whose client reconnects."""
    subscriber.write(Frames(_retry_later()))
    await response.write_eof()


def _retry_later(wait_s: float = 0.0) -> bytes:
    """The frame that delays a reconnect: at random, so that not all clients come at one moment."""
    wait_ms = int(min(wait_s, RETRY_MAX_S) * 1000)
    return retry_frame(wait_ms + random.randint(1_000, 10_000))  # noqa: S311

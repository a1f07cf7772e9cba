"""Server-sent events (WHATWG HTML, 9.2): the facts after a cursor, or the newest snapshots."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing, suppress

from aiohttp import web

from eventjobs.clock import Timer, sleep, timeout
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobGone, JobNotFound, JobUnreadable
from eventjobs.http.schemas.queries import last_event_id
from eventjobs.http.streams.audience import LiveSubscribers
from eventjobs.http.streams.broadcast import CLIENT, EventBroadcaster, SnapshotBroadcaster
from eventjobs.http.streams.frames import WRITE_BYTES, fact_frame, fitting, snapshot_frame
from eventjobs.http.streams.selection import JobFilter, JobLookup
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.subscriber import HEARTBEAT, Subscriber
from eventjobs.log import PAGE_MAX
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service

__all__ = ["JobFilter", "Streams"]

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
# Some proxies hold the headers back until the first bytes of the body.
HELLO = b"retry: 2000\n" + HEARTBEAT
END = b'event: end\ndata: {"reason":"finished"}\n\n'

#: Facts of named jobs that are held for a client while it reads.
NAMED_MAX = 128
#: Snapshots show what was written before, unless the views take longer than this.
VIEWS_S = 2.0
#: At a shutdown, for what is being written; who reads nothing then is cut off.
GOODBYE_S = 1.0
#: What is no position is the future.
NEVER = 2**62

#: Frames, up to the head; each moves the client's position to where it ends.
CatchUp = Callable[[Subscriber], AsyncGenerator[bytes, None]]


class Streams:
    """Every open stream of one service; its length is how many."""

    def __init__(self, service: Service, snapshots: Snapshots) -> None:
        self._service = service
        self._snapshots = snapshots
        self._settings = service.settings
        self._known = JobLookup(service.jobs)
        self._fact_hub = EventBroadcaster(service.log, self._known)
        self._snapshot_hub = SnapshotBroadcaster(service.views, snapshots)
        self._open: set[Subscriber] = set()
        self._none_open = asyncio.Event()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: Timer | None = None
        self._log = get_logger("eventjobs.stream")

    def __len__(self) -> int:
        return len(self._open)

    async def close(self) -> None:
        """End every stream cleanly, each told to come back at a moment of its own."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for hub in (self._fact_hub, self._snapshot_hub):
            for client in hub.everyone():
                hub.detach_with(client, "shutdown")
        if self._open:
            self._none_open.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._none_open.wait()
        for client in self._open:
            client.abort()

    def _start(self) -> None:
        """With the first stream: until then there is nobody to send to."""
        self._fact_hub.position = self._service.log.head
        for hub in (self._fact_hub, self._snapshot_hub):
            self._tasks.append(asyncio.create_task(self._run(hub), name=type(hub).__name__))
        self._beat()

    async def _run(self, hub: EventBroadcaster | SnapshotBroadcaster) -> None:
        while True:
            try:
                await hub.run()
            except Exception as error:  # noqa: BLE001 its clients would be silent for ever
                self._log.error("streams interrupted", hub=type(hub).__name__, exc_info=error)
            for client in hub.everyone():  # each finds by itself what it misses
                hub.detach_with(client, "behind")
            await sleep(self._service.clock, 1.0)

    def _beat(self) -> None:
        self._fact_hub.beat()
        self._snapshot_hub.beat()
        self._timer = self._service.clock.call_later(self._settings.heartbeat_s, self._beat)

    # --- the two kinds

    async def events(
        self, request: web.Request, selection: JobFilter, after: int | None
    ) -> web.StreamResponse:
        """The facts after the cursor, in order, none missing."""
        return await self._stream(request, selection, after, self._fact_hub, self._facts)

    async def snapshots(
        self, request: web.Request, selection: JobFilter, after: int | None = None
    ) -> web.StreamResponse:
        """The present state of each job, then each newer one, and which have gone; a slow reader
        skips to the newest.
        """
        with suppress(TimeoutError):
            async with timeout(self._service.clock, VIEWS_S):
                await self._service.views.reached(self._service.log.head)
        return await self._stream(request, selection, after, self._snapshot_hub, self._states)

    async def _facts(self, client: Subscriber) -> AsyncGenerator[bytes, None]:
        log, selection = self._service.log, client.selection
        limit = PAGE_MAX
        while client.position < (head := log.head):
            if selection.ids is not None and head - client.position > PAGE_MAX:
                async with aclosing(self._named_facts(client, selection.ids, head)) as pieces:
                    async for frames in pieces:
                        yield frames
                continue
            page = fitting(await log.read(client.position, limit))
            limit = min(PAGE_MAX, 2 * len(page))  # what does not fit is read again
            client.position = page[-1].position
            if selection.ids is not None:
                page = selection.of([each for each in page if each.job_id in selection.ids])
            elif not selection.everything:
                jobs = await self._known.of(page)
                page = [each for each in page if selection.wants(jobs[each.job_id])]
            frames = b"".join(map(fact_frame, page))
            del page  # a client that does not read holds its frames, and nothing else
            yield frames

    async def _named_facts(
        self, client: Subscriber, ids: Collection[str], head: int
    ) -> AsyncGenerator[bytes, None]:
        """Each job's own facts, merged: however long the log is, nobody else's are read."""
        limit = max(8, NAMED_MAX // max(1, len(ids)))
        read_to = dict.fromkeys(sorted(ids), client.position)
        held: list[Recorded] = []
        while client.position < head:
            for job_id, position in read_to.items():
                if position == client.position:  # all that was read of it was sent
                    events = await self._service.log.read_job(job_id, position, limit)
                    read_to[job_id] = events[-1].position if len(events) == limit else head
                    held += events
            client.position = upto = min(read_to.values(), default=head)
            held.sort(key=lambda each: each.position)
            while held and held[0].position <= upto:
                piece = [each for each in fitting(held) if each.position <= upto]
                held = held[len(piece) :]
                yield b"".join(map(fact_frame, client.selection.of(piece)))

    async def _states(self, client: Subscriber) -> AsyncGenerator[bytes, None]:
        views, selection = self._service.views, client.selection
        while client.position < (upto := views.position):
            after = client.position
            if selection.ids is None and after > 0:
                found, upto = await self._changed(selection, after, upto)
            else:
                found = await self._present(selection, after)
            client.position = upto
            frames: list[bytes] = []
            for position, job_id in sorted(found):
                # Looked up one by one: a client that does not read holds no more than a few.
                snapshot = await self._snapshots.get(job_id)
                if snapshot is not None:
                    frames.append(snapshot_frame(snapshot, min(position, upto)))
                if sum(map(len, frames)) > WRITE_BYTES:
                    yield b"".join(frames)
                    frames.clear()
            yield b"".join(frames)

    async def _present(self, selection: JobFilter, after: int) -> list[tuple[int, str]]:
        """The jobs there are, each with its position: those named, or the newest that match."""
        if selection.ids is None:
            limit = self._settings.page_max
            listed = await self._service.views.jobs(
                selection.filters(), order="newest", cursor=None, limit=limit
            )
            return [(view.job.position, view.job.job_id) for view in listed]
        found = []
        for job_id in sorted(selection.ids):
            if (job := await self._viewed(job_id)) is None or job.position <= after:
                continue
            if selection.concerns(job) if after else selection.shows(job, [job.status]):
                found.append((job.position, job_id))
        return found

    async def _changed(
        self, selection: JobFilter, after: int, upto: int
    ) -> tuple[list[tuple[int, str]], int]:
        """The jobs whose newest event is in the next page of the log, and where that page ends.

        One that changed again later is met there: so each is told once, in order of position, and
        whoever is cut off goes on from the last one.
        """
        page = [e for e in await self._service.log.read(after, PAGE_MAX) if e.position <= upto]
        end = page[-1].position
        found = []
        for job_id in dict.fromkeys(each.job_id for each in page):
            job = await self._viewed(job_id)
            if job is not None and after < job.position <= end and selection.concerns(job):
                found.append((job.position, job_id))
        return found, end

    async def _viewed(self, job_id: str) -> Job | None:
        """The job as the views have it."""
        if (job := self._service.views.cached_job(job_id)) is not None:
            return job
        snapshot = await self._snapshots.get(job_id)
        return None if snapshot is None else snapshot.job

    # --- what they share

    async def _stream(
        self,
        request: web.Request,
        selection: JobFilter,
        after: int | None,
        heads: LiveSubscribers,
        catch_up: CatchUp,
    ) -> web.StreamResponse:
        jobs = await self._named(selection)
        after, resumed = _cursor(request, after)
        head = self._service.log.head
        known = all(each.finished and each.position <= after for each in jobs)
        if resumed and jobs and known and after <= head:
            return web.Response(status=204)  # tells an EventSource to stop reconnecting
        response = web.StreamResponse(headers=HEADERS)
        if request.method == "HEAD":
            return response
        if (transport := request.transport) is None:
            return response  # it has left already
        limit = self._settings.stream_buffer_bytes_max
        _bound_buffers(transport, limit, self._settings.stall_s)
        chunked = request.version >= (1, 1)
        client = Subscriber(transport, selection.among(jobs), limit, chunked=chunked)
        try:
            if not chunked:
                response.force_close()  # only that tells where the body ends
            await response.prepare(request)
            # Refusing with 503 would make an EventSource give up for ever.
            if self._closing or len(self._open) >= self._settings.streams_max:
                await _goodbye(client, response)
                return response
            client.write(HELLO)
            if after > head:
                client.write(b'event: reset\ndata: {"head":%d}\n\n' % head)
                after = 0
            client.position = after
            request[CLIENT] = client
            self._open.add(client)
            if not self._tasks:
                self._start()
            await self._serve(request, response, client, heads, catch_up)
        except (ConnectionError, TimeoutError) as error:
            self._log.info("reader dropped", error=str(error))
            client.abort()
        finally:
            self._open.discard(client)
            if not self._open:
                self._none_open.set()
            heads.leave(client)
        return response

    async def _serve(
        self,
        request: web.Request,
        response: web.StreamResponse,
        client: Subscriber,
        heads: LiveSubscribers,
        catch_up: CatchUp,
    ) -> None:
        checked = -1
        while not client.gone:
            async with aclosing(catch_up(client)) as pieces:
                async for frames in pieces:
                    if frames:
                        client.write(frames)
                        await self._drained(request, client)
                    if self._closing or client.gone:
                        break
            if self._closing:
                await _goodbye(client, response)
                return
            if checked != client.position:
                if await self._ended(client):
                    # With a cursor, even if nothing was new: so that a reconnect gets its 204.
                    client.write(b"id: %d\n\n%b" % (client.position, END))
                    await self._drained(request, client)
                    await response.write_eof()
                    return
                checked = client.position
                continue
            # Nothing was awaited since "nothing is left": there is no gap.
            left = client.go_live()
            heads.join(client)
            await left
            heads.leave(client)
            checked = -1
            await self._drained(request, client)

    async def _ended(self, client: Subscriber) -> bool:
        """Whether all of the named jobs have ended, and this client was told all of it."""
        if client.selection.ids is None:
            return False
        for job_id in sorted(client.selection.ids):
            try:
                job = await self._service.jobs.current(job_id)
            except JobUnreadable:
                continue  # nothing more is done with it
            if job is not None and not (job.finished and job.position <= client.position):
                return False
        return True

    async def _named(self, selection: JobFilter) -> list[Job]:
        """The jobs a stream is about by name. Raises JobNotFound; JobGone when all are hidden."""
        jobs = []
        for job_id in sorted(selection.ids or ()):
            job = await self._service.jobs.current(job_id)
            if job is None:
                raise JobNotFound(f"there is no job {job_id}")
            jobs.append(job)
        if jobs and all(job.expired_us is not None for job in jobs):
            raise JobGone(expired_us=max(job.expired_us or 0 for job in jobs))
        return jobs

    async def _drained(self, request: web.Request, client: Subscriber) -> None:
        """Wait while a client is full. Raises TimeoutError when it reads nothing for too long."""
        if not client.full:
            return
        draining = asyncio.ensure_future(request.writer.drain())
        try:
            while not draining.done():
                unsent = client.unsent
                with suppress(TimeoutError):
                    async with timeout(self._service.clock, self._settings.stall_s):
                        await asyncio.shield(draining)
                if not draining.done() and client.unsent >= unsent:
                    raise TimeoutError("it reads nothing")
        finally:
            draining.cancel()


def _cursor(request: web.BaseRequest, after: int | None) -> tuple[int, bool]:
    """Where to go on, and whether an EventSource says so, which wins: by its header, or by the
    parameter of those that cannot send one.
    """
    told = request.headers.get("Last-Event-ID") or last_event_id(request)
    if not told:
        return after or 0, False
    return (int(told) if told.isascii() and told.isdigit() and len(told) < 19 else NEVER), True


def _bound_buffers(transport: asyncio.Transport, high: int, stall_s: float) -> None:
    transport.set_write_buffer_limits(high=high)
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    # Autotuning lets a client that never reads swallow megabytes unseen.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # One whose network is gone would otherwise be waited for a quarter of an hour.
        timeout_ms = max(1, int(stall_s * 1000))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


async def _goodbye(client: Subscriber, response: web.StreamResponse) -> None:
    """End a stream so that its reader comes back, but not at the same moment as all others."""
    client.write(b"retry: %d\n\n" % random.randint(1_000, 10_000))  # noqa: S311
    await response.write_eof()

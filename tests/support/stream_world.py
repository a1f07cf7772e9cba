"""Streams over a simulated network and log: the real Streams, and writers of events."""

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Any, cast

from aiohttp import web

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.principals import LOCAL
from eventjobs.clock import SystemClock
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobGone
from eventjobs.http.access_log import AccessLog
from eventjobs.http.auth import PRINCIPAL
from eventjobs.http.connection_limits import ConnectionLimits
from eventjobs.http.origin_guard import OriginGuard
from eventjobs.http.protocol import Connections
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.refusals import with_refusals
from eventjobs.http.request_ids import REQUEST_ID
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.streams import Streams
from eventjobs.log import PAGE_MAX
from eventjobs.observability.logging import get_logger
from eventjobs.projections import JobChange, JobView, Views
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.simulated_loop import TURN_S, SimulatedTransport
from tests.support.stream_site import change

BEAT_S = 0.5


PROXIES = TrustedProxies(())
SETTINGS = Settings(heartbeat_s=BEAT_S, stall_s=60, stream_buffer_bytes_max=1024)


class SlowLog(MemoryLog):
    """Reads take a while, and pages are as short as the interface allows."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        await pause(self._rng)
        page = await super().read(after, min(limit, self._rng.randint(1, 9)))
        await pause(self._rng)
        return page

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        await pause(self._rng)
        page = await super().read_job(job_id, after, limit)
        await pause(self._rng)
        return page

    def all(self) -> list[Recorded]:
        return self._tail.since(0, self.head) or []


class SimulatedViews:
    """The part of Views that streams use. It follows the log with a delay, and its file the present
    with another.
    """

    def __init__(self, log: SlowLog, rng: random.Random) -> None:
        self.present_position = self.position = 0
        self.failing: str | None = None
        self._events = log
        self._rng = rng
        self._jobs: dict[str, Job] = {}
        self._listeners: list[Callable[[list[JobChange]], object]] = []

    def listen(self, listener: Callable[[list[JobChange]], object]) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        while True:
            await self._events.wait(self.present_position)
            if self._rng.random() < 0.2:
                await asyncio.sleep(self._rng.random() * 0.1)
            batch = await self._events.read(self.present_position)
            changes: dict[str, JobChange] = {}
            for each in batch:
                job = self._jobs.get(each.job_id)
                self._jobs[each.job_id] = after = evolve(job, each)
                change = changes.setdefault(each.job_id, JobChange(job, after, None, None))
                change.after = after
                change.events.append(each)
            self.present_position = batch[-1].position
            if self._rng.random() < 0.3:
                self.position = self.present_position
            for listener in self._listeners:
                listener(list(changes.values()))

    async def wait_for_present(self, position: int) -> None:
        while self.present_position < position:
            await self._events.wait(self.present_position)
            await asyncio.sleep(TURN_S)

    async def wait_for_position(self, position: int) -> None:
        await self.wait_for_present(position)
        self.position = self.present_position

    def cached_job(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def all(self) -> dict[str, Job]:
        return self._jobs

    async def skip_events(
        self, after: int, types: Collection[str] | None, owner: str | None
    ) -> int:
        await pause(self._rng)
        if types is None and owner is None:
            return after
        upto = self.position
        for each in self._events.all()[after:upto]:
            if types is None or self._jobs[each.job_id].spec.type in types:
                # Any position up to the first event that matches will do.
                upto = self._rng.randint(after, each.position - 1)
                break
        await pause(self._rng)
        return max(after, upto)

    async def job(self, job_id: str) -> JobView | None:
        await pause(self._rng)
        job = self._jobs.get(job_id)
        await pause(self._rng)
        return None if job is None else JobView(job, None, None)

    async def jobs(
        self, filters: dict[str, Any], *, order: str, cursor: int | None, limit: int
    ) -> list[JobView]:
        assert (order, cursor) == ("newest", None)
        await pause(self._rng)
        views = [
            JobView(job, None, None)
            for job in sorted(self._jobs.values(), key=lambda job: -job.born)
            if job.expired_us is None
            and (filters["type"] is None or job.spec.type in filters["type"])
            and (filters["status"] is None or job.status in filters["status"])
            and (filters["tag"] is None or filters["tag"] in job.spec.tags)
        ][:limit]
        await pause(self._rng)
        return views


async def pause(rng: random.Random) -> None:
    for _ in range(rng.choice((0, 0, 0, 1, 2, 5))):
        await asyncio.sleep(0)


class World:
    """A service with real Streams on a simulated log, views and network."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.log = SlowLog(rng)
        self.jobs = Jobs(self.log)
        self.views = SimulatedViews(self.log, rng)
        self.is_written = self.is_closing = False
        self.slowest_s = 1.0
        self.settings = SETTINGS
        self.clock = SystemClock()
        self.credentials = Credentials(self.clock, ())
        self.snapshots = Snapshots(cast(Views, self.views))
        self.streams = Streams(cast(Service, self), self.snapshots)
        #: By the number in a request's path: the filter, and whether snapshots are streamed.
        self.subscriptions: list[tuple[JobFilter, bool]] = []
        self.errors: list[Exception] = []
        server = web.Server(self._serve)
        server.request_factory = with_refusals(
            server.request_factory, OriginGuard(SETTINGS, PROXIES)
        )
        self._connections = Connections(
            server,
            ConnectionLimits(SETTINGS.connections_max, None, PROXIES.trusts),
            AccessLog(get_logger("eventjobs.http"), PROXIES, all_requests=False),
            self.clock,
            head_timeout_s=SETTINGS.head_timeout_s,
        )

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        request[PRINCIPAL], request[REQUEST_ID] = LOCAL, "simulated"
        job_filter, snapshots = self.subscriptions[int(request.path[1:])]
        open_stream = self.streams.snapshots if snapshots else self.streams.events
        after = int(request.query["after"]) if "after" in request.query else None
        try:
            return await open_stream(cast(web.Request, request), job_filter, after)
        except JobGone:
            return web.Response(status=410)
        except Exception as error:
            self.errors.append(error)
            raise

    def connect(self, request: bytes) -> SimulatedTransport:
        protocol = self._connections.connect()
        transport = SimulatedTransport(protocol)
        protocol.data_received(request)
        return transport

    async def write(self, steps: int) -> None:
        """Change random jobs, *steps* times."""
        for _ in range(steps):
            await change(self.jobs, self.rng, self.rng.randrange(4))
            await pause(self.rng)
            if self.rng.random() < 0.05:
                await asyncio.sleep(self.rng.random())

    async def submit_all(self) -> None:
        for number in range(4):
            if await self.jobs.load(job_id(number)) is None:
                await change(self.jobs, self.rng, number)

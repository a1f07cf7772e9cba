"""A worker as a process: runs the jobs of a service elsewhere until a signal ends it."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp

from eventjobs.client.connection import REQUEST, Connection
from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.clock import SystemClock
from eventjobs.concurrency import forks
from eventjobs.errors import EventjobsError, UnknownType
from eventjobs.execution.build import build_call_policy, build_runner
from eventjobs.execution.loop_monitor import LoopMonitor
from eventjobs.execution.runner import Runner
from eventjobs.handlers.breaker_state import LocalBreakerRegistry
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.observability.logging import get_logger
from eventjobs.settings import Settings
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker.source import RemoteJobSource


class WorkerRefused(EventjobsError):
    """The service gives this worker no jobs, and asking again is of no use."""

    def __init__(self, why: ApiError | Unreachable, url: str) -> None:
        if isinstance(why, Unreachable):
            message = why.message
        else:
            more = "".join(f" ({each.get('field')}: {each.get('message')})" for each in why.errors)
            message = f"{url} refuses this worker: {why.detail}{more}"
            if why.code == UnknownType.code:
                message += "; serve its handler there, or name it in EVENTJOBS_WORKER_TYPES"
        super().__init__(message)
        self.code = why.code  # type: ignore[misc]  # the service's own


class Worker:
    """The worker, from start to stop."""

    def __init__(
        self,
        name: str,
        url: str,
        handlers: HandlerRegistry,
        settings: Settings,
        folder: Path,
        lease_s: float | None,
    ) -> None:
        self._name = name
        self._url = url
        self._handlers = handlers
        self._settings = settings
        self._folder = folder
        self._lease_s = lease_s
        self._runner: Runner | None = None
        self._log = get_logger("eventjobs.worker")

    async def run(self, stop: Awaitable[object]) -> None:
        """Run jobs until *stop* is done; running jobs then have the drain time to end."""
        clock = SystemClock()
        watchdog = LoopMonitor(asyncio.get_running_loop())
        files = Artifacts(self._folder, self._settings.artifact_bytes_max)
        await asyncio.to_thread(files.prepare)
        connector = aiohttp.TCPConnector(limit=0, socket_factory=forks.create_private_socket)
        async with aiohttp.ClientSession(connector=connector, timeout=REQUEST) as session:
            http = Connection(session, self._url, clock, 60.0, lambda delay_s: None)
            desk = RemoteJobSource(
                http,
                worker=self._name,
                lease_s=self._lease_s,
                files=files,
                calls=build_call_policy(self._settings, LocalBreakerRegistry(clock)),
                clock=clock,
            )
            await self._work(desk, stop)
        watchdog.close()
        self._log.info("stopped")

    async def _work(self, desk: RemoteJobSource, stop: Awaitable[object]) -> None:
        settings, scratch = self._settings, self._folder / "scratch"
        self._runner = runner = build_runner(settings, desk, self._handlers, scratch)
        self._log.info("working", url=self._url, types=sorted(self._handlers.types()))
        print(self._name, flush=True)
        beating = asyncio.create_task(desk.send_heartbeats(), name="heartbeats")
        claiming = asyncio.create_task(runner.run(), name="runner")
        stopped = asyncio.ensure_future(stop)
        ends: set[asyncio.Future[Any]] = {beating, claiming, stopped, desk.outage.refused}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._log.info("stopping")
            await desk.stop_claiming()
            await runner.stop(settings.drain_s)
            await claiming
            if beating.done():
                await beating  # it only ends when something is wrong
            if desk.outage.refused.done():
                raise WorkerRefused(desk.outage.refused.result(), self._url)
        finally:
            stopped.cancel()
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def release_jobs(self) -> None:
        """Give running jobs back at once."""
        self._log.info("hurrying")
        if self._runner is not None:
            await self._runner.stop(0.0)

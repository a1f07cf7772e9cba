"""A remote worker: runs the jobs of a service over HTTP until it is stopped."""

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

from eventjobs.client.connection import REQUEST, Connection
from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.client.requests import bearer
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
    """The service refuses this worker for good."""

    def __init__(self, error: ApiError | Unreachable, url: str) -> None:
        if isinstance(error, Unreachable):
            message = error.message
        else:
            fields = "".join(
                f" ({each.get('field')}: {each.get('message')})" for each in error.errors
            )
            message = f"{url} refuses this worker: {error.detail}{fields}"
            if error.code == UnknownType.code:
                message += "; serve its handler there, or name it in EVENTJOBS_WORKER_TYPES"
            elif error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                message += "; set EVENTJOBS_TOKEN to an API key with the scopes worker:TYPE"
        super().__init__(message)
        self.code = error.code  # type: ignore[misc]  # the code of the service's problem


class Worker:
    """Runs *handlers* for the jobs of the service at *url*. *folder* is for its files.

    *token*, an API key or a JWT, is sent with every request.
    """

    def __init__(
        self,
        name: str,
        url: str,
        handlers: HandlerRegistry,
        settings: Settings,
        folder: Path,
        lease_s: float | None,
        *,
        token: str | None = None,
    ) -> None:
        self._name = name
        self._headers = bearer(url, token)
        self._url = url
        self._handlers = handlers
        self._settings = settings
        self._folder = folder
        self._lease_s = lease_s
        self._runner: Runner | None = None
        self._log = get_logger("eventjobs.worker")

    async def run(self, stop: Awaitable[object]) -> None:
        """Run jobs until *stop* is done. Running jobs then have the drain time to end.

        Raises WorkerRefused.
        """
        clock = SystemClock()
        loop_monitor = LoopMonitor(asyncio.get_running_loop())
        files = Artifacts(self._folder, self._settings.artifact_bytes_max)
        await asyncio.to_thread(files.prepare)
        connector = aiohttp.TCPConnector(limit=0, socket_factory=forks.create_private_socket)
        async with aiohttp.ClientSession(connector=connector, timeout=REQUEST) as session:
            http = Connection(session, self._url, clock, 60.0, lambda delay_s: None, self._headers)
            source = RemoteJobSource(
                http,
                worker=self._name,
                lease_s=self._lease_s,
                files=files,
                calls=build_call_policy(self._settings, LocalBreakerRegistry(clock)),
                clock=clock,
            )
            await self._run(source, stop)
        loop_monitor.close()
        self._log.info("stopped")

    async def _run(self, source: RemoteJobSource, stop: Awaitable[object]) -> None:
        settings, scratch = self._settings, self._folder / "scratch"
        self._runner = runner = build_runner(settings, source, self._handlers, scratch)
        self._log.info("working", url=self._url, types=sorted(self._handlers.types()))
        print(self._name, flush=True)
        heartbeats = asyncio.create_task(source.heartbeats.run(), name="heartbeats")
        running = asyncio.create_task(runner.run(), name="runner")
        stopped = asyncio.ensure_future(stop)
        ends: set[asyncio.Future[Any]] = {heartbeats, running, stopped, source.outage.refused}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._log.info("stopping", signal=stopped.result() if stopped.done() else None)
            await source.stop_claiming()
            await runner.stop(settings.drain_s)
            await running
            if heartbeats.done():
                await heartbeats  # raises the error that ended it
            if source.outage.refused.done():
                raise WorkerRefused(source.outage.refused.result(), self._url)
        finally:
            stopped.cancel()
            heartbeats.cancel()
            await asyncio.gather(heartbeats, return_exceptions=True)

    async def release_jobs(self) -> None:
        """Release the running jobs at once."""
        self._log.info("hurrying")
        if self._runner is not None:
            await self._runner.stop(0.0)

"""A worker as a process: runs the jobs of a service elsewhere until a signal ends it."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from eventjobs import forks, garbage
from eventjobs.artifacts import Artifacts
from eventjobs.breakers import LocalBreakers
from eventjobs.capture import let_through
from eventjobs.clock import SystemClock
from eventjobs.connection import REQUEST, Connection, Problem, Unreachable, address
from eventjobs.errors import EventjobsError, InvalidInput, UnknownType
from eventjobs.handlers import Handlers
from eventjobs.logs import get_logger
from eventjobs.remote import RemoteDesk
from eventjobs.runner import NOT_OURS, Runner
from eventjobs.running import calls_of, runner_of
from eventjobs.scratch import scratch
from eventjobs.serving import Signals, load, run_main
from eventjobs.settings import Settings
from eventjobs.watchdog import Watchdog


class WorkerRefused(EventjobsError):
    """The service gives this worker no jobs, and asking again is of no use."""

    def __init__(self, why: Problem | Unreachable, url: str) -> None:
        if isinstance(why, Unreachable):
            message = why.message
        else:
            more = "".join(f" ({each.get('field')}: {each.get('message')})" for each in why.errors)
            message = f"{url} refuses this worker: {why.detail}{more}"
            if why.code == UnknownType.code:
                message += "; serve its handler there, or name it in EVENTJOBS_WORKER_TYPES"
        super().__init__(message)
        self.code = why.code  # type: ignore[misc]  # the service's own


def run(url: str, names: Sequence[str], settings: Settings, lease_s: float | None) -> None:
    """Run jobs of the service at *url* until a signal says to stop. Raises InvalidInput,
    DataDirectoryError, WorkerRefused.
    """
    handlers = load(names)
    if all(each.mode in NOT_OURS for each in handlers):
        raise InvalidInput(f"no handler in {', '.join(names)} can be run by a worker")
    if settings.concurrency == 0:
        raise InvalidInput("a worker with concurrency 0 would never do anything")
    let_through(settings.capture_logs)
    garbage.look_seldom()
    # Random at each start: a restarted process must never look like the one that died.
    name = f"worker-{os.urandom(8).hex()}"
    with scratch(name) as folder:
        run_main(_Process(name, address(url), handlers, settings, folder, lease_s).run())


class _Process:
    """The worker, from start to stop."""

    def __init__(
        self,
        name: str,
        url: str,
        handlers: Handlers,
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
        self._signals = Signals(self._hurry)
        self._runner: Runner | None = None
        self._log = get_logger("eventjobs.worker")

    async def run(self) -> None:
        self._signals.catch()
        clock = SystemClock()
        watchdog = Watchdog(asyncio.get_running_loop())
        files = Artifacts(self._folder, self._settings.artifact_bytes_max)
        await asyncio.to_thread(files.prepare)
        connector = aiohttp.TCPConnector(limit=0, socket_factory=forks.private_socket)
        async with aiohttp.ClientSession(connector=connector, timeout=REQUEST) as session:
            http = Connection(session, self._url, clock, 60.0, lambda delay_s: None)
            desk = RemoteDesk(
                http,
                worker=self._name,
                lease_s=self._lease_s,
                files=files,
                calls=calls_of(self._settings, LocalBreakers(clock)),
                clock=clock,
            )
            await self._work(desk)
        watchdog.close()
        self._log.info("stopped")

    async def _work(self, desk: RemoteDesk) -> None:
        settings, scratch = self._settings, self._folder / "scratch"
        self._runner = runner = runner_of(settings, desk, self._handlers, scratch)
        self._log.info("working", url=self._url, types=sorted(self._handlers.types()))
        print(self._name, flush=True)
        beating = asyncio.create_task(desk.beat(), name="heartbeats")
        claiming = asyncio.create_task(runner.run(), name="runner")
        stopped = asyncio.create_task(self._signals.asked(), name="stop")
        ends: set[asyncio.Future[Any]] = {beating, claiming, stopped, desk.trouble.refused}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._log.info("stopping")
            await desk.leave()
            await runner.stop(settings.drain_s)
            await claiming
            if beating.done():
                await beating  # it only ends when something is wrong
            if desk.trouble.refused.done():
                raise WorkerRefused(desk.trouble.refused.result(), self._url)
        finally:
            stopped.cancel()
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _hurry(self) -> None:
        self._log.info("hurrying")
        if self._runner is not None:
            await self._runner.stop(0.0)

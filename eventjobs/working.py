"""A worker as a process: runs the jobs of a service elsewhere until a signal ends it."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import structlog

from eventjobs import garbage
from eventjobs.artifacts import Artifacts
from eventjobs.breakers import LocalBreakers
from eventjobs.calling import Calls
from eventjobs.capture import let_through
from eventjobs.clock import Clock, SystemClock
from eventjobs.connection import REQUEST, Connection, address
from eventjobs.errors import InvalidInput
from eventjobs.handlers import Handlers
from eventjobs.processes import Processes
from eventjobs.remote import RemoteDesk
from eventjobs.runner import NOT_OURS, Runner
from eventjobs.scratch import scratch
from eventjobs.serving import SIGNALS, load, loop_factory
from eventjobs.settings import Settings
from eventjobs.watchdog import Watchdog


def run(url: str, names: Sequence[str], settings: Settings, lease_s: float | None) -> None:
    """Run jobs of the service at *url* until a signal says to stop. Raises InvalidInput,
    DataDirectoryError.
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
    with scratch(name) as folder, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_Process(name, address(url), handlers, settings, folder, lease_s).run())


class _Process:
    """The first signal stops it, the second hurries it, the third is not caught."""

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
        self._stop = asyncio.Event()
        self._runner: Runner | None = None
        self._hurrying: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("eventjobs.worker")

    async def run(self) -> None:
        for each in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(each, self._signalled)
        clock = SystemClock()
        watchdog = Watchdog(asyncio.get_running_loop())
        files = Artifacts(self._folder, self._settings.artifact_bytes_max)
        await asyncio.to_thread(files.prepare)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=REQUEST) as session:
            http = Connection(session, self._url, clock, 60.0, lambda delay_s: None)
            desk = RemoteDesk(
                http,
                worker=self._name,
                lease_s=self._lease_s,
                files=files,
                calls=self._calls(clock),
                clock=clock,
            )
            await self._work(desk, self._processes(desk, self._folder / "scratch"))
        watchdog.close()
        self._log.info("stopped")

    def _calls(self, clock: Clock) -> Calls:
        settings = self._settings
        return Calls(LocalBreakers(clock), settings.backoff, settings.store_attempts)

    def _processes(self, desk: RemoteDesk, folder: Path) -> Processes:
        settings = self._settings
        return Processes(
            desk.clock,
            desk.files,
            desk.calls,
            folder,
            limit=settings.processes or os.cpu_count() or 1,
            jobs_max=settings.process_jobs_max,
            capture_logs=settings.capture_logs,
            grace_s=settings.grace_s,
        )

    async def _work(self, desk: RemoteDesk, processes: Processes) -> None:
        settings = self._settings
        self._runner = runner = Runner(
            desk,
            self._handlers,
            concurrency=settings.concurrency,
            threads=settings.threads,
            processes=processes,
            grace_s=settings.grace_s,
            progress_interval_s=settings.progress_interval_s,
            capture_logs=settings.capture_logs,
        )
        self._log.info("working", url=self._url, types=sorted(self._handlers.types()))
        print(self._name, flush=True)
        beating = asyncio.create_task(desk.beat(), name="heartbeats")
        claiming = asyncio.create_task(runner.run(), name="runner")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({beating, claiming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self._log.info("stopping")
            await desk.leave()
            await runner.stop(settings.drain_s)
            await claiming
            if beating.done():
                await beating  # it only ends when something is wrong
        finally:
            stopped.cancel()
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    def _signalled(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        self._log.info("hurrying")
        for each in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(each)
        if self._runner is not None:
            self._hurrying = asyncio.create_task(self._runner.stop(0.0), name="hurry")

"""A worker in the process of the test, and a network to its service that can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from eventjobs.client.connection import Connection
from eventjobs.client.requests import bearer
from eventjobs.clock import SystemClock
from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.runner import Runner
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.breaker_state import LocalBreakerRegistry
from eventjobs.handlers.declare import remote
from eventjobs.handlers.registry import Handler
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker.source import RemoteJobSource
from tests.support.http_client import Client

CLOCK = SystemClock()


class InProcessWorker:
    """A remote worker in this process: its runner and its heartbeats."""

    def __init__(self, source: RemoteJobSource, runner: Runner) -> None:
        self.source = source
        self.runner = runner
        self.running = asyncio.create_task(runner.run())
        self.heartbeats = asyncio.create_task(source.heartbeats.run())

    async def stop(self, drain_s: float = 10.0) -> None:
        await self.source.stop_claiming()
        await self.runner.stop(drain_s)
        await self.running
        self.heartbeats.cancel()


class Network:
    """A network between worker and service, which can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut.is_set():
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, there_writer}
        with suppress(ConnectionError):
            await asyncio.gather(_pass(reader, there_writer), _pass(there_reader, writer))
        for each in (writer, there_writer):
            each.transport.abort()

    def cut(self) -> None:
        self._cut.set()
        for each in self._open:
            each.transport.abort()

    def mend(self) -> None:
        self._cut.clear()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(65_536):
        writer.write(block)
    writer.close()


@asynccontextmanager
async def network_to(api: Client) -> AsyncIterator[tuple[Network, int]]:
    network = Network(api.listening.port)
    server = await asyncio.start_server(network, "127.0.0.1", 0)
    async with server:
        yield network, server.sockets[0].getsockname()[1]
        network.cut()


@asynccontextmanager
async def remote_runner(
    api: Client,
    folder: Path,
    *handlers: Handler,
    lease_s: float | None = None,
    port: int | None = None,
    processes: int = 0,
    token: str | None = None,
    **limits: int,
) -> AsyncIterator[InProcessWorker]:
    """A worker for the service behind *api*, or at *port*. Its files are in *folder*."""
    files = Artifacts(folder, 2**30)
    await asyncio.to_thread(files.prepare)
    address = f"http://127.0.0.1:{port or api.listening.port}"
    async with aiohttp.ClientSession() as session:
        http = Connection(session, address, CLOCK, 60, lambda delay_s: None, bearer(address, token))
        calls = CallPolicy(LocalBreakerRegistry(CLOCK))
        source = RemoteJobSource(
            http, worker="afar", lease_s=lease_s, files=files, calls=calls, clock=CLOCK
        )
        scratch = folder / "scratch"
        some = ProcessPool(CLOCK, files, calls, scratch, limit=processes, jobs_max=99, grace_s=0.2)
        numbers: dict[str, Any] = {"concurrency": 8, "threads": 4, "processes": some, **limits}
        runner = Runner(source, handlers, **numbers, grace_s=0.2, progress_interval_s=0)  # type: ignore[arg-type]
        worker = InProcessWorker(source, runner)
        try:
            yield worker
        finally:
            await worker.stop(0.0)


def declare_remote(*handlers: Handler) -> list[Handler]:
    """The types as the service declares them: remote workers run them."""
    return [remote(each.type, model=each.model) for each in handlers]

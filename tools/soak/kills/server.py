"""Starts and ends the service, one process (a life) after another."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
APP = "eventjobs.tools.soak.kills.handlers:HANDLERS"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
#: An unexpected error in the log of the service.
WRONG = re.compile(rb"Traceback|unexpected error|stopped working")
#: A line with the traceback of a handler's error.
FAILED = re.compile(rb'"event": "attempt failed", "level": "(warning|error)"')
#: So short that a job of milliseconds has unsent progress at a kill.
ENVIRONMENT = {"EVENTJOBS_PROGRESS_INTERVAL_S": "0.004"}
#: A start that takes longer has failed.
START_S = 60.0


class Died(Exception):
    """The service ended by itself."""


class Life:
    """One run of the service."""

    def __init__(self, how: str) -> None:
        loop = asyncio.get_running_loop()
        self.how = how
        self.pid: asyncio.Future[int] = loop.create_future()
        self.url: asyncio.Future[str] = loop.create_future()
        self.dead: asyncio.Future[int] = loop.create_future()
        #: commands of the processes that it left behind
        self.left: list[str] = []

    async def ready(self) -> str:
        """Wait until it serves; its address. Raises Died, TimeoutError."""
        async with asyncio.timeout(START_S):
            await either(self.url, self.dead)
        if not self.url.done():
            raise Died(f"the server ended with {self.dead.result()} at its start")
        return self.url.result()

    async def end(self, number: signal.Signals, within_s: float = START_S) -> int:
        """Send it a signal; its exit code. Raises TimeoutError, and Died if it had ended before."""
        pid = await self.pid
        if self.dead.done():
            raise Died(f"the server ended by itself, with {self.dead.result()}")
        os.kill(pid, number)
        async with asyncio.timeout(within_s):
            return await self.dead


async def either(one: asyncio.Future[Any], other: asyncio.Future[Any]) -> None:
    await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)


class Servers:
    """Use it as `async with Servers(data) as servers`; one life at a time.

    A fork of the nursery starts without the imports, which take half a second.
    """

    def __init__(
        self,
        data: Path,
        app: str = APP,
        port: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = data.with_name(f"{data.name}.log")
        self._environment = os.environ | ENVIRONMENT | (environment or {})
        self._arguments = ["--data", str(data), "--port", str(port), "--app", app]
        self._life: Life | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._scanned = 0

    _nursery: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._nursery = await self._spawn("-m", "eventjobs.tools.soak.kills.nursery")
        self._pumps.append(asyncio.create_task(self._until_dead(self._nursery)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._life is not None and not self._life.dead.done() and self._life.pid.done():
            os.kill(self._life.pid.result(), signal.SIGKILL)
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        await asyncio.gather(*self._pumps)

    async def fork(self) -> Life:
        """A fork of the nursery, ready in some ten milliseconds. Raises Died, TimeoutError."""
        self._life = life = Life("forked")
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(b".")
        async with asyncio.timeout(START_S):
            await either(life.pid, life.dead)
        if not life.pid.done():
            raise Died(f"the nursery did not start; see {self.log}")
        return life

    async def command(self) -> Life:
        """`eventjobs serve`, as a user starts it."""
        self._life = life = Life("command")
        process = await self._spawn("-m", "eventjobs", "serve")
        life.pid.set_result(process.pid)
        self._pumps = [each for each in self._pumps if not each.done()]
        self._pumps.append(asyncio.create_task(self._until_dead(process)))
        return life

    def complaints(self) -> list[str]:
        """Unexpected errors in the log since the last call."""
        with self.log.open("rb") as file:
            file.seek(self._scanned)
            added = file.read()
        self._scanned += len(added)
        return [
            line.decode("utf-8", "replace")
            for line in added.splitlines()
            if WRONG.search(line) and not FAILED.search(line)
        ]

    async def _spawn(self, *command: str) -> asyncio.subprocess.Process:
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=self._environment,
            )
        finally:
            os.close(log)

    async def _until_dead(self, process: asyncio.subprocess.Process) -> None:
        """Read what is printed about the current life, until *process* ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            life, text = self._life, line.decode()
            assert life is not None
            if text.startswith("born "):
                life.pid.set_result(int(text.split()[1]))
            elif text.startswith("left "):
                life.left.append(text[len("left ") :].strip())
            elif text.startswith("dead "):
                life.dead.set_result(int(text.split()[1]))
            elif (address := ADDRESS.search(text)) and not life.url.done():
                life.url.set_result(address[0])
        code = await process.wait()
        if self._life is not None and not self._life.dead.done():
            self._life.dead.set_result(code)

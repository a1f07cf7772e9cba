"""Kills the processes of handlers when the service has been killed and cannot do so itself."""

import asyncio
import socket
import sys
from asyncio.subprocess import Process
from contextlib import suppress

from eventjobs.concurrency import forks

# It reads process groups from stdin, which ends however the service ends. It ignores the signals
# that a supervisor or a terminal sends to all processes: the service may go on for a while.
_PROGRAM = """
import os, signal, sys
for each in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
    signal.signal(each, signal.SIG_IGN)
os.chdir("/")
groups = set()
for line in sys.stdin:
    if line == ".\\n":
        break
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for each in groups:
    try:
        os.killpg(each, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""

#: Seconds for the reaper to end.
END_S = 1.0


class ProcessReaper:
    """A small process beside the service, started with the first process group."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The pid of the reaper process, if it runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def register(self, group: int) -> None:
        """Kill the process group *group* when the service ends. Raises OSError."""
        async with self._starting:
            self._groups.add(group)
            if self.pid is not None:
                self._send(f"+{group}\n")
                return
            await self._start()
            self._send("".join(f"+{each}\n" for each in self._groups))

    async def _start(self) -> None:
        if self._writer is not None:  # of a reaper that was killed
            self._writer.close()
        ours, theirs = socket.socketpair()
        forks.close_in_children(ours.fileno())
        theirs.setblocking(True)  # the program may have set another default timeout
        with theirs:
            _, self._writer = await asyncio.open_connection(sock=ours)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _PROGRAM),
                stdin=theirs.fileno(),
                stdout=2,
                start_new_session=True,
            )

    def unregister(self, group: int) -> None:
        """The group has ended; its number may be reused."""
        if group in self._groups:
            self._groups.remove(group)
            self._send(f"-{group}\n")

    async def close(self) -> None:
        """End the reaper, which kills the groups that are still registered."""
        if self._writer is not None:
            self._send(".\n")  # a handler's child may keep the socket open
            self._writer.close()
        if self._process is not None:
            with suppress(TimeoutError):  # another wait may have taken its exit code
                async with asyncio.timeout(END_S):
                    await self._process.wait()

    def _send(self, what: str) -> None:
        if (
            self._writer is not None and not self._writer.is_closing()
        ):  # closed when the reaper ends
            self._writer.write(what.encode())

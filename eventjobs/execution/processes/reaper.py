"""Ends what handlers have started when the service is killed: it cannot do that itself then."""

import asyncio
import socket
import sys
from asyncio.subprocess import Process
from contextlib import suppress

from eventjobs.concurrency import forks

# It only hears of groups and sees the end of its stdin, however the service ends. What a supervisor
# or a terminal sends to everybody must not end it: the service may go on for a while.
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

#: For it to end.
END_S = 1.0


class ProcessReaper:
    """A small process beside the service, from when there is the first group to be ended."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """That of its process, if there is one."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def register(self, group: int) -> None:
        """From now on the process group *group* ends when the service does. Raises OSError."""
        async with self._starting:
            self._groups.add(group)
            if self.pid is not None:
                self._send(f"+{group}\n")
                return
            await self._start()
            self._send("".join(f"+{each}\n" for each in self._groups))

    async def _start(self) -> None:
        if self._writer is not None:  # that of one that was killed
            self._writer.close()
        ours, theirs = socket.socketpair()
        forks.close_in_children(ours.fileno())
        theirs.setblocking(True)  # whatever the default timeout of new sockets is by now
        with theirs:
            _, self._writer = await asyncio.open_connection(sock=ours)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _PROGRAM),
                stdin=theirs.fileno(),
                stdout=2,
                start_new_session=True,
            )

    def unregister(self, group: int) -> None:
        """It has ended, and its number may be another's."""
        if group in self._groups:
            self._groups.remove(group)
            self._send(f"-{group}\n")

    async def close(self) -> None:
        """End it; and with it what it still watches."""
        if self._writer is not None:
            self._send(".\n")  # what a handler has started may keep the socket open
            self._writer.close()
        if self._process is not None:
            with suppress(TimeoutError):  # a handler has waited for it in our place
                async with asyncio.timeout(END_S):
                    await self._process.wait()

    def _send(self, what: str) -> None:
        if self._writer is not None and not self._writer.is_closing():  # by its own end
            self._writer.write(what.encode())

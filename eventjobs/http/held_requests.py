"""Requests that are answered later, or for a long time: long polls and streams."""

import asyncio
from abc import ABC, abstractmethod

from aiohttp import web

#: Seconds before each of the two writes of a probe.
PROBE_S = 1.0


class HeldRequest(ABC):
    """What keeps a request open. Its connection calls *leave* and *probe*."""

    @abstractmethod
    def leave(self) -> None:
        """The connection is lost: nothing is needed any more."""

    @abstractmethod
    def write_probe(self) -> None:
        """Write something that the client ignores."""

    def probe(self) -> None:
        """Find out whether a client that closed its sending side still reads.

        The machine of a client that has gone answers the first write with a reset, and the second
        write fails.
        """
        call_later = asyncio.get_running_loop().call_later
        for number in (1, 2):
            call_later(number * PROBE_S, self.write_probe)


#: The long poll that holds a request open.
HELD = web.RequestKey("held", HeldRequest)

"""An event loop with virtual time that draws the next callback, and a transport without sockets."""

import asyncio
import os
import random
import selectors
import socket
from collections.abc import Iterable
from typing import Any

TURN_S = 0.001


class NoFiles(selectors.SelectSelector):
    """A selector without files: every callback is the loop's own."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Virtual time, and one callback a turn: shuffling all that are ready finds fewer orders."""

    _ready: Any
    _scheduled: Any

    def __init__(self, rng: random.Random) -> None:
        super().__init__(NoFiles())
        self._rng = rng
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        self._now_s += TURN_S
        rest: Iterable[Any] = ()
        if not self._ready:
            waiting = [each._when for each in self._scheduled if not each._cancelled]
            assert waiting, "every task waits for another"
            self._now_s = max(self._now_s, min(waiting))
        elif len(self._ready) > 1:
            # Sorted first: the order of waking may depend on addresses in a set.
            rest = sorted(self._ready, key=_task_number)
            drawn = rest.pop(int(self._rng.random() * len(rest)))
            self._ready.clear()
            self._ready.append(drawn)
        super()._run_once()  # type: ignore[misc]
        self._ready.extend(rest)


def _task_number(handle: Any) -> int:
    """The number of the callback's task, in the order of creation; 0 without a task."""
    task = getattr(handle._callback, "__self__", None)
    name = task.get_name() if isinstance(task, asyncio.Task) else ""
    return int(name.removeprefix("Task-")) if name.startswith("Task-") else 0


class SimulatedSocket:
    """What the service sets on a socket has no effect."""

    family = socket.AF_UNIX
    _descriptor = os.open(os.devnull, os.O_RDONLY)

    def fileno(self) -> int:
        return self._descriptor

    def setsockopt(self, *_: int) -> None:
        pass


class SimulatedTransport(asyncio.Transport):
    """The server's end of a connection. Written bytes wait here until the client takes them."""

    _protocol: asyncio.Protocol

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"socket": SimulatedSocket()})
        self._protocol = protocol
        self._unsent = bytearray()
        self._high, self._low = 65_536, 16_384
        self._paused = self._closing = self._lost = self._closed = False
        self._more = asyncio.Event()
        protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high, self._low = high, high // 4

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if self._closed:
            raise RuntimeError("the handler is closed")  # as uvloop does
        if self._closing:
            return
        self._unsent += data
        self._more.set()
        if len(self._unsent) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        self._closing = True
        self._more.set()
        if not self._unsent:
            self._lose(None)

    def abort(self) -> None:
        self._unsent.clear()
        self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            asyncio.get_running_loop().call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        self._closed = True
        self._protocol.connection_lost(error)

    # --- the client's end of the connection

    async def take(self, count: int) -> bytes:
        """Up to *count* bytes; none at the end."""
        while not self._unsent and not self._closing:
            self._more.clear()
            await self._more.wait()
        data = bytes(self._unsent[:count])
        del self._unsent[:count]
        if self._paused and len(self._unsent) <= self._low and not self._closing:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent:
            self._lose(None)
        return data

    def vanish(self) -> None:
        self._unsent.clear()
        self._closing = True
        self._more.set()
        self._lose(ConnectionResetError())

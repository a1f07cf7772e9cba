"""Long polls: a lookup, repeated after each event that may change its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from eventjobs.clock import Clock, expire_now, timeout
from eventjobs.log import EventLog

Result = TypeVar("Result")


class LongPolls:
    """All waits of HTTP requests. Each is bounded; all end when the service closes. Its length is
    their number.
    """

    def __init__(self, log: EventLog, clock: Clock, wait_max_s: float) -> None:
        self._log = log
        self._clock = clock
        self._wait_max_s = wait_max_s
        self._open: set[asyncio.Timeout] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_closed(self) -> bool:
        return self._closed

    async def repeat(
        self,
        lookup: Callable[[], Awaitable[Result | None]],
        wait: Callable[[int], Awaitable[object]],
    ) -> Result:
        """The first result of *lookup* that is not None.

        In between *wait* returns when an event above the position that it gets may give another
        result. It costs nothing while there are events of others only.
        """
        while True:
            head = self._log.head  # the wait begins before the lookup: an event during it counts
            if (result := await lookup()) is not None:
                return result
            await wait(head)

    def close(self) -> None:
        """End all waits, and every later one at once."""
        self._closed = True
        for deadline in self._open:
            expire_now(deadline)

    @asynccontextmanager
    async def bounded_wait(self, wait_s: float) -> AsyncIterator[Callable[[], object]]:
        """Raise TimeoutError in the block after *wait_s*, at most the longest wait allowed.

        Also when the service closes, or the callable that the block gets is called.
        """
        wait_s = 0.0 if self._closed else min(wait_s, self._wait_max_s)
        async with timeout(self._clock, wait_s) as deadline:
            self._open.add(deadline)
            try:
                yield partial(expire_now, deadline)
            finally:
                self._open.discard(deadline)

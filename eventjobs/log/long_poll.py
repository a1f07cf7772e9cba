"""Long polls: a lookup that is repeated whenever the log has moved, until it has a result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from eventjobs.clock import Clock, expire_now, timeout
from eventjobs.log import EventLog

Result = TypeVar("Result")


class LongPolls:
    """All waits of HTTP requests. Each is bounded; all end when the service closes."""

    def __init__(self, log: EventLog, clock: Clock, wait_max_s: float) -> None:
        self._log = log
        self._clock = clock
        self._wait_max_s = wait_max_s
        self._open: set[asyncio.Timeout] = set()
        self._closed = False

    async def wait_until(
        self,
        lookup: Callable[[], Awaitable[Result | None]],
        wait_s: float,
        job_id: str | None = None,
    ) -> Result | None:
        """The first result of *lookup* that is not None; None after *wait_s*.

        With *job_id* only that job's events cause another lookup.
        """
        if wait_s <= 0 or self._closed:
            return await lookup()
        try:
            async with self.bounded_wait(wait_s):
                while True:
                    # The wait begins before the lookup: an event during the lookup ends it.
                    moved = asyncio.ensure_future(self._log.wait(self._log.head, job_id))
                    try:
                        if (result := await lookup()) is not None:
                            return result
                        await moved
                    finally:
                        moved.cancel()
        except TimeoutError:
            return None

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

"""Long polls: a question asked again whenever the log has moved, until it has an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from eventjobs.clock import Clock, expire_now, timeout
from eventjobs.log import EventLog

Found = TypeVar("Found")


class LongPolls:
    """Everyone who waits; each for a bounded time, and nobody longer than the service serves."""

    def __init__(self, log: EventLog, clock: Clock, wait_max_s: float) -> None:
        self._log = log
        self._clock = clock
        self._wait_max_s = wait_max_s
        self._open: set[asyncio.Timeout] = set()
        self._closed = False

    async def wait_until(
        self, look: Callable[[], Awaitable[Found | None]], wait_s: float, job_id: str | None = None
    ) -> Found | None:
        """What *look* finds, as soon as it finds something; None once *wait_s* are over.

        Given *job_id*, only that job's events are a reason to look again.
        """
        if wait_s <= 0 or self._closed:
            return await look()
        try:
            async with self.bounded_wait(wait_s):
                while True:
                    # Waiting begins before looking: what happens meanwhile is not missed.
                    moved = asyncio.ensure_future(self._log.wait(self._log.head, job_id))
                    try:
                        if (found := await look()) is not None:
                            return found
                        await moved
                    finally:
                        moved.cancel()
        except TimeoutError:
            return None

    def close(self) -> None:
        """Time is up for everyone."""
        self._closed = True
        for each in self._open:
            expire_now(each)

    @asynccontextmanager
    async def bounded_wait(self, wait_s: float) -> AsyncIterator[Callable[[], object]]:
        """Raise TimeoutError once *wait_s* are over, or as much as anyone may wait, or the service
        closes, or somebody calls what this gives.
        """
        wait_s = 0.0 if self._closed else min(wait_s, self._wait_max_s)
        async with timeout(self._clock, wait_s) as deadline:
            self._open.add(deadline)
            try:
                yield partial(expire_now, deadline)
            finally:
                self._open.discard(deadline)

"""A lock for each key, granted in the order of the requests."""

import asyncio
from collections import deque
from collections.abc import Hashable


class KeyedLock:
    def __init__(self) -> None:
        #: The waiters of each held key; None, as for most keys, without any.
        self._waiters: dict[Hashable, deque[asyncio.Future[None]] | None] = {}

    async def acquire(self, key: Hashable) -> None:
        """Return once the caller holds the lock; *release* must follow."""
        if key not in self._waiters:
            self._waiters[key] = None
            return
        waiting = self._waiters[key]
        if waiting is None:
            waiting = self._waiters[key] = deque()
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(key)  # granted while we were cancelled: pass it on
            raise

    def release(self, key: Hashable) -> None:
        waiting = self._waiters[key]
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._waiters[key]

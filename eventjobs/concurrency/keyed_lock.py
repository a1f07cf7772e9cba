"""One at a time for each key, in the order they came."""

import asyncio
from collections import deque


class KeyedLock:
    def __init__(self) -> None:
        #: Keys that are taken, and who waits for each: for most, nobody ever does.
        self._taken: dict[str, deque[asyncio.Future[None]] | None] = {}

    def try_acquire(self, key: str) -> bool:
        """Whether it is the caller's turn at once: what *enter* does, without a coroutine."""
        if key in self._taken:
            return False
        self._taken[key] = None
        return True

    async def acquire(self, key: str) -> None:
        """Return when it is the caller's turn; *leave* has to follow."""
        if self.try_acquire(key):
            return
        waiting = self._taken[key]
        if waiting is None:
            waiting = self._taken[key] = deque()
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(key)  # it was given just now: pass it on
            raise

    def release(self, key: str) -> None:
        waiting = self._taken[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._taken[key]

"""One at a time for each key, in the order they came."""

import asyncio
from collections import deque


class Turns:
    def __init__(self) -> None:
        #: Keys that are taken, and who waits for each.
        self._taken: dict[str, deque[asyncio.Future[None]]] = {}

    async def enter(self, key: str) -> None:
        """Return when it is the caller's turn; *leave* has to follow."""
        waiting = self._taken.get(key)
        if waiting is None:
            self._taken[key] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(key)  # it was given just now: pass it on
            raise

    def leave(self, key: str) -> None:
        waiting = self._taken[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._taken[key]

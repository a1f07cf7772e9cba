"""Waits until a position has been reached."""

import asyncio
from collections.abc import Callable

from eventjobs.errors import LogUnavailable


class PositionWaits:
    """Those who wait until *position* returns enough. Call *wake* when it has changed."""

    def __init__(self, position: Callable[[], int]) -> None:
        self._position = position
        self._futures: set[asyncio.Future[None]] = set()
        self._is_closed = False

    async def wait(self, position: int) -> None:
        """Return once *position* is reached. Raises LogUnavailable when closed before that."""
        while self._position() < position:
            if self._is_closed:
                raise LogUnavailable("the views are closed")
            future = asyncio.get_running_loop().create_future()
            self._futures.add(future)
            try:
                await future
            finally:
                self._futures.discard(future)

    def wake(self) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        self._is_closed = True
        self.wake()

"""The address at which external services call back."""

import asyncio

from eventjobs.clock import Clock, timeout

#: Seconds that the first jobs after a start wait for the service to listen.
LISTEN_WAIT_S = 5.0


class CallbackAddress:
    """The URL of this service for external services: the set one, or the one it listens at."""

    def __init__(self, clock: Clock, url: str | None) -> None:
        self._clock = clock
        self._url = url
        self._decided = asyncio.Event()
        if url is not None:
            self._decided.set()

    def set_listening_url(self, url: str) -> None:
        if self._url is None:
            self._url = url
            self._decided.set()

    async def get(self) -> str | None:
        """The URL. None when the service does not listen within LISTEN_WAIT_S."""
        try:
            async with timeout(self._clock, LISTEN_WAIT_S):
                await self._decided.wait()
        except TimeoutError:
            self._decided.set()  # later jobs do not wait
        return self._url

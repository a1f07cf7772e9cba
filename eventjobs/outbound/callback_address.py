"""The address at which external services call back."""

import asyncio

from eventjobs.clock import Clock, timeout

#: How long the first jobs of a start wait for the service to listen somewhere.
LISTEN_WAIT_S = 5.0


class CallbackAddress:
    """Where this service can be called back: as it was set, or where it listens."""

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
        """None when it does not listen, and was not about to."""
        try:
            async with timeout(self._clock, LISTEN_WAIT_S):
                await self._decided.wait()
        except TimeoutError:
            self._decided.set()  # nobody else needs to wait
        return self._url

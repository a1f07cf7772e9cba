"""The only module that reads the time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time for what is recorded, monotonic time for what is waited for."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC. May jump."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment. Never goes back."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_s, callback)


async def sleep(clock: Clock, delay_s: float) -> None:
    """Return after *delay_s* seconds of *clock*."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(delay_s, lambda: None if done.done() else done.set_result(None))
    try:
        await done
    finally:
        timer.cancel()


@asynccontextmanager
async def timeout(clock: Clock, delay_s: float | None) -> AsyncIterator[asyncio.Timeout]:
    """Raise TimeoutError when the block takes longer than *delay_s*; None is no limit.

    What it gives can end the block before that.
    """
    async with asyncio.timeout(None) as deadline:
        timer = None
        if delay_s is not None:
            timer = clock.call_later(delay_s, lambda: end(deadline))
        try:
            yield deadline
        finally:
            if timer is not None:
                timer.cancel()


def end(deadline: asyncio.Timeout) -> None:
    """Time is up for the block that *deadline* is of. Harmless to repeat while it lasts."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())

"""A clock that stands still until a test moves it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from eventjobs.clock import Timer
from tests.support.threads import wait_for_answer

SECOND = 1_000_000

#: Turns of the loop after each timer. A task that wakes may wake another one, and so on.
TURNS = 50
#: Answers of threads that are awaited after each timer: a test may call threads endlessly.
ANSWERS_MAX = 100


@dataclass(order=True)
class _Timer:
    due_us: int
    number: int  # timers of one moment fire in the order they were set
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Both clocks of eventjobs.clock.Clock; starts at 2025-01-01 by default."""

    def __init__(self, start_us: int = 1_735_689_600 * SECOND) -> None:
        self._wall_us = start_us  # at monotonic zero; jump_wall moves it
        self._elapsed_us = 0
        self._timers: list[_Timer] = []
        self._set = 0

    def now_us(self) -> int:
        return self._wall_us + self._elapsed_us

    def monotonic_s(self) -> float:
        return self._elapsed_us / SECOND

    @property
    def timers_set(self) -> int:
        """How many timers were set so far."""
        return self._set

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        if delay_s <= 0:  # due already: like the real loop, next turn and without advance
            return asyncio.get_running_loop().call_soon(callback)
        self._set += 1
        timer = _Timer(self._elapsed_us + round(delay_s * SECOND), self._set, callback)
        heappush(self._timers, timer)
        return timer

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: each timer fires at its own time, and between them the loop runs
        and threads answer (threads.py).

        It does not wait for a handler's own thread, nor for another process.
        """
        until_us = self._elapsed_us + round(seconds * SECOND)
        await _settle()
        while self._timers and self._timers[0].due_us <= until_us:
            timer = heappop(self._timers)
            if not timer.cancelled:
                self._elapsed_us = max(self._elapsed_us, timer.due_us)
                timer.callback()
                await _settle()
        self._elapsed_us = until_us
        await _settle()

    def freeze(self, seconds: float) -> None:
        """Let *seconds* pass in which the process is stopped: timers fire afterwards, late."""
        self._elapsed_us += round(seconds * SECOND)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back; no time passes and no timer fires."""
        self._wall_us += round(seconds * SECOND)


async def _settle() -> None:
    for _ in range(ANSWERS_MAX):
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if not await wait_for_answer():
            return

"""The only reader of time, and the steps of the wall clock against the monotonic one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
            timer = clock.call_later(delay_s, lambda: expire_now(deadline))
        try:
            yield deadline
        finally:
            if timer is not None:
                timer.cancel()


def expire_now(deadline: asyncio.Timeout) -> None:
    """Time is up for the block that *deadline* is of. Harmless to repeat while it lasts."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())


#: A wall clock that moves against the monotonic one by less, between two looks, is being slewed.
STEP_US = 250_000
#: What expires by a smaller step of the wall clock is no more than what expires in a while anyway.
JUMP_S = 600.0
#: A clock that was set forward by so much is believed when it was not again for so long.
STEADY_S = 600.0
#: Of a clock that is set again and again, so many steps are remembered.
STEPS_MAX = 100


@dataclass(slots=True)
class _Stretch:
    """A time in which the wall clock was not set."""

    #: the log's head, and the monotonic time, when it began
    head: int
    began_us: int
    #: the wall clock less the monotonic one
    offset_us: int


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock was set, from one time to another; seen at the monotonic *at_s*."""

    from_us: int
    to_us: int
    at_s: float


class Timeline:
    """Made at the start of a service. *head* gives the log's; *newest_us* is its newest time."""

    def __init__(self, clock: Clock, head: Callable[[], int], newest_us: int = 0) -> None:
        self._clock = clock
        self._head = head
        self._began_us = self._monotonic_us()
        self._began_at = head()
        wall_us = clock.now_us()
        self._stretches = [_Stretch(self._began_at, self._began_us, wall_us - self._began_us)]
        #: The highest wall time there has been, less the monotonic time: it never goes back.
        self._highest_us = max(wall_us, newest_us) - self._began_us
        #: The newest time that the clock was set forward by JUMP_S or more.
        self.forward: Step | None = None

    def now_us(self) -> int:
        """The wall clock."""
        wall_us, monotonic_us = self._clock.now_us(), self._monotonic_us()
        now = self._stretches[-1]
        offset_us = wall_us - monotonic_us
        moved_us = offset_us - now.offset_us
        if abs(moved_us) < STEP_US:
            now.offset_us = offset_us
        else:
            self._stretches.append(_Stretch(self._head(), monotonic_us, offset_us))
            del self._stretches[1:-STEPS_MAX]
            if moved_us >= JUMP_S * 1e6:
                self.forward = self._merge_with_last(
                    Step(wall_us - moved_us, wall_us, monotonic_us / 1e6)
                )
        self._highest_us = max(self._highest_us, offset_us)
        return wall_us

    def _merge_with_last(self, step: Step) -> Step:
        """With the step before, as long as that is in doubt."""
        last = self.forward
        if last is None or step.at_s - last.at_s >= STEADY_S:
            return step
        return Step(min(last.from_us, step.from_us), step.to_us, step.at_s)

    @property
    def is_straight(self) -> bool:
        """Whether recorded times can be compared with the wall clock as they are."""
        return len(self._stretches) == 1 and self._highest_us <= self._stretches[0].offset_us

    def horizon_us(self) -> int:
        """No delay that is over, and nothing that happened, was recorded with a later time."""
        return max(self.now_us(), self._highest_us + self._monotonic_us())

    def left_s(self, at_us: int, position: int, due_us: int) -> float:
        """Of a delay that began with the event at *position*, recorded *at_us*: what is left."""
        if position <= self._began_at:
            # It began before this process. How long ago, only the wall clock could say: it is
            # believed where that makes the wait no longer than the delay itself.
            start_us = self._began_us + self._stretches[0].offset_us
            whole_us = min(max(due_us - start_us, 0), due_us - at_us)
            return (self._began_us + whole_us - self._monotonic_us()) / 1e6
        passed_us = self._monotonic_us() - self._happened_us(at_us, position)
        return (due_us - at_us - passed_us) / 1e6

    def _happened_us(self, at_us: int, position: int) -> int:
        """When that was on the monotonic clock: in the stretch in which it could have been."""
        now_us = self._monotonic_us()
        best = None
        ends = [each.began_us for each in self._stretches[1:]] + [now_us]
        for each, end_us in zip(self._stretches, ends, strict=True):
            when_us = at_us - each.offset_us
            outside_us = max(each.began_us - when_us, when_us - end_us, 0)
            # A time that was twice on the wall: the position says which of them it was.
            rank = (outside_us, each.head >= position, -each.head)
            if best is None or rank < best[0]:
                best = rank, min(max(when_us, each.began_us), end_us)
        assert best is not None
        return best[1]

    def _monotonic_us(self) -> int:
        return round(self._clock.monotonic_s() * 1e6)

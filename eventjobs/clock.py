"""The only module that reads the time; corrects for steps of the wall clock."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Wall time for recorded times, monotonic time for delays."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC. May jump."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment. Never goes back."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer: ...


class SystemClock:
    """The clocks of this machine."""

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

    The block gets the deadline, which *expire_now* can end earlier.
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
    """Raise TimeoutError in the block of *deadline* now. Harmless to repeat."""
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time())


#: A smaller change of the wall clock against the monotonic one between two reads is slewing.
STEP_US = 250_000
#: A smaller step forward of the wall clock is not recorded: what it makes expire would expire soon.
JUMP_S = 600.0
#: A step forward is trusted when no other one follows for so long.
STEADY_S = 600.0
#: Steps of the wall clock that are remembered.
STEPS_MAX = 100


@dataclass(slots=True)
class _Period:
    """A period in which the wall clock was not set."""

    #: the log's head, and the monotonic time, when it began
    head: int
    began_us: int
    #: the wall clock less the monotonic one
    offset_us: int


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock was set from one time to another, seen at the monotonic time *at_s*."""

    from_us: int
    to_us: int
    at_s: float


class Timeline:
    """Relates recorded times to the monotonic clock, across steps of the wall clock.

    Created at the start of a service. *head* returns the head of the log, *newest_us* is its newest
    time.
    """

    def __init__(self, clock: Clock, head: Callable[[], int], newest_us: int = 0) -> None:
        self._clock = clock
        self._head = head
        self._began_us = self._monotonic_us()
        self._began_at = head()
        wall_us = clock.now_us()
        self._periods = [_Period(self._began_at, self._began_us, wall_us - self._began_us)]
        #: The highest wall time so far, less the monotonic time: it never goes back.
        self._highest_us = max(wall_us, newest_us) - self._began_us
        #: The newest step forward by JUMP_S or more.
        self.forward: ClockStep | None = None

    def now_us(self) -> int:
        """The wall clock."""
        wall_us, monotonic_us = self._clock.now_us(), self._monotonic_us()
        now = self._periods[-1]
        offset_us = wall_us - monotonic_us
        moved_us = offset_us - now.offset_us
        if abs(moved_us) < STEP_US:
            now.offset_us = offset_us
        else:
            self._periods.append(_Period(self._head(), monotonic_us, offset_us))
            del self._periods[1:-STEPS_MAX]
            if moved_us >= JUMP_S * 1e6:
                self.forward = self._merge_with_last(
                    ClockStep(wall_us - moved_us, wall_us, monotonic_us / 1e6)
                )
        self._highest_us = max(self._highest_us, offset_us)
        return wall_us

    def _merge_with_last(self, step: ClockStep) -> ClockStep:
        """*step* and the last one as one step, unless the last one is trusted by now."""
        last = self.forward
        if last is None or step.at_s - last.at_s >= STEADY_S:
            return step
        return ClockStep(min(last.from_us, step.from_us), step.to_us, step.at_s)

    @property
    def is_straight(self) -> bool:
        """Whether recorded times can be compared with the wall clock as they are."""
        return len(self._periods) == 1 and self._highest_us <= self._periods[0].offset_us

    def horizon_us(self) -> int:
        """A time that no past event, and no due time in the past, is later than."""
        return max(self.now_us(), self._highest_us + self._monotonic_us())

    def left_s(self, at_us: int, position: int, due_us: int) -> float:
        """The rest of a delay until *due_us* that began with the event at *position*, *at_us*."""
        if position <= self._began_at:
            # It began before this process started. Only the wall clock shows how long ago. The wait
            # is never longer than the delay itself.
            start_us = self._began_us + self._periods[0].offset_us
            whole_us = min(max(due_us - start_us, 0), due_us - at_us)
            return (self._began_us + whole_us - self._monotonic_us()) / 1e6
        passed_us = self._monotonic_us() - self._happened_us(at_us, position)
        return (due_us - at_us - passed_us) / 1e6

    def _happened_us(self, at_us: int, position: int) -> int:
        """The monotonic time of an event, from the period in which it can have been recorded."""
        now_us = self._monotonic_us()
        best = None
        ends = [each.began_us for each in self._periods[1:]] + [now_us]
        for each, end_us in zip(self._periods, ends, strict=True):
            when_us = at_us - each.offset_us
            distance_us = max(each.began_us - when_us, when_us - end_us, 0)
            # A wall time may have occurred twice: the position decides between them.
            rank = (distance_us, each.head >= position, -each.head)
            if best is None or rank < best[0]:
                best = rank, min(max(when_us, each.began_us), end_us)
        assert best is not None
        return best[1]

    def _monotonic_us(self) -> int:
        return round(self._clock.monotonic_s() * 1e6)

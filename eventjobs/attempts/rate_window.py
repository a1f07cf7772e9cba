"""The rate limit of one job type: a sliding window over its recent starts."""

from collections import deque
from collections.abc import Iterable

from eventjobs.domain.limits import Rate


class RateWindow:
    """The starts of one type within one period. Allows no start before *load*.

    Times are whole microseconds of the monotonic clock.
    """

    def __init__(self, rate: Rate) -> None:
        self._count = rate.count
        self._period_us = rate.period_s * 1_000_000
        self._starts_us: deque[int] = deque()
        #: Starts whose time is not recorded yet. They count as starts of the present moment.
        self._reserved = 0
        self._loaded = False

    def load(self, starts_us: Iterable[int]) -> None:
        """Add the starts from before this service."""
        self._starts_us.extendleft(sorted(starts_us, reverse=True))
        self._loaded = True

    def opens_us(self, now_us: int) -> int | None:
        """When one more start is allowed: now if that is *now_us* or earlier. None before *load*,
        and while that depends on reserved starts.
        """
        if not self._loaded:
            return None
        while self._starts_us and self._starts_us[0] + self._period_us <= now_us:
            self._starts_us.popleft()
        excess = self._reserved + len(self._starts_us) - self._count
        if excess < 0:
            return now_us
        if excess >= len(self._starts_us):
            return None
        return self._starts_us[excess] + self._period_us

    def reserve(self) -> None:
        """Count one more start. *record_start* or *cancel* ends the reservation."""
        self._reserved += 1

    def record_start(self, now_us: int) -> None:
        self._reserved -= 1
        self._starts_us.append(now_us)

    def cancel(self) -> None:
        self._reserved -= 1

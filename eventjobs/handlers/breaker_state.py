"""The state of circuit breakers: closed, open, half open."""

import random
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from eventjobs.clock import Clock
from eventjobs.domain.timestamps import rfc3339
from eventjobs.domain.validation import read_limit, read_seconds
from eventjobs.errors import InvalidInput, JobError

#: Breakers that are kept for ever; of more, those are forgotten that would not be missed.
NAMES_MAX = 1000

#: Seconds, at most, after which a job that was held off by a trial looks again.
TRIAL_LOOK_S = 30.0
#: A job is due at a whole microsecond, and so may be there a little early.
MOMENT_S = 0.000_002

#: What a call came to. Nobody knows, when it was cut short by a cancel or a shutdown.
Result = Literal["ok", "failed", "unknown"]


class BreakerOpen(JobError):
    """The circuit breaker is open: what is behind it is not called now."""

    def __init__(self, name: str, until_us: int, left_s: float) -> None:
        until = rfc3339(until_us)
        super().__init__(
            "breaker_open",
            f"the circuit breaker of {name} is open until {until}",
            details={"breaker": name, "open_until": until},
            retry_after_s=left_s,
        )
        self.until_us = until_us
        self.left_s = left_s


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """Opens at *threshold* failures within *window_s*, for *cooldown_s*."""

    threshold: int = 5
    window_s: float = 300.0
    cooldown_s: float = 600.0

    def __post_init__(self) -> None:
        try:
            read_limit(self.threshold, "threshold")
            read_seconds(self.window_s, "window_s")
            read_seconds(self.cooldown_s, "cooldown_s")
        except InvalidInput as error:
            message = "a breaker has a threshold of 1 or more, a window and a cooldown"
            raise InvalidInput(message, error.errors) from error

    def told(self, failures: int) -> str:
        within = f"within {self.window_s:g}s window"
        return f"{failures} failures {within} (threshold: {self.threshold})"


@dataclass(frozen=True, slots=True)
class Change:
    """A breaker has opened until some time, or closed."""

    state: Literal["open", "closed"]
    failures: int
    until_us: int | None


class Breakers(Protocol):
    """What a context asks: the breakers of this process, or of the one that started it."""

    def enter(self, name: str, limits: BreakerConfig) -> bool:
        """Whether the call is the trial after a cooldown. Raises BreakerOpen."""

    def leave(
        self, name: str, limits: BreakerConfig, result: Result, *, trial: bool
    ) -> Change | None:
        """Tell what a call came to; what that changed, if anything."""


@dataclass(slots=True)
class _Breaker:
    limits: BreakerConfig
    #: when calls failed lately, oldest first, on the monotonic clock
    failed_s: deque[float] = field(default_factory=deque)
    #: when the cooldown ends; None while closed
    open_until_s: float | None = None
    #: a trial that has not come to anything by then is given up, and another one may begin
    trial_until_s: float | None = None


class LocalBreakers:
    """The breakers of this process, by name; called from the loop and from threads alike.

    After a cooldown one call is let through: it closes the breaker, or opens it once more.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # held for moments: nothing is waited for under it
        self._by_name: dict[str, _Breaker] = {}

    def restore(self, opened: Iterable[tuple[str, int, int]]) -> None:
        """Take up (name, open since, open until) where an earlier process left off."""
        for name, since_us, until_us in opened:
            # A wall clock that was set back meanwhile makes it no longer than its cooldown.
            left_us = min(until_us - self._clock.now_us(), until_us - since_us)
            breaker = self._by_name.setdefault(name, _Breaker(BreakerConfig()))
            breaker.open_until_s = self._clock.monotonic_s() + max(0.0, left_us / 1e6)

    def enter(self, name: str, limits: BreakerConfig) -> bool:
        with self._lock:
            now_s = self._clock.monotonic_s()
            breaker = self._named(name, limits)
            if breaker.open_until_s is None:
                return False
            # A wall clock that was set meanwhile must not change how long it takes.
            left_s = breaker.open_until_s - now_s - MOMENT_S
            if left_s <= 0 and breaker.trial_until_s is not None:
                # Most trials end far sooner than they may; and those held off shall not all be
                # there at the moment when the next one may begin.
                left_s = min(breaker.trial_until_s - now_s, TRIAL_LOOK_S)
                left_s *= random.uniform(1.0, 1.5)  # noqa: S311
            if left_s > 0:
                left_s += MOMENT_S
                raise BreakerOpen(name, self._clock.now_us() + int(left_s * 1e6), left_s)
            breaker.trial_until_s = now_s + limits.cooldown_s
            return True

    def leave(
        self, name: str, limits: BreakerConfig, result: Result, *, trial: bool
    ) -> Change | None:
        with self._lock:
            breaker = self._named(name, limits)
            if trial:
                return self._tried(breaker, result)
            if result == "failed" and breaker.open_until_s is None:
                breaker.failed_s.append(self._clock.monotonic_s())
                failures = self._failures(breaker)
                if failures >= limits.threshold:
                    return self._open(breaker, failures)
            return None

    def failures(self) -> dict[str, tuple[int, BreakerConfig]]:
        """By name, the failures in the window, and the limits as they were used last."""
        with self._lock:
            return {
                name: (self._failures(breaker), breaker.limits)
                for name, breaker in self._by_name.items()
            }

    def _named(self, name: str, limits: BreakerConfig) -> _Breaker:
        if name not in self._by_name and len(self._by_name) >= NAMES_MAX:
            for each, idle in list(self._by_name.items()):
                if idle.open_until_s is None and not self._failures(idle):
                    del self._by_name[each]
        breaker = self._by_name.setdefault(name, _Breaker(limits))
        breaker.limits = limits
        return breaker

    def _tried(self, breaker: _Breaker, result: Result) -> Change | None:
        breaker.trial_until_s = None
        if result == "unknown" or breaker.open_until_s is None:
            return None  # the next call is the trial; or another one has closed it meanwhile
        if result == "failed":
            return self._open(breaker, 1)
        breaker.open_until_s = None
        return Change("closed", 0, None)

    def _open(self, breaker: _Breaker, failures: int) -> Change:
        breaker.failed_s.clear()
        cooldown_s = breaker.limits.cooldown_s
        breaker.open_until_s = self._clock.monotonic_s() + cooldown_s
        return Change("open", failures, self._clock.now_us() + int(cooldown_s * 1e6))

    def _failures(self, breaker: _Breaker) -> int:
        oldest_s = self._clock.monotonic_s() - breaker.limits.window_s
        while breaker.failed_s and breaker.failed_s[0] <= oldest_s:
            breaker.failed_s.popleft()
        return len(breaker.failed_s)

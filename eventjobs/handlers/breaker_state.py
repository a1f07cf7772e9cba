"""The state of circuit breakers: closed, open, or open with a trial call."""

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

#: Up to this many breakers are all kept. Beyond it, closed ones without recent failures go.
NAMES_MAX = 1000

#: Longest delay until a job that waits for a trial's result calls again.
TRIAL_RETRY_MAX_S = 30.0
#: Jobs are due at a whole microsecond and so may call a little early.
TOLERANCE_S = 0.000_002

#: The result of a call; "unknown" when a cancel or a shutdown cut it off.
CallResult = Literal["ok", "failed", "unknown"]


class BreakerOpen(JobError):
    """The circuit breaker *name* is open for *left_s* more seconds, until *until_us*."""

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
    """A breaker opens at *threshold* failures within *window_s*, for *cooldown_s*."""

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

    def describe(self, failures: int) -> str:
        within = f"within {self.window_s:g}s window"
        return f"{failures} failures {within} (threshold: {self.threshold})"


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker has opened, until *until_us*, or closed."""

    state: Literal["open", "closed"]
    failures: int
    until_us: int | None


class BreakerRegistry(Protocol):
    """All breakers of a service or a worker, by name. A handler process uses its parent's."""

    def enter(self, name: str, config: BreakerConfig) -> bool:
        """Begin a call; whether it is the trial after a cooldown. Raises BreakerOpen."""

    def leave(
        self, name: str, config: BreakerConfig, result: CallResult, *, trial: bool
    ) -> BreakerChange | None:
        """End a call with its *result*; the breaker's change of state, if any."""


@dataclass(slots=True)
class _Breaker:
    config: BreakerConfig
    #: times of the failures in the window, oldest first, on the monotonic clock
    failed_s: deque[float] = field(default_factory=deque)
    #: when the cooldown ends; None while closed
    open_until_s: float | None = None
    #: when the trial expires, after which another may begin; None without a trial
    trial_until_s: float | None = None


class LocalBreakerRegistry:
    """The breakers of this process, by name. Its methods may be called from any thread.

    After a cooldown one call is admitted as a trial: it closes the breaker or opens it again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # nothing waits while it is held
        self._by_name: dict[str, _Breaker] = {}

    def restore(self, opened: Iterable[tuple[str, int, int]]) -> None:
        """Reopen breakers from an earlier process: (name, open since, open until), in µs."""
        for name, since_us, until_us in opened:
            # If the wall clock was set back, the rest is still no longer than the cooldown.
            left_us = min(until_us - self._clock.now_us(), until_us - since_us)
            breaker = self._by_name.setdefault(name, _Breaker(BreakerConfig()))
            breaker.open_until_s = self._clock.monotonic_s() + max(0.0, left_us / 1e6)

    def enter(self, name: str, config: BreakerConfig) -> bool:
        with self._lock:
            now_s = self._clock.monotonic_s()
            breaker = self._breaker(name, config)
            if breaker.open_until_s is None:
                return False
            # The monotonic clock: setting the wall clock must not change the cooldown.
            left_s = breaker.open_until_s - now_s - TOLERANCE_S
            if left_s <= 0 and breaker.trial_until_s is not None:
                # Most trials end long before they expire. Jitter keeps waiting jobs from calling
                # all at once when the next trial may begin.
                left_s = min(breaker.trial_until_s - now_s, TRIAL_RETRY_MAX_S)
                left_s *= random.uniform(1.0, 1.5)  # noqa: S311
            if left_s > 0:
                left_s += TOLERANCE_S
                raise BreakerOpen(name, self._clock.now_us() + int(left_s * 1e6), left_s)
            breaker.trial_until_s = now_s + config.cooldown_s
            return True

    def leave(
        self, name: str, config: BreakerConfig, result: CallResult, *, trial: bool
    ) -> BreakerChange | None:
        with self._lock:
            breaker = self._breaker(name, config)
            if trial:
                return self._end_trial(breaker, result)
            if result == "failed" and breaker.open_until_s is None:
                breaker.failed_s.append(self._clock.monotonic_s())
                failures = self._recent_failures(breaker)
                if failures >= config.threshold:
                    return self._open(breaker, failures)
            return None

    def failures(self) -> dict[str, tuple[int, BreakerConfig]]:
        """By name, the number of failures in the window and the last used config."""
        with self._lock:
            return {
                name: (self._recent_failures(breaker), breaker.config)
                for name, breaker in self._by_name.items()
            }

    def _breaker(self, name: str, config: BreakerConfig) -> _Breaker:
        if name not in self._by_name and len(self._by_name) >= NAMES_MAX:
            for each, idle in list(self._by_name.items()):
                if idle.open_until_s is None and not self._recent_failures(idle):
                    del self._by_name[each]
        breaker = self._by_name.setdefault(name, _Breaker(config))
        breaker.config = config
        return breaker

    def _end_trial(self, breaker: _Breaker, result: CallResult) -> BreakerChange | None:
        breaker.trial_until_s = None
        if result == "unknown" or breaker.open_until_s is None:
            return None  # the next call is the trial, or another call has closed the breaker
        if result == "failed":
            return self._open(breaker, 1)
        breaker.open_until_s = None
        return BreakerChange("closed", 0, None)

    def _open(self, breaker: _Breaker, failures: int) -> BreakerChange:
        breaker.failed_s.clear()
        cooldown_s = breaker.config.cooldown_s
        breaker.open_until_s = self._clock.monotonic_s() + cooldown_s
        return BreakerChange("open", failures, self._clock.now_us() + int(cooldown_s * 1e6))

    def _recent_failures(self, breaker: _Breaker) -> int:
        oldest_s = self._clock.monotonic_s() - breaker.config.window_s
        while breaker.failed_s and breaker.failed_s[0] <= oldest_s:
            breaker.failed_s.popleft()
        return len(breaker.failed_s)

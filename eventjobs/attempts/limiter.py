"""Concurrency and rate limits: which types, queues and concurrency keys are full."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from eventjobs.attempts.rate_window import RateWindow
from eventjobs.clock import Clock
from eventjobs.domain.job import Job
from eventjobs.domain.limits import (
    RECEIVER,
    RECEIVER_CONCURRENCY,
    ConcurrencyLimits,
)
from eventjobs.projections import JobChange
from eventjobs.projections.queue import WaitingJob

LimitKind = Literal["type", "queue", "key"]
#: What a concurrency limit applies to: a job type, a queue or a concurrency key.
LimitKey = tuple[LimitKind, str]


class ConcurrencyLimiter:
    """Counts jobs against their limits, so that no limit is ever exceeded.

    A job counts from its selection until the views show that it does not run any more.
    """

    def __init__(self, limits: ConcurrencyLimits, clock: Clock) -> None:
        self.limits = limits
        #: Called with a limit that may allow a start again, which it did not before.
        self.on_free: Callable[[LimitKind, str], object] = lambda kind, name: None
        self._clock = clock
        #: By limit: the ids of the jobs that count against it.
        self._holders: dict[LimitKey, set[str]] = {}
        #: By job id: the limits that it counts against.
        self._keys_of: dict[str, tuple[LimitKey, ...]] = {}
        #: Jobs that count because they are selected. The views may not show their claim yet.
        self._selected: set[str] = set()
        #: Jobs that count because the views show them as running.
        self._running: set[str] = set()
        self._windows = {type: RateWindow(rate) for type, rate in limits.rates.items()}
        #: By job id: the type with a rate in which its start is reserved.
        self._reserved: dict[str, str] = {}
        self._has_limits = bool(limits.types or limits.queues or limits.rates)

    # --- full limits

    def free_open_rates(self) -> None:
        """Call *on_free* for each type with a rate that allows a start."""
        for type in self._windows:
            if self._rate_is_open(type):
                self.on_free("type", type)

    def next_opening_s(self) -> float | None:
        """Seconds until a rate that is exhausted allows a start. None if no rate is."""
        now_us = self._now_us()
        opens = (window.opens_us(now_us) for window in self._windows.values())
        later = [at_us for at_us in opens if at_us is not None and at_us > now_us]
        return (min(later) - now_us) / 1e6 if later else None

    def slots_of(self, kind: LimitKind, name: str, type: str) -> tuple[int | None, frozenset[str]]:
        """The limit for jobs of *type*, None being no limit, and the ids of its holders."""
        limits = {
            "type": self.limits.types.get(name),
            "queue": self.limits.queues.get(name),
            "key": self._limit("key", name, type) if kind == "key" else None,
        }
        return limits[kind], frozenset(self._holders.get((kind, name), ()))

    def rate_opens_s(self, type: str) -> float | None:
        """Seconds until a job of *type* may start, 0 for now. None while that is not known."""
        if type not in self._windows:
            return 0.0
        now_us = self._now_us()
        at_us = self._windows[type].opens_us(now_us)
        return None if at_us is None else max(0.0, (at_us - now_us) / 1e6)

    # --- the job that is selected and claimed

    def is_limited(self, due: WaitingJob) -> bool:
        """Whether the job counts against any limit."""
        return bool(self._limit_keys(due.type, due.queue, due.key)) or due.type in self._windows

    def try_acquire(self, due: WaitingJob) -> LimitKind | None:
        """Count the job against all of its limits. When one is full, it is returned, and no other
        effect takes place.
        """
        if due.key is None and not self._has_limits:
            return None
        keys = self._limit_keys(due.type, due.queue, due.key)
        for key in keys:
            holders = self._holders.get(key, ())
            if len(holders) >= self._limit(*key, due.type) and due.job_id not in holders:
                return key[0]
        window = self._windows.get(due.type)
        if window is not None:
            if not self._rate_is_open(due.type):
                return "type"
            window.reserve()
            self._reserved[due.job_id] = due.type
        if keys:
            self._selected.add(due.job_id)
            self._acquire(due.job_id, keys)
        return None

    def record_start(self, job_id: str) -> None:
        """The log has the start of a selected job."""
        if (type := self._reserved.pop(job_id, None)) is not None:
            self._windows[type].record_start(self._now_us())

    def cancel_start(self, job_id: str) -> None:
        """A selected job did not start. It counts until *forget_selection*."""
        if (type := self._reserved.pop(job_id, None)) is not None:
            self._windows[type].cancel()
            self.on_free("type", type)

    def forget_selection(self, job_id: str) -> None:
        """The views show what became of a selected job."""
        if job_id in self._keys_of:
            self._selected.discard(job_id)
            self._release_unused(job_id)

    # --- the jobs that the views show

    def update_all(self, changes: Iterable[JobChange]) -> None:
        for change in changes:
            # The check of *update*, without a call for each job: most have no limit.
            if self._has_limits or change.after.spec.concurrency_key is not None:
                self.update(change.after)

    def update(self, job: Job) -> None:
        """Count *job* while it runs."""
        spec = job.spec
        if spec.concurrency_key is None and not self._has_limits:
            return
        if not job.runs:
            self._running.discard(job.job_id)
            self._release_unused(job.job_id)
        elif keys := self._limit_keys(spec.type, job.queue, spec.concurrency_key):
            self._running.add(job.job_id)
            self._acquire(job.job_id, keys)

    def load_starts(self, ago_us: Mapping[str, list[int]]) -> None:
        """Open the rates. *ago_us* has, by type, how many microseconds ago jobs started."""
        now_us = self._now_us()
        for type, window in self._windows.items():
            window.load(now_us - each for each in ago_us.get(type, ()))
        self.free_open_rates()

    def _acquire(self, job_id: str, keys: tuple[LimitKey, ...]) -> None:
        self._keys_of[job_id] = keys
        for key in keys:
            self._holders.setdefault(key, set()).add(job_id)

    def _release_unused(self, job_id: str) -> None:
        if job_id in self._selected or job_id in self._running:
            return
        for key in self._keys_of.pop(job_id, ()):
            self._holders[key].discard(job_id)
            if not self._holders[key]:
                del self._holders[key]
            self.on_free(*key)

    def _limit_keys(self, type: str, queue: str, key: str | None) -> tuple[LimitKey, ...]:
        keys: list[LimitKey] = []
        if type in self.limits.types:
            keys.append(("type", type))
        if queue in self.limits.queues:
            keys.append(("queue", queue))
        if key is not None:
            keys.append(("key", key))
        return tuple(keys)

    def _limit(self, kind: LimitKind, name: str, type: str) -> int:
        """The limit for jobs of *type*."""
        match kind:
            case "type":
                return self.limits.types[name]
            case "queue":
                return self.limits.queues[name]
            case "key" if name.startswith(RECEIVER):
                return RECEIVER_CONCURRENCY
            case "key":
                return self.limits.of_key(type)

    def _rate_is_open(self, type: str) -> bool:
        now_us = self._now_us()
        at_us = self._windows[type].opens_us(now_us)
        return at_us is not None and at_us <= now_us

    def _now_us(self) -> int:
        # Whole microseconds: a period that ends when another begins must not miss it by rounding.
        return round(self._clock.monotonic_s() * 1e6)

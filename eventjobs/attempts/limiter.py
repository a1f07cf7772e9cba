"""How many jobs of a type, of a queue or with a key run at once, and how many start in a while."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from eventjobs.clock import Clock
from eventjobs.domain.job import Job, Status
from eventjobs.domain.limits import (
    KEY_CONCURRENCY,
    RECEIVER,
    RECEIVER_CONCURRENCY,
    ConcurrencyLimits,
    Rate,
)

if TYPE_CHECKING:
    from eventjobs.projections.change import JobChange
    from eventjobs.projections.queue import Due

LimitKind = Literal["type", "queue", "key"]
#: What has a limit.
LimitKey = tuple[LimitKind, str]


class RateWindow:
    """The starts of one type in the last while. Until *recall* nothing is known, nothing fits."""

    def __init__(self, rate: Rate) -> None:
        self._count = rate.count
        self._period_us = rate.period_s * 1_000_000
        self._starts_us: deque[int] = deque()
        self._reserved = 0  # these count as starts of this very moment
        self._loaded = False

    def load(self, starts_us: Iterable[int]) -> None:
        """*starts_us* are those from before, oldest first."""
        self._starts_us.extendleft(sorted(starts_us, reverse=True))
        self._loaded = True

    def opens_us(self, now_us: int) -> int | None:
        """When one more fits: *now_us* or earlier is now, None as long as others have not begun."""
        if not self._loaded:
            return None
        while self._starts_us and self._starts_us[0] + self._period_us <= now_us:
            self._starts_us.popleft()
        too_many = self._reserved + len(self._starts_us) - self._count
        if too_many < 0:
            return now_us
        if too_many >= len(self._starts_us):
            return None
        return self._starts_us[too_many] + self._period_us

    def reserve(self) -> None:
        self._reserved += 1

    def record_start(self, now_us: int) -> None:
        self._reserved -= 1
        self._starts_us.append(now_us)

    def cancel(self) -> None:
        self._reserved -= 1


class ConcurrencyLimiter:
    """Who holds a place in what is limited. A job holds it from when it is picked until the views
    show that it no longer runs, so that there are never more than are allowed.
    """

    def __init__(self, limits: ConcurrencyLimits, clock: Clock) -> None:
        self.limits = limits
        self._clock = clock
        self._holders: dict[LimitKey, set[str]] = {}
        self._keys_of: dict[str, tuple[LimitKey, ...]] = {}
        #: Of those that hold a place: picked, and the views may not show it yet …
        self._selected: set[str] = set()
        #: … and those that the views show as running.
        self._running: set[str] = set()
        self._windows = {type: RateWindow(rate) for type, rate in limits.rates.items()}
        self._starting: dict[str, RateWindow] = {}
        #: A key may be full for one type and not for another. With so many it is for all.
        self.key_max = max([KEY_CONCURRENCY, *limits.keys.values()])
        self._has_limits = bool(limits.types or limits.queues or limits.rates)

    # --- what is full

    def full_names(self, kind: LimitKind) -> Iterator[str]:
        """The names of what takes no more now."""
        for (of, name), holders in self._holders.items():
            if of == kind and len(holders) >= self._limit(kind, name):
                yield name
        if kind == "type":
            for type in self._windows:
                if not self._rate_is_open(type):
                    yield type

    def next_opening_s(self) -> float | None:
        """Seconds until the next type may start one more that may not now; None without any."""
        now_us = self._now_us()
        opens = (each.opens_us(now_us) for each in self._windows.values())
        later = [at_us for at_us in opens if at_us is not None and at_us > now_us]
        return (min(later) - now_us) / 1e6 if later else None

    def slots_of(self, kind: LimitKind, name: str, type: str) -> tuple[int | None, frozenset[str]]:
        """How many there are for jobs of *type*, None being no limit, and who has one."""
        limits = {
            "type": self.limits.types.get(name),
            "queue": self.limits.queues.get(name),
            "key": self._limit("key", name, type) if kind == "key" else None,
        }
        return limits[kind], frozenset(self._holders.get((kind, name), ()))

    def rate_opens_s(self, type: str) -> float | None:
        """0 when one more of *type* may start, else seconds; None when that cannot be told yet."""
        if type not in self._windows:
            return 0.0
        now_us = self._now_us()
        at_us = self._windows[type].opens_us(now_us)
        return None if at_us is None else max(0.0, (at_us - now_us) / 1e6)

    # --- picked, started, or not

    def is_limited(self, due: "Due") -> bool:
        """Whether it needs a place, or a start in a while, that others then cannot have."""
        return bool(self._limit_keys(due.type, due.queue, due.key)) or due.type in self._windows

    def try_acquire(self, due: "Due") -> bool:
        """Give it a place in all it needs one in; False, and nothing done, when there is none."""
        if due.key is None and not self._has_limits:
            return True
        things = self._limit_keys(due.type, due.queue, due.key)
        for thing in things:
            limit = self._limit(*thing, due.type)
            holders = self._holders.get(thing, ())
            if len(holders) >= limit and due.job_id not in holders:
                return False
        window = self._windows.get(due.type)
        if window is not None:
            if not self._rate_is_open(due.type):
                return False
            window.reserve()
            self._starting[due.job_id] = window
        if things:
            self._selected.add(due.job_id)
            self._acquire(due.job_id, things)
        return True

    def record_start(self, job_id: str) -> None:
        """Its start is in the log."""
        if (window := self._starting.pop(job_id, None)) is not None:
            window.record_start(self._now_us())

    def cancel_start(self, job_id: str) -> None:
        """It did not start; its place is kept until *shown*."""
        if (window := self._starting.pop(job_id, None)) is not None:
            window.cancel()

    def forget_selection(self, job_id: str) -> None:
        """The views show by now what became of a job that was picked."""
        if job_id in self._keys_of:
            self._selected.discard(job_id)
            self._release_unused(job_id)

    # --- what the views show

    def update_all(self, touched: "Iterable[JobChange]") -> None:
        for each in touched:
            # Most have to do with no limit; as in *see*, which costs a call for each job.
            if self._has_limits or each.after.spec.concurrency_key is not None:
                self.update(each.after)

    def update(self, job: Job) -> None:
        spec = job.spec
        if spec.concurrency_key is None and not self._has_limits:
            return
        if job.status != Status.RUNNING:
            self._running.discard(job.job_id)
            self._release_unused(job.job_id)
        elif things := self._limit_keys(spec.type, job.queue, spec.concurrency_key):
            self._running.add(job.job_id)
            self._acquire(job.job_id, things)

    def load_starts(self, starts_us: Mapping[str, list[int]]) -> None:
        """How long ago, in microseconds, jobs of types with a rate have started before this."""
        now_us = self._now_us()
        for type, window in self._windows.items():
            window.load(now_us - ago_us for ago_us in starts_us.get(type, ()))

    # --- places

    def _acquire(self, job_id: str, things: tuple[LimitKey, ...]) -> None:
        self._keys_of[job_id] = things
        for thing in things:
            self._holders.setdefault(thing, set()).add(job_id)

    def _release_unused(self, job_id: str) -> None:
        if job_id in self._selected or job_id in self._running:
            return
        for thing in self._keys_of.pop(job_id, ()):
            self._holders[thing].discard(job_id)
            if not self._holders[thing]:
                del self._holders[thing]

    def _limit_keys(self, type: str, queue: str, key: str | None) -> tuple[LimitKey, ...]:
        things: list[LimitKey] = []
        if type in self.limits.types:
            things.append(("type", type))
        if queue in self.limits.queues:
            things.append(("queue", queue))
        if key is not None:
            things.append(("key", key))
        return tuple(things)

    def _limit(self, kind: LimitKind, name: str, type: str | None = None) -> int:
        """Of a key without a *type*: for any type."""
        match kind:
            case "type":
                return self.limits.types[name]
            case "queue":
                return self.limits.queues[name]
            case "key" if name.startswith(RECEIVER):
                return RECEIVER_CONCURRENCY
            case "key":
                return self.key_max if type is None else self.limits.of_key(type)

    def _rate_is_open(self, type: str) -> bool:
        now_us = self._now_us()
        at_us = self._windows[type].opens_us(now_us)
        return at_us is not None and at_us <= now_us

    def _now_us(self) -> int:
        # Whole microseconds: what ends when something begins shall not miss it by a rounding.
        return round(self._clock.monotonic_s() * 1e6)

"""Who may run what: the one gate through which every attempt begins, here or elsewhere."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from eventjobs.attempts.limiter import ConcurrencyLimiter, LimitKind
from eventjobs.clock import Clock, Timeline, sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.errors import JobUnreadable, LogError, OutcomeUnknown, Rejected
from eventjobs.execution.source import Capacity
from eventjobs.observability.logging import get_logger
from eventjobs.projections.change import JobChange
from eventjobs.projections.queue import Due, Held
from eventjobs.projections.views import Views

#: Due jobs looked at in one step, once some did not fit.
PAGE = 256
#: A wall clock that jumps must not keep a scheduled job waiting longer than this.
LOOK_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class DueTime:
    """When a job is due: at a time of the wall clock, or of the monotonic one."""

    wall_us: int | None = None
    monotonic_s: float = 0.0

    def remaining_s(self, now_us: int, now_s: float) -> float:
        return self.monotonic_s - now_s if self.wall_us is None else (self.wall_us - now_us) / 1e6

    def is_reached(self, now_us: int, now_s: float) -> bool:
        # Delays are whole microseconds, and the monotonic clock is not.
        return self.remaining_s(now_us, now_s) < 1e-6


@dataclass
class _FreeCapacity:
    """What of a room has not been taken."""

    free: int
    prefetch: int

    def __bool__(self) -> bool:
        return self.free > 0 or self.prefetch > 0

    def use(self) -> None:
        if self.free > 0:
            self.free -= 1
        else:
            self.prefetch -= 1


class ClaimQueue:
    """Picks due jobs and claims them; what was picked is not picked again.

    Whatever is picked has to be claimed.
    """

    def __init__(self, jobs: Jobs, views: Views, clock: Clock, flow: ConcurrencyLimiter) -> None:
        self._jobs = jobs
        self._views = views
        self._clock = clock
        self._limiter = flow
        #: When somebody last asked for jobs of a type, and since when that is noted.
        self.last_requested_us: dict[str, int] = {}
        self.opened_us = clock.now_us()
        #: Set when a service is put together, and the newest time of its log is known.
        self.timeline = Timeline(clock, lambda: jobs.log.head)
        #: Jobs that looked due while recorded times cannot be compared with the wall clock, and
        #: are not: how long each waits yet, by the monotonic clock or for a wall time.
        self._early: dict[str, DueTime] = {}
        #: Claims the views may not show yet, and the position at which they will.
        self._selected: dict[str, int | None] = {}
        #: Whoever asks again and again, with the rooms that were free when it last asked in vain.
        self._waiting: dict[asyncio.Event, Sequence[Capacity]] = {}
        #: Those who do not look just now: what is not of their types need not wake them.
        self._asleep: set[asyncio.Event] = set()
        self._seen_position = views.position
        self._log = get_logger("eventjobs.claims")
        views.listen(self._on_changes)

    def now_us(self) -> int:
        """What is recorded as due at this time, or before, is to be looked at."""
        timeline = self.timeline
        wall_us = timeline.now_us()
        return wall_us if timeline.is_straight else timeline.horizon_us()

    async def select(
        self, now_us: int, rooms: Sequence[Capacity], limit: int
    ) -> list[tuple[str, str]]:
        """Up to *limit* (job id, type) that are due and fit, best first. Each is to be claimed."""
        left: dict[str, _FreeCapacity] = {}
        of_children: dict[str, _FreeCapacity] = {}
        for room in rooms:
            self.last_requested_us.update(dict.fromkeys(room.types, self._clock.now_us()))
            shared = _FreeCapacity(room.free, room.prefetch)  # by all types of the room
            for type in room.types if shared else ():
                (of_children if type in room.children_only else left)[type] = shared
        self._forget_visible()
        picked: list[Due] = []
        try:
            if of_children:  # the newest shall be among them, for which somebody is about to wait
                await self._views.reached(self._jobs.log.head)
            await self._select_from(now_us, of_children, limit, picked, children_only=True)
            await self._select_from(now_us, left, limit, picked)
        except BaseException:
            for due in picked:
                self._release(due.job_id, 0)
            raise
        return [(due.job_id, due.type) for due in picked]

    async def _select_from(
        self,
        now_us: int,
        left: dict[str, _FreeCapacity],
        limit: int,
        picked: list[Due],
        *,
        children_only: bool = False,
    ) -> None:
        flow = self._limiter
        shut = set[tuple[str, str]]()
        size = limit - len(picked)
        while len(picked) < limit and (types := self._types_with_capacity(left)):
            held = Held(tuple(flow.full_names("queue")), tuple(flow.full_names("key")), shut)
            page = await self._views.due(
                now_us,
                types,
                self._selected
                if not self._early
                else self._selected.keys() | self._waiting_early(),
                size,
                held=held,
                key_max=flow.key_max,
                children_only=children_only,
            )
            early = set() if self.timeline.is_straight else await self._not_due(page)
            for due in page:
                if due.job_id in early:
                    continue
                if len(picked) < limit and self._try_select(due, left[due.type]):
                    picked.append(due)
                elif due.key is not None:
                    shut.add((due.type, due.key))  # what was passed over hides nothing behind it
            if len(page) < size:
                break
            size = max(limit - len(picked), PAGE)

    async def _not_due(self, page: Sequence[Due]) -> set[str]:
        """Those of *page* whose time has not come, though it looks so; they are noted."""
        found = set()
        for due in page:
            job = await self._jobs.glimpse(due.job_id)
            if job is None or job.due_us <= job.updated_us:
                continue
            if job.due_us == job.spec.run_at_us:
                early = DueTime(wall_us=job.due_us)
            else:
                left_s = self.timeline.left_s(job.updated_us, job.position, job.due_us)
                early = DueTime(monotonic_s=self._clock.monotonic_s() + left_s)
            if not early.is_reached(self.timeline.now_us(), self._clock.monotonic_s()):
                self._early[due.job_id] = early
                found.add(due.job_id)
        return found

    def _waiting_early(self) -> set[str]:
        now_us, now_s = self.timeline.now_us(), self._clock.monotonic_s()
        for job_id, each in list(self._early.items()):
            if each.is_reached(now_us, now_s):
                del self._early[job_id]
        return set(self._early)

    def _early_s(self) -> float | None:
        """Seconds until the first of those is due."""
        now_us, now_s = self.timeline.now_us(), self._clock.monotonic_s()
        return min((each.remaining_s(now_us, now_s) for each in self._early.values()), default=None)

    def _try_select(self, due: Due, left: _FreeCapacity) -> bool:
        """Take it, unless somebody else picked it meanwhile, or what it needs is full by now."""
        if due.job_id in self._selected or not left:
            return False
        if left.free <= 0 and self._limiter.is_limited(due):
            left.prefetch = 0  # nor what is behind it: that shall not overtake it
            return False
        if not self._limiter.try_acquire(due):
            return False
        left.use()
        self._selected[due.job_id] = None
        return True

    def _forget_visible(self) -> None:
        """Forget the claims that the views show by now."""
        position = self._views.position
        for job_id, visible in list(self._selected.items()):
            if visible is not None and visible <= position:
                del self._selected[job_id]
                self._limiter.forget_selection(job_id)

    def _types_with_capacity(self, left: dict[str, _FreeCapacity]) -> list[str]:
        full = set(self._limiter.full_names("type"))
        return [type for type, room in left.items() if room and type not in full]

    async def claim(self, job_id: str, *, worker: str, lease_s: float | None = None) -> Job | None:
        """The job that was picked, now held by *worker*; None when it is not to be had."""
        unknown = False
        while True:
            try:
                now_us = None if self.timeline.is_straight else self.now_us()
                job = await self._jobs.start(job_id, worker=worker, lease_s=lease_s, now_us=now_us)
            except JobUnreadable as error:
                # The views are of before, and would offer it on and on: it stays taken.
                self._log.error("not to be run", job_id=job_id, error=error.message)
                self._limiter.cancel_start(job_id)
                return None
            except Rejected:
                claimed = await self._jobs.current(job_id) if unknown else None
                if claimed is None or claimed.worker != worker:
                    # Cancelled or claimed since the views were read; they will show it by then.
                    self._release(job_id, self._jobs.log.head)
                    return None
                job = claimed  # by the append that could not be answered
            except LogError as error:
                self._log.warning("claim failed", job_id=job_id, error=error.code)
                unknown = unknown or isinstance(error, OutcomeUnknown)
                await sleep(self._clock, 0.5)
                if unknown:
                    continue  # it may be ours by now, and then nobody else will run it
                self._release(job_id, 0)
                return None
            except BaseException:
                self._selected[job_id] = self._jobs.log.head + 1
                self._limiter.record_start(job_id)  # as far as anybody can tell
                raise
            self._selected[job_id] = job.position
            self._limiter.record_start(job_id)
            return job

    def _release(self, job_id: str, visible: int) -> None:
        """It was picked for nothing: others may have its place, once the views are at *visible*."""
        self._selected[job_id] = visible
        self._limiter.cancel_start(job_id)
        self.wake()

    def subscribe(self) -> asyncio.Event:
        """Set from now on whenever something may have become due; to be given to *wait*."""
        news = asyncio.Event()
        self._waiting[news] = ()
        return news

    async def wait_for_work(
        self, news: asyncio.Event, looked_us: int, rooms: Sequence[Capacity]
    ) -> None:
        """Return when it makes sense to *pick* again, having looked in vain at *looked_us*.

        *rooms* are what could have been taken.
        """
        wait_s = LOOK_AGAIN_S
        rooms = [room for room in rooms if room.free > 0 or room.prefetch > 0]
        if rooms:  # else it is not time that it waits for
            # Later than when we looked, not later than now: between the two one may become due.
            next_us = await self._views.next_due_us(looked_us)
            if next_us is not None:
                wait_s = max(0.0, (next_us - self.now_us()) / 1e6)
            if (early_s := self._early_s()) is not None:
                wait_s = min(wait_s, max(0.0, early_s))
            if (opens_s := self._limiter.next_opening_s()) is not None:
                wait_s = min(wait_s, opens_s)
        timer = self._clock.call_later(min(wait_s, LOOK_AGAIN_S), news.set)
        self._waiting[news] = rooms
        self._asleep.add(news)
        try:
            await news.wait()
        finally:
            timer.cancel()
            self._asleep.discard(news)

    def unsubscribe(self, news: asyncio.Event) -> None:
        self._waiting.pop(news, None)

    def has_capacity_for(self, type: str, *, child: bool) -> bool:
        """Whether somebody has room for a job of *type*, and would take it at once."""
        rooms = [room for rooms in self._waiting.values() for room in rooms if room.free > 0]
        return any(
            type in room.types and (child or type not in room.children_only) for room in rooms
        )

    def slots_of(self, kind: LimitKind, name: str, type: str) -> tuple[int | None, frozenset[str]]:
        """As Flow.places, with what the views show by now."""
        self._forget_visible()
        return self._limiter.slots_of(kind, name, type)

    def _on_changes(self, touched: list[JobChange]) -> None:
        self._limiter.update_all(touched)
        for each in touched if self._early else ():
            self._early.pop(each.after.job_id, None)
        before, self._seen_position = self._seen_position, self._views.position
        new = [each.after.spec.type for each in touched if each.before is None]
        if len(new) == self._seen_position - before:  # one event each: nothing else has happened
            self._wake_for(set(new))
        else:
            self.wake()  # a pause may have ended, or what others wait for, or a place be free

    def _wake_for(self, types: set[str]) -> None:
        """Let those look again who take jobs of these types, or look just now."""
        for each, rooms in self._waiting.items():
            if each not in self._asleep or any(not types.isdisjoint(room.types) for room in rooms):
                each.set()

    def wake(self) -> None:
        """Let all look again who look in vain."""
        for each in self._waiting:
            each.set()

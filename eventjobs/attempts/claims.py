"""The claim queue: selects due jobs within capacity and limits, and claims them in the log.

Local runners, external dispatchers and remote workers all claim here (docs/internals/claims.md).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from eventjobs.attempts.due_times import DueTimes
from eventjobs.attempts.limiter import ConcurrencyLimiter, LimitKind
from eventjobs.attempts.waiters import ClaimWaiters
from eventjobs.clock import Clock, sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.errors import JobUnreadable, LogError, OutcomeUnknown, Rejected
from eventjobs.execution.source import Capacity
from eventjobs.observability.logging import get_logger
from eventjobs.projections import JobChange, Views
from eventjobs.projections.queue import DueJob, FullLimits

#: Due jobs read at a time once some of a page did not fit.
PAGE = 256
#: The longest time between two searches. A wall clock that jumps delays a scheduled job this long.
SEARCH_INTERVAL_S = 30.0
#: Seconds before a claim that the log did not take is tried again.
RETRY_DELAY_S = 0.5


@dataclass
class _FreeCapacity:
    """The free part of a Capacity during one selection."""

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
    """Selects due jobs and claims them. Each selected job has to be claimed.

    A selected job is not selected again before the views show what became of its claim.
    """

    def __init__(self, jobs: Jobs, views: Views, clock: Clock, limiter: ConcurrencyLimiter) -> None:
        self._jobs = jobs
        self._views = views
        self._clock = clock
        self._limiter = limiter
        #: By type: when jobs of it were last requested, since *opened_us*.
        self.last_requested_us: dict[str, int] = {}
        self.opened_us = clock.now_us()
        self.due_times = DueTimes(jobs, clock)
        self.waiters = ClaimWaiters(clock)
        #: By id of a selected job: the position at which the views show its claim, None before.
        self._selected: dict[str, int | None] = {}
        self._seen_position = views.position
        self._log = get_logger("eventjobs.claims")
        views.listen(self._on_changes)

    async def select(
        self, until_us: int, capacities: Sequence[Capacity], limit: int
    ) -> list[tuple[str, str]]:
        """The (id, type) of up to *limit* jobs that are due *until_us* and fit, best first."""
        free: dict[str, _FreeCapacity] = {}
        free_for_children: dict[str, _FreeCapacity] = {}
        for capacity in capacities:
            self.last_requested_us.update(dict.fromkeys(capacity.types, self._clock.now_us()))
            shared = _FreeCapacity(capacity.free, capacity.prefetch)  # by all its types
            for type in capacity.types if shared else ():
                (free_for_children if type in capacity.children_only else free)[type] = shared
        self._forget_visible()
        selected: list[DueJob] = []
        try:
            if free_for_children:
                # A parent is about to wait for its newest child: the views have to show it.
                await self._views.wait_for_position(self._jobs.log.head)
            await self._select(until_us, free_for_children, limit, selected, children_only=True)
            await self._select(until_us, free, limit, selected)
        except BaseException:
            for due in selected:
                self._release(due.job_id, 0)
            raise
        return [(due.job_id, due.type) for due in selected]

    async def _select(
        self,
        until_us: int,
        free: dict[str, _FreeCapacity],
        limit: int,
        selected: list[DueJob],
        *,
        children_only: bool = False,
    ) -> None:
        limiter = self._limiter
        passed_over = set[tuple[str, str]]()
        size = limit - len(selected)
        while len(selected) < limit and (types := self._types_with_capacity(free)):
            queues, keys = limiter.full_names("queue"), limiter.full_names("key")
            not_due = self.due_times.not_due()
            page = await self._views.due(
                until_us,
                types,
                self._selected.keys() | not_due if not_due else self._selected,
                size,
                held=FullLimits(tuple(queues), tuple(keys), passed_over),
                key_max=limiter.key_max,
                children_only=children_only,
            )
            not_due = await self.due_times.find_not_due(due.job_id for due in page)
            for due in page:
                if due.job_id in not_due:
                    continue
                if len(selected) < limit and self._try_select(due, free[due.type]):
                    selected.append(due)
                elif due.key is not None:
                    passed_over.add((due.type, due.key))  # jobs behind it are read in its place
            if len(page) < size:
                break
            size = max(limit - len(selected), PAGE)

    def _try_select(self, due: DueJob, free: _FreeCapacity) -> bool:
        """Whether the job is selected. Not when another search has selected it since the page was
        read, or one of its limits is full.
        """
        if due.job_id in self._selected or not free:
            return False
        if free.free <= 0 and self._limiter.is_limited(due):
            # A prefetched job must not hold a limit, and no job behind it may overtake it.
            free.prefetch = 0
            return False
        if not self._limiter.try_acquire(due):
            return False
        free.use()
        self._selected[due.job_id] = None
        return True

    def _forget_visible(self) -> None:
        """Forget the selected jobs whose claims the views show."""
        position = self._views.position
        for job_id, visible_at in list(self._selected.items()):
            if visible_at is not None and visible_at <= position:
                del self._selected[job_id]
                self._limiter.forget_selection(job_id)

    def _types_with_capacity(self, free: dict[str, _FreeCapacity]) -> list[str]:
        full = set(self._limiter.full_names("type"))
        return [type for type, capacity in free.items() if capacity and type not in full]

    async def claim(self, job_id: str, *, worker: str, lease_s: float | None = None) -> Job | None:
        """The selected job, claimed by *worker*. None when it cannot be claimed any more."""
        unknown = False
        while True:
            try:
                due_times = self.due_times
                now_us = None if due_times.timeline.is_straight else due_times.search_until_us()
                job = await self._jobs.start(job_id, worker=worker, lease_s=lease_s, now_us=now_us)
            except JobUnreadable as error:
                # It stays selected: the views still show it as due, and it must not come again.
                self._log.error("not to be run", job_id=job_id, error=error.message)
                self._limiter.cancel_start(job_id)
                self._limiter.forget_selection(job_id)
                return None
            except Rejected:
                current = await self._jobs.current(job_id) if unknown else None
                if current is None or current.worker != worker:
                    # Cancelled or claimed since the views were read.
                    self._release(job_id, self._jobs.log.head)
                    return None
                job = current  # the append of unknown outcome has claimed it
            except LogError as error:
                self._log.warning("claim failed", job_id=job_id, error=error.code)
                unknown = unknown or isinstance(error, OutcomeUnknown)
                await sleep(self._clock, RETRY_DELAY_S)
                if unknown:
                    continue  # it may be claimed for this worker, and no other would run it
                self._release(job_id, 0)
                return None
            except BaseException:
                # The append may have been made: the limits count it until the views show it.
                self._selected[job_id] = self._jobs.log.head + 1
                self._limiter.record_start(job_id)
                raise
            self._selected[job_id] = job.position
            self._limiter.record_start(job_id)
            return job

    def _release(self, job_id: str, visible_at: int) -> None:
        """The claim failed. Free its limits once the views have reached position *visible_at*."""
        self._selected[job_id] = visible_at
        self._limiter.cancel_start(job_id)
        self.waiters.wake_all()

    async def wait_for_work(
        self, wake: asyncio.Event, searched_us: int, capacities: Sequence[Capacity]
    ) -> None:
        """Return when a search may select a job. The last one, until *searched_us* and within
        *capacities*, selected none.
        """
        wait_s = SEARCH_INTERVAL_S
        capacities = [each for each in capacities if each.free > 0 or each.prefetch > 0]
        if capacities:  # without any, no due time matters
            # A job may have become due since the search: count from *searched_us*, not from now.
            next_us = await self._views.next_due_us(searched_us)
            if next_us is not None:
                wait_s = max(0.0, (next_us - self.due_times.search_until_us()) / 1e6)
            if (next_due_s := self.due_times.next_due_s()) is not None:
                wait_s = min(wait_s, max(0.0, next_due_s))
            if (opening_s := self._limiter.next_opening_s()) is not None:
                wait_s = min(wait_s, opening_s)
        await self.waiters.sleep(wake, capacities, min(wait_s, SEARCH_INTERVAL_S))

    def slots_of(self, kind: LimitKind, name: str, type: str) -> tuple[int | None, frozenset[str]]:
        """As ConcurrencyLimiter.slots_of, without the claims that the views show as ended."""
        self._forget_visible()
        return self._limiter.slots_of(kind, name, type)

    def _on_changes(self, changes: list[JobChange]) -> None:
        self._limiter.update_all(changes)
        self.due_times.forget(change.after.job_id for change in changes)
        previous, self._seen_position = self._seen_position, self._views.position
        new = {change.after.spec.type for change in changes if change.before is None}
        added = sum(change.before is None for change in changes)
        if added == self._seen_position - previous:  # one event each: nothing but new jobs
            self.waiters.wake_for(new)
        else:
            # A pause may have ended, a dependency completed or a limit become free.
            self.waiters.wake_all()

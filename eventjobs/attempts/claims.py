"""The claim queue: selects due jobs within capacity and limits, and claims them in the log.

Local runners, external dispatchers and remote workers all claim here (docs/internals/claims.md).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eventjobs.attempts.due_times import DueTimes
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.ready_feed import ReadyFeed
from eventjobs.attempts.ready_queue import Answer, Offer, ReadyQueue
from eventjobs.attempts.ready_window import ReadyWindow
from eventjobs.attempts.waiters import ClaimWaiters
from eventjobs.clock import Clock, Timer, sleep
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.errors import JobUnreadable, LogError, OutcomeUnknown, Rejected
from eventjobs.execution.source import Capacity
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.projections.fold import Folded, Written
from eventjobs.projections.queue import WaitingJob

#: The longest time between two looks at the clocks. A wall clock that jumps delays a scheduled job
#: this long.
CLOCK_INTERVAL_S = 30.0
#: Seconds before a claim that the log did not take is tried again.
RETRY_DELAY_S = 0.5

#: ReadyQueue.take or take_children.
_Take = Callable[[Sequence[str], Offer], ReadyWindow | None]


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
        self.waiters = ClaimWaiters()
        self._ready = ReadyQueue()
        self._feed = ReadyFeed(self._ready, views)
        #: By id of a claimed job: the position at which the views show what became of the claim.
        self._claimed: dict[str, int] = {}
        #: Fires when a job becomes due or a rate opens, while claimers wait.
        self._timer: Timer | None = None
        self._timer_s = 0.0
        self._log = get_logger("eventjobs.claims")
        limiter.on_free = self._ready.free
        views.listen_to_batches(self._on_batch)
        views.listen_to_writes(self._on_write)

    async def load(self) -> None:
        """Load the jobs that wait. Before that none is selected."""
        await self._feed.load()
        self.waiters.wake_all()

    async def select(self, capacities: Sequence[Capacity], limit: int) -> list[tuple[str, str]]:
        """The (id, type) of up to *limit* jobs that are due and fit, best first."""
        free: dict[str, _FreeCapacity] = {}
        free_for_children: dict[str, _FreeCapacity] = {}
        for capacity in capacities:
            self.last_requested_us.update(dict.fromkeys(capacity.types, self._clock.now_us()))
            shared = _FreeCapacity(capacity.free, capacity.prefetch)  # by all its types
            for type in capacity.types if shared else ():
                (free_for_children if type in capacity.children_only else free)[type] = shared
        selected: list[WaitingJob] = []
        try:
            await self._admit_due()
            if free_for_children:
                # A parent is about to wait for its newest child: the queue has to have it.
                await self._views.wait_for_position(self._jobs.log.head)
                take = self._ready.take_children
                await self._select(take, free_for_children, limit, selected)
            await self._select(self._ready.take, free, limit, selected)
        except BaseException:
            for job in selected:
                self._release(job.job_id, 0)
            raise
        return [(job.job_id, job.type) for job in selected]

    async def _admit_due(self) -> None:
        until_us = self.due_times.search_until_us()
        while (window := self._ready.admit_due(until_us)) is not None:
            await self._feed.read(window)
        self._ready.admit_deferred(self.due_times.not_due())

    async def _select(
        self,
        take: _Take,
        free: dict[str, _FreeCapacity],
        limit: int,
        selected: list[WaitingJob],
    ) -> None:
        taken: list[WaitingJob] = []

        def offer(job: WaitingJob) -> Answer:
            answer = self._try_acquire(job, free[job.type])
            if answer == "taken":
                taken.append(job)
                selected.append(job)
                if len(selected) == limit:
                    return "last"
            return answer

        while len(selected) < limit and (types := [type for type, each in free.items() if each]):
            window = take(types, offer)
            not_due = await self.due_times.find_not_due(job.job_id for job in taken)
            for job in taken:
                if job.job_id in not_due:
                    selected.remove(job)
                    free[job.type].free += 1
                    self._defer(job.job_id)
            taken.clear()
            if window is not None:
                await self._feed.read(window)
            elif not not_due:
                break

    def _try_acquire(self, job: WaitingJob, free: _FreeCapacity) -> Answer:
        if not free:
            return "type"
        if free.free <= 0 and self._limiter.is_limited(job):
            # A prefetched job must not hold a limit, and no job behind it may overtake it.
            free.prefetch = 0
            return "type"
        full = self._limiter.try_acquire(job)
        if full is not None:
            return full
        free.use()
        return "taken"

    def _defer(self, job_id: str) -> None:
        self._ready.defer(job_id)
        self._limiter.cancel_start(job_id)
        self._limiter.forget_selection(job_id)

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
                selected = self._ready.taken_job(job_id)
                current = await self._jobs.current(job_id)
                if current is None or not unknown or current.worker != worker:
                    # Cancelled or claimed since it was selected, or it is not due.
                    if current is None or not current.waits:
                        self._ready.forget(selected)
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
                self._record_start(job_id, self._jobs.log.head + 1)
                raise
            self._record_start(job_id, job.position)
            return job

    def _record_start(self, job_id: str, visible_at: int) -> None:
        self._limiter.record_start(job_id)
        self._end_at(job_id, visible_at)
        if self._timer is not None and self._limiter.limits.rates:
            self._set_timer()  # it is known now when the rate opens

    def _release(self, job_id: str, visible_at: int) -> None:
        """The claim failed. Free its limits once the views have reached position *visible_at*."""
        self._limiter.cancel_start(job_id)
        self._end_at(job_id, visible_at)
        self._wake_claimers()

    def _end_at(self, job_id: str, position: int) -> None:
        """The job counts as the views show it once they are at *position*."""
        if position <= self._feed.position:
            self._end(job_id)
        else:
            self._claimed[job_id] = position

    def _end(self, job_id: str) -> None:
        self._ready.put_back(job_id)
        self._limiter.forget_selection(job_id)

    # --- waiting

    async def wait_for_work(self, wake: asyncio.Event, capacities: Sequence[Capacity]) -> None:
        """Return when a search within *capacities* may select a job. The last one selected none."""
        capacities = [each for each in capacities if each.free > 0 or each.prefetch > 0]
        if capacities:  # without any, no due time matters
            self._set_timer()
        await self.waiters.sleep(wake, capacities)

    def _set_timer(self) -> None:
        """Let the timer fire when a job becomes due or a rate opens, or earlier."""
        delays_s = [CLOCK_INTERVAL_S, self.due_times.next_due_s(), self._limiter.next_opening_s()]
        if (due_us := self._ready.next_due_us()) is not None:
            delays_s.append((due_us - self.due_times.search_until_us()) / 1e6)
        delay_s = max(0.0, min(each for each in delays_s if each is not None))
        at_s = self._clock.monotonic_s() + delay_s
        if self._timer is not None:
            if self._timer_s <= at_s:
                return
            self._timer.cancel()
        self._timer, self._timer_s = self._clock.call_later(delay_s, self._on_timer), at_s

    def _on_timer(self) -> None:
        self._timer = None
        until_us = self.due_times.search_until_us()
        if self._ready.admit_due(until_us) is not None:
            self.waiters.wake_all()  # one of them reads the table
        self._ready.admit_deferred(self.due_times.not_due())
        self._limiter.free_open_rates()
        self._wake_claimers()
        if self.waiters.are_waiting:
            self._set_timer()

    def _wake_claimers(self) -> None:
        if types := self._ready.take_available():
            self.waiters.wake_for(types)

    def _on_batch(self, folded: Folded) -> None:
        self._limiter.update_all(folded.changes)
        self.due_times.forget(change.after.job_id for change in folded.changes)
        self._feed.apply(folded)
        for job_id, position in [*self._claimed.items()]:
            if position <= self._feed.position:
                del self._claimed[job_id]
                self._end(job_id)
        self._look_again()

    def _on_write(self, written: Written) -> None:
        if written.moved:
            self._feed.move(written)
            self._look_again()

    def _look_again(self) -> None:
        self._wake_claimers()
        if self._timer is not None:
            self._set_timer()

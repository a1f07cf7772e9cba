"""Claims of remote workers: long polls for jobs, which a worker can end and renew."""

import asyncio
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.fencing import AttemptReports
from eventjobs.attempts.leases import LeaseMonitor
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Released
from eventjobs.execution.attempt_log import log_start
from eventjobs.execution.source import Capacity
from eventjobs.log.long_poll import LongPolls
from eventjobs.observability.logging import get_logger

_LOG = get_logger("eventjobs.work")


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Up to *limit* jobs within *capacities* for *worker*, waiting *wait_s* seconds for the first.

    *held* are the ids of the jobs that the worker has, None if it does not list them. Any other job
    that it has claimed is returned again, because the response of that claim was lost.
    """

    worker: str
    capacities: Sequence[Capacity]
    limit: int
    wait_s: float
    lease_s: float
    held: Set[str] | None

    @property
    def wants_jobs(self) -> bool:
        return any(capacity.types for capacity in self.capacities)


class RemoteClaims:
    """Claims jobs for remote workers. A claim waits while no job fits."""

    def __init__(
        self,
        claims: ClaimQueue,
        leases: LeaseMonitor,
        reports: AttemptReports,
        recorder: OutcomeRecorder,
        clock: Clock,
        polls: LongPolls,
    ) -> None:
        self._claims = claims
        self._leases = leases
        self._reports = reports
        self._recorder = recorder
        self._clock = clock
        self._polls = polls
        #: By worker: callables that end its present waits.
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        #: By worker: one event for each of its claims, set when the claim may not wait any more.
        self._ended: dict[str, set[asyncio.Event]] = {}
        # A worker whose lease expired may still have a claim open, which would lose its jobs.
        leases.on_worker_lost(self._end_waits)

    async def claim(self, request: ClaimRequest, gone: Callable[[], bool]) -> list[Job]:
        """The claimed jobs. Empty once the wait is over, or when the worker is *gone*.

        A request that does not wait ends the waits of the same worker.
        """
        worker = request.worker
        if request.wait_s == 0:
            self._end_waits(worker)
        ended = asyncio.Event()
        claims_of_worker = self._ended.setdefault(worker, set())
        claims_of_worker.add(ended)
        deadline_s = self._clock.monotonic_s() + request.wait_s
        wake = self._claims.waiters.subscribe()
        try:
            if request.held is not None:
                unanswered = await self._reports.unanswered_claims(worker, set(request.held))
                if unanswered:
                    return unanswered[: request.limit]
            while True:
                wake.clear()
                selected, jobs = await self._claim(request, wake, gone)
                if jobs or gone():
                    return jobs
                if selected:
                    continue  # another worker claimed them first
                left_s = deadline_s - self._clock.monotonic_s()
                if left_s <= 0 or ended.is_set():
                    return []
                if not await self._wait(request, wake, left_s):
                    return []
        finally:
            self._claims.waiters.unsubscribe(wake)
            claims_of_worker.remove(ended)
            if not claims_of_worker:
                self._ended.pop(worker, None)

    async def _claim(
        self, request: ClaimRequest, wake: asyncio.Event, gone: Callable[[], bool]
    ) -> tuple[int, list[Job]]:
        """The number of selected jobs, and the claimed ones."""
        if not request.wants_jobs or gone():
            return 0, []
        selected = await self._claims.select(request.capacities, request.limit)
        if selected:
            self._claims.waiters.pass_turn(wake)  # before the commit of these claims
        claims = [
            self._claims.claim(job_id, worker=request.worker, lease_s=request.lease_s)
            for job_id, _ in selected
        ]
        jobs = [job for job in await asyncio.gather(*claims) if job is not None]
        for job in jobs:
            self._leases.begin(job)
            log_start(_LOG, job)
        if gone():  # the response will not arrive
            released = Released("the worker had gone before it was answered")
            for job in jobs:
                await self._recorder.record(job, released, actor="service")
            return 0, []
        return len(selected), jobs

    async def _wait(self, request: ClaimRequest, wake: asyncio.Event, wait_s: float) -> bool:
        """Whether another search may select a job. False once the wait is over."""
        try:
            async with self._polls.bounded_wait(wait_s) as end:
                waiting = self._waiting.setdefault(request.worker, [])
                waiting.append(end)
                try:
                    await self._claims.wait_for_work(wake, request.capacities)
                finally:
                    waiting.remove(end)
                    if not waiting:
                        self._waiting.pop(request.worker, None)
        except TimeoutError:
            return False
        return True

    def _end_waits(self, worker: str) -> None:
        for ended in self._ended.get(worker, ()):
            ended.set()
        for end in self._waiting.get(worker, ()):
            end()

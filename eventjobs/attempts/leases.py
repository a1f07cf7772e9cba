"""Leases: who was heard from, and when. In memory beside the log, on the monotonic clock."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, assert_never

from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock, timeout
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Cancelled, Outcome, stall_failure, timeout_failure
from eventjobs.errors import Rejected
from eventjobs.observability.logging import get_logger
from eventjobs.projections.change import JobChange
from eventjobs.projections.views import Views
from eventjobs.supervision import Isolation

#: Leases are looked at so often: far below the second in which a lost one has to be noticed.
CHECK_INTERVAL_S = 0.25
#: A longer gap between two looks is a time in which this service could not hear anybody.
PAUSE_MIN_S = 1.0

StopReason = Literal["cancelled", "timeout", "stalled"]


#: Tells the service of an attempt why nobody waits for it any longer.
Withdraw = Callable[[Job, StopReason], Awaitable[None]]


@dataclass(slots=True)
class _Lease:
    job: Job  # as its attempt began
    started_s: float
    renewed_s: float
    progress_s: float  # with progress
    stop: StopReason | None = None
    #: since when whoever holds it knows that it is to stop
    stop_sent_s: float | None = None
    ending: bool = False

    @property
    def is_external(self) -> bool:
        return self.job.silence_s is not None


class LeaseMonitor:
    """Ends attempts that are made elsewhere, when nobody is heard from or a limit is passed.

    A worker has to be heard from within the `lease_s` of its attempt, and has a grace time in which
    to stop. An external service has the limits of the job alone, `silence_s` among them; it is told
    when its attempt has been ended. After a start of this service each attempt has one full period
    again. Only time in which the service could listen counts.
    """

    def __init__(
        self, jobs: Jobs, views: Views, settlement: OutcomeRecorder, *, grace_s: float
    ) -> None:
        self._clock: Clock = jobs.clock
        self._jobs = jobs
        self._views = views
        self._recorder = settlement
        self._grace_s = grace_s
        self._leases: dict[str, _Lease] = {}
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[str], object]] = []
        self._withdraw: Withdraw | None = None
        self._closed = False
        self._checked_s = self._clock.monotonic_s()
        self._paused_s = 0.0
        self._log = get_logger("eventjobs.leases")
        self._isolation = Isolation(self._clock, "eventjobs.leases", "ending an attempt")
        views.listen(self._on_changes)

    def __len__(self) -> int:
        return len(self._leases)

    def on_worker_lost(self, listener: Callable[[str], object]) -> None:
        """Call *listener* with the name of each worker that is not heard from."""
        self._listeners.append(listener)

    def on_external_stop(self, withdraw: Withdraw) -> None:
        """Call *withdraw* when the attempt of an external service has been ended."""
        self._withdraw = withdraw

    def begin(self, job: Job) -> None:
        """From now on *job*'s present attempt is ended when it is not heard from. Idempotent."""
        if not is_remote(job):
            return
        known = self._leases.get(job.job_id)
        if known is None or known.job.attempt < job.attempt:
            now_s = self._now_s()
            if not self._leases:
                self._wake.set()
            self._leases[job.job_id] = _Lease(job, now_s, now_s, now_s)
        lease = self._leases[job.job_id]
        if job.cancel_requested_us is not None and lease.job.attempt == job.attempt:
            lease.stop = lease.stop or "cancelled"
            if lease.is_external:
                self._wake.set()

    def renew(self, job: Job, *, moved: bool = False) -> StopReason | None:
        """Note that whoever holds *job* lives, and (*moved*) makes progress; why it is to stop.

        What is answered counts as told: a worker that is to stop has the grace time from here on.
        """
        self.begin(job)
        lease = self._leases.get(job.job_id)
        if lease is None or lease.job.attempt != job.attempt:
            return None
        lease.renewed_s = now_s = self._now_s()
        if moved:
            lease.progress_s = now_s
        if lease.stop is not None and lease.stop_sent_s is None:
            lease.stop_sent_s = now_s
        return lease.stop

    def silence_s(self, job_id: str) -> float | None:
        """Seconds since whoever holds the job was heard from; None if there is no such lease."""
        lease = self._leases.get(job_id)
        return None if lease is None else self._now_s() - lease.renewed_s

    def close(self) -> None:
        """Lose nobody from now on: this service stops listening, and whoever lives cannot tell."""
        self._closed = True

    def held_by(self, worker: str) -> list[str]:
        """The ids of the jobs that *worker* has a lease on, as far as is known here."""
        return [job_id for job_id, each in self._leases.items() if each.job.worker == worker]

    async def run(self) -> None:
        """Look after the leases, until cancelled."""
        async with asyncio.TaskGroup() as endings:
            while True:
                with suppress(TimeoutError):
                    async with timeout(self._clock, CHECK_INTERVAL_S if self._leases else None):
                        await self._wake.wait()
                self._wake.clear()
                if self._closed:
                    return
                now_s = self._now_s()
                for lease in list(self._leases.values()):
                    self._apply_limits(lease, now_s)
                    job_id = lease.job.job_id
                    over = not lease.ending and self._must_end(lease, now_s)
                    if over and self._isolation.may_run(job_id):
                        lease.ending = True
                        endings.create_task(self._try_end(lease, now_s))

    def _now_s(self) -> float:
        """The monotonic clock, less the time in which this process was stopped or blocked."""
        looked_s, self._checked_s = self._checked_s, self._clock.monotonic_s()
        gap_s = self._checked_s - looked_s
        if gap_s > PAUSE_MIN_S:
            self._paused_s += gap_s - CHECK_INTERVAL_S
        return self._checked_s - self._paused_s

    def _apply_limits(self, lease: _Lease, now_s: float) -> None:
        """Have an attempt stopped that is past a limit; its holder may keep the limits itself."""
        if lease.stop is not None:
            return
        timeout_s, stall_s = lease.job.spec.timeout_s, _stall_timeout_s(lease.job)
        if timeout_s is not None and now_s - lease.started_s >= timeout_s:
            lease.stop = "timeout"
        elif stall_s is not None and now_s - lease.progress_s >= stall_s:
            lease.stop = "stalled"
        if lease.stop is not None:
            lease.stop_sent_s = now_s  # the limits are in the job, so they are known to its holder

    def _must_end(self, lease: _Lease, now_s: float) -> bool:
        if lease.is_external:
            return lease.stop is not None
        ignores = lease.stop_sent_s is not None and now_s - lease.stop_sent_s >= self._grace_s
        return ignores or self._is_expired(lease, now_s)

    def _is_expired(self, lease: _Lease, now_s: float) -> bool:
        lease_s = lease.job.lease_s
        return lease_s is not None and now_s - lease.renewed_s >= lease_s

    async def _try_end(self, lease: _Lease, now_s: float) -> None:
        job = lease.job
        about = {"job_id": job.job_id, "worker": job.worker}
        try:
            await self._isolation.attempt(job.job_id, self._end(lease, now_s), **about)
        finally:
            lease.ending = False  # one that could not be ended is looked at again

    async def _end(self, lease: _Lease, now_s: float) -> None:
        """Raises what recording its end raises."""
        job = lease.job
        if self._is_expired(lease, now_s):
            # Before its job is to be had again: it shall not go to the same worker.
            for listener in self._listeners:
                listener(job.worker or "")
        try:
            if (outcome := outcome_of_stop(job, lease.stop)) is not None:
                await self._recorder.record(job, outcome, actor="service")
                self._log.warning("attempt ended", job_id=job.job_id, why=lease.stop)
            else:
                why = f"not heard from for {job.lease_s:g} s"
                await self._recorder.record_lost(job, why, actor="service")
                self._log.warning("attempt lost", job_id=job.job_id, worker=job.worker)
            if lease.is_external and lease.stop is not None and self._withdraw is not None:
                await self._withdraw(job, lease.stop)
        except Rejected:
            pass  # it ended by itself, just now
        if self._leases.get(job.job_id) is lease:
            del self._leases[job.job_id]

    def _on_changes(self, touched: Iterable[JobChange]) -> None:
        for each in touched:
            job = each.after
            lease = self._leases.get(job.job_id)
            if lease is None:
                if is_remote(job):
                    self.begin(job)
            elif job.version >= lease.job.version:
                if not is_remote(job) or job.attempt != lease.job.attempt:
                    del self._leases[job.job_id]
                self.begin(job)


def is_remote(job: Job) -> bool:
    """Whether a worker elsewhere runs it, or an external service has it."""
    return job.lease_s is not None or job.silence_s is not None


def outcome_of_stop(job: Job, why: StopReason | None) -> Outcome | None:
    """What it comes to that *job*'s attempt was stopped; None if it was not."""
    match why:
        case "cancelled":
            return Cancelled()
        case "timeout":
            return timeout_failure(job.spec.timeout_s)
        case "stalled":
            return stall_failure(_stall_timeout_s(job))
        case None:
            return None
        case _ as never:
            assert_never(never)


def _stall_timeout_s(job: Job) -> float | None:
    """How long it may be without progress: a service that has it, not for ever."""
    return job.spec.stall_timeout_s if job.silence_s is None else job.silence_s

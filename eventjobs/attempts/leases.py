"""Leases of remote attempts: since when each has sent no report, in memory and by monotonic time.

Design: docs/internals/leases.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock, timeout
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.job import Job
from eventjobs.errors import Rejected
from eventjobs.execution.results import outcome_of_stop, stall_timeout_s
from eventjobs.observability.logging import get_logger
from eventjobs.projections import JobChange, Views
from eventjobs.supervision import Isolation

#: Seconds between two checks of the leases. A lost attempt has to be noticed within a second.
CHECK_INTERVAL_S = 0.25
#: A longer gap between two checks is a pause: the process was stopped or blocked.
PAUSE_MIN_S = 1.0

#: Why a remote attempt has to stop.
RemoteStopReason = Literal["cancelled", "timeout", "stalled"]
#: Sends a stop request to an external service.
StopExternal = Callable[[Job, RemoteStopReason], Awaitable[None]]


@dataclass(slots=True)
class _Lease:
    #: As its attempt began.
    job: Job
    started_s: float
    #: Time of the last report or heartbeat.
    renewed_s: float
    #: Time of the last report of progress.
    progress_s: float
    stop: RemoteStopReason | None = None
    #: When the holder learned that it has to stop.
    stop_sent_s: float | None = None
    ending: bool = False

    @property
    def is_external(self) -> bool:
        return self.job.silence_s is not None


class LeaseMonitor:
    """Ends remote attempts whose lease expired or that exceed a limit of their job.

    A worker has to report within `lease_s`, and has *grace_s* seconds to stop when it has to. An
    external service only has the limits of the job, `silence_s` among them, and gets a request to
    stop after its attempt has ended. Each attempt has one full period again after a start of this
    service. Time while this process was stopped or blocked does not count towards a lease.
    """

    def __init__(
        self, jobs: Jobs, views: Views, recorder: OutcomeRecorder, *, grace_s: float
    ) -> None:
        self._clock: Clock = jobs.clock
        self._jobs = jobs
        self._views = views
        self._recorder = recorder
        self._grace_s = grace_s
        self._leases: dict[str, _Lease] = {}
        self._wake = asyncio.Event()
        self._lost_listeners: list[Callable[[str], object]] = []
        self._stop_external: StopExternal | None = None
        self._closed = False
        self._checked_s = self._clock.monotonic_s()
        self._paused_s = 0.0
        self._log = get_logger("eventjobs.leases")
        self._isolation = Isolation(self._clock, "eventjobs.leases", "ending an attempt")
        views.listen(self._on_changes)

    def __len__(self) -> int:
        return len(self._leases)

    def on_worker_lost(self, listener: Callable[[str], object]) -> None:
        """Call *listener* with the name of each worker whose lease expired."""
        self._lost_listeners.append(listener)

    def on_external_stop(self, stop: StopExternal) -> None:
        """Call *stop* when the attempt of an external service has ended."""
        self._stop_external = stop

    def begin(self, job: Job) -> None:
        """Start the lease of *job*'s present attempt, if a remote worker runs it. Idempotent."""
        if not is_remote(job):
            return
        current = self._leases.get(job.job_id)
        if current is None or current.job.attempt < job.attempt:
            now_s = self._now_s()
            if not self._leases:
                self._wake.set()
            self._leases[job.job_id] = _Lease(job, now_s, now_s, now_s)
        lease = self._leases[job.job_id]
        if job.cancel_requested_us is not None and lease.job.attempt == job.attempt:
            lease.stop = lease.stop or "cancelled"
            if lease.is_external:
                self._wake.set()

    def renew(self, job: Job, *, has_progress: bool = False) -> RemoteStopReason | None:
        """Renew the lease after a report, which *has_progress* or not. Returns why to stop, if so.

        The caller sends that reason to the holder, whose grace time starts now.
        """
        self.begin(job)
        lease = self._leases.get(job.job_id)
        if lease is None or lease.job.attempt != job.attempt:
            return None
        lease.renewed_s = now_s = self._now_s()
        if has_progress:
            lease.progress_s = now_s
        if lease.stop is not None and lease.stop_sent_s is None:
            lease.stop_sent_s = now_s
        return lease.stop

    def silence_s(self, job_id: str) -> float | None:
        """Seconds since the last report of the job's attempt. None without a lease."""
        lease = self._leases.get(job_id)
        return None if lease is None else self._now_s() - lease.renewed_s

    def close(self) -> None:
        """End no further attempt: this service takes no more reports."""
        self._closed = True

    def held_by(self, worker: str) -> list[str]:
        """The ids of the jobs with a lease of *worker*."""
        return [job_id for job_id, each in self._leases.items() if each.job.worker == worker]

    async def run(self) -> None:
        """Check the leases until cancelled or closed."""
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
                    must_end = not lease.ending and self._must_end(lease, now_s)
                    if must_end and self._isolation.may_run(lease.job.job_id):
                        lease.ending = True
                        endings.create_task(self._try_end(lease, now_s))

    def _now_s(self) -> float:
        """The monotonic clock, less the time in which this process was stopped or blocked."""
        previous_s, self._checked_s = self._checked_s, self._clock.monotonic_s()
        gap_s = self._checked_s - previous_s
        if gap_s > PAUSE_MIN_S:
            self._paused_s += gap_s - CHECK_INTERVAL_S
        return self._checked_s - self._paused_s

    def _apply_limits(self, lease: _Lease, now_s: float) -> None:
        """Set the stop reason of an attempt that exceeds a limit of its job."""
        if lease.stop is not None:
            return
        timeout_s, stall_s = lease.job.spec.timeout_s, stall_timeout_s(lease.job)
        if timeout_s is not None and now_s - lease.started_s >= timeout_s:
            lease.stop = "timeout"
        elif stall_s is not None and now_s - lease.progress_s >= stall_s:
            lease.stop = "stalled"
        if lease.stop is not None:
            lease.stop_sent_s = now_s  # the holder has the limits with the job

    def _must_end(self, lease: _Lease, now_s: float) -> bool:
        if lease.is_external:
            return lease.stop is not None
        sent_s = lease.stop_sent_s
        ignores_stop = sent_s is not None and now_s - sent_s >= self._grace_s
        return ignores_stop or self._is_expired(lease, now_s)

    def _is_expired(self, lease: _Lease, now_s: float) -> bool:
        lease_s = lease.job.lease_s
        return lease_s is not None and now_s - lease.renewed_s >= lease_s

    async def _try_end(self, lease: _Lease, now_s: float) -> None:
        job = lease.job
        about = {"job_id": job.job_id, "worker": job.worker}
        try:
            await self._isolation.attempt(job.job_id, self._end(lease, now_s), **about)
        finally:
            lease.ending = False  # after a failure it is checked again

    async def _end(self, lease: _Lease, now_s: float) -> None:
        """End the attempt of *lease*. Raises what recording its outcome raises."""
        job = lease.job
        if self._is_expired(lease, now_s):
            # Before the job is queued again: the same worker must not claim it.
            for listener in self._lost_listeners:
                listener(job.worker or "")
        try:
            if lease.stop is not None:
                outcome = outcome_of_stop(job, lease.stop)
                await self._recorder.record(job, outcome, actor="service")
                self._log.warning("attempt ended", job_id=job.job_id, why=lease.stop)
            else:
                reason = f"not heard from for {job.lease_s:g} s"
                await self._recorder.record_lost(job, reason, actor="service")
                self._log.warning("attempt lost", job_id=job.job_id, worker=job.worker)
            if lease.is_external and lease.stop is not None and self._stop_external is not None:
                await self._stop_external(job, lease.stop)
        except Rejected:
            pass  # the attempt has just ended by itself
        if self._leases.get(job.job_id) is lease:
            del self._leases[job.job_id]

    def _on_changes(self, changes: Iterable[JobChange]) -> None:
        for change in changes:
            job = change.after
            lease = self._leases.get(job.job_id)
            if lease is None:
                if is_remote(job):
                    self.begin(job)
            elif job.version >= lease.job.version:
                if not is_remote(job) or job.attempt != lease.job.attempt:
                    del self._leases[job.job_id]
                self.begin(job)


def is_remote(job: Job) -> bool:
    """Whether a remote worker or an external service runs the job."""
    return job.lease_s is not None or job.silence_s is not None

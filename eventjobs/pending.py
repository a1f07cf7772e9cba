"""Attempts that an external service has taken on: their limits, and their end when one is reached.

What is pending follows from the log alone, through the views. So there is nothing to tell this
module when a job is handed over or reports, and nothing to restore after a restart: what was
pending is so again, with all its time.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from eventjobs.clock import Clock, Timer, sleep
from eventjobs.errors import LogError, Rejected
from eventjobs.events import ProgressReported
from eventjobs.job import Job, Status
from eventjobs.jobs import Jobs
from eventjobs.outcomes import Cancelled, Failed, stalled, timed_out
from eventjobs.settlement import Settlement
from projections import Views
from projections.touched import Touched

#: Tells the service of a job's attempt why nobody waits for it any longer.
Withdraw = Callable[[Job, str], Awaitable[None]]


class Pending:
    """Ends what is silent for too long, takes longer than it may, or is cancelled."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        settlement: Settlement,
        withdraw: Withdraw,
    ) -> None:
        self._jobs = jobs
        self._views = views
        self._settlement = settlement
        self._withdraw = withdraw
        self._waits: dict[str, _Wait] = {}
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("eventjobs.pending")
        views.listen(self._noticed)

    def __len__(self) -> int:
        return len(self._waits)

    async def resume(self) -> None:
        """Wait again for what was handed over before this start; to be called first."""
        for job_id in await self._views.running():
            job = await self._jobs.load(job_id)
            if job is not None and _is_pending(job):
                self._follow(job)

    def silent_s(self, job_id: str) -> float | None:
        """Seconds since a service that has the job was heard from; None if none has it."""
        wait = self._waits.get(job_id)
        return None if wait is None else wait.silent_s

    async def close(self) -> None:
        """Wait no longer; the next start does."""
        self._closed = True
        for wait in self._waits.values():
            wait.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _noticed(self, touched: list[Touched]) -> None:
        for each in () if self._closed else touched:
            job = each.after
            if _is_pending(job):
                self._follow(job)
                if any(isinstance(told.event, ProgressReported) for told in each.events):
                    self._waits[job.job_id].heard()
            elif (wait := self._waits.pop(job.job_id, None)) is not None:
                wait.stop()

    def _follow(self, job: Job) -> None:
        wait = self._waits.get(job.job_id)
        if wait is None or wait.job.attempt != job.attempt:
            if wait is not None:
                wait.stop()
            wait = self._waits[job.job_id] = _Wait(job, self._jobs.clock, self._end)
        if job.cancel_requested_us is not None:
            wait.end("cancelled")

    def _end(self, job: Job, why: str) -> None:
        task = asyncio.create_task(self._ended(job, why), name=f"end {job.job_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ended(self, job: Job, why: str) -> None:
        """Write it down, however long the log takes to accept it; then tell the service."""
        while True:
            try:
                await self._settlement.settle(job, _outcome(job, why), actor="service")
                break
            except Rejected:
                return  # it reported in the last moment
            except LogError as error:
                self._log.warning("outcome waits", job_id=job.job_id, error=error.code)
                await sleep(self._jobs.clock, 1.0)
        await self._withdraw(job, why)


def _is_pending(job: Job) -> bool:
    return job.status == Status.RUNNING and job.silence_s is not None


class _Wait:
    """For one attempt to be heard from. It ends once, by whichever limit comes first."""

    def __init__(self, job: Job, clock: Clock, tell: Callable[[Job, str], object]) -> None:
        self.job = job
        self._clock = clock
        self._tell = tell
        self._ended = False
        self._heard_s = clock.monotonic_s()
        self._silence = self._limit(job.silence_s, self._look)
        self._timeout = self._limit(job.spec.timeout_s, lambda: self.end("timeout"))

    @property
    def silent_s(self) -> float:
        return self._clock.monotonic_s() - self._heard_s

    def heard(self) -> None:
        self._heard_s = self._clock.monotonic_s()

    def end(self, why: str) -> None:
        if not self._ended:
            self.stop()
            self._tell(self.job, why)

    def stop(self) -> None:
        self._ended = True
        for timer in (self._silence, self._timeout):
            if timer is not None:
                timer.cancel()

    def _limit(self, limit_s: float | None, reached: Callable[[], object]) -> Timer | None:
        return None if limit_s is None else self._clock.call_later(limit_s, reached)

    def _look(self) -> None:
        # Looked at when it is over, and not set anew by each report: there may be many.
        assert self.job.silence_s is not None
        left_s = self._heard_s + self.job.silence_s - self._clock.monotonic_s()
        if left_s <= 0:
            self.end("stalled")
        else:
            self._silence = self._limit(left_s, self._look)


def _outcome(job: Job, why: str) -> Cancelled | Failed:
    match why:
        case "cancelled":
            return Cancelled()
        case "timeout":
            return timed_out(job.spec.timeout_s)
        case _:
            return stalled(job.silence_s)

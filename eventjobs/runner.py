"""Running jobs: due -> claim -> perform under its limits -> outcome -> record."""

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any, assert_never

import orjson
import structlog

from eventjobs.artifacts import Artifacts
from eventjobs.attempt import Attempt, Cancelled, Failed, Outcome, Released, Succeeded, Why
from eventjobs.clock import Clock, sleep
from eventjobs.errors import InvalidInput, LogError, OutcomeUnknown, Rejected
from eventjobs.events import ArtifactStored, AttemptFailed
from eventjobs.handlers import Context, Handler, Handlers, ThreadContext
from eventjobs.job import Job, Status
from eventjobs.jobs import Jobs
from eventjobs.reports import Reports
from projections import Views
from projections.touched import Touched

#: A wall clock that jumps must not keep a scheduled job waiting longer than this.
LOOK_AGAIN_S = 30.0


class Runner:
    """Runs due jobs in this process: *concurrency* at once, of them *threads* in threads."""

    def __init__(
        self,
        jobs: Jobs,
        views: Views,
        handlers: Handlers,
        artifacts: Artifacts,
        clock: Clock,
        *,
        concurrency: int,
        threads: int,
        grace_s: float,
        progress_interval_s: float,
        retry_delay_s: float,
        retry_delay_max_s: float,
        result_bytes_max: int,
    ) -> None:
        # Random at each start: a restarted process must never look like the one that died.
        self.worker = f"worker-{os.urandom(4).hex()}"
        self._jobs = jobs
        self._views = views
        self._handlers = handlers
        self._artifacts = artifacts
        self._clock = clock
        self._concurrency = concurrency
        self._threads = threads
        self._grace_s = grace_s
        self._progress_interval_s = progress_interval_s
        self._retry_delay_s = retry_delay_s
        self._retry_delay_max_s = retry_delay_max_s
        self._result_bytes_max = result_bytes_max
        self._types = {each.type: each for each in handlers}
        self._loop_types = [each.type for each in self._types.values() if not each.threaded]
        self._attempts: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_threads = 0
        #: Claims the views may not show yet, and the position at which they will.
        self._taken: dict[str, int | None] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self._log = structlog.get_logger("eventjobs.runner")
        views.listen(self._noticed)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def recover(self) -> int:
        """End the attempts that a crash cut off, so that they run again. Before *run*."""
        await self._views.reached(self._jobs.log.head)
        lost = await self._views.running()
        now_us = self._clock.now_us()
        for job_id in lost:
            job = await self._jobs.load(job_id)
            if job is not None and job.status == Status.RUNNING:
                failed = AttemptFailed(
                    job.attempt, "worker_lost", True, now_us, "the service stopped while it ran"
                )
                await self._jobs.fail(job_id, failed, actor=self.worker)
        if lost:
            self._log.warning("attempts lost", jobs=len(lost))
        return len(lost)

    async def run(self) -> None:
        """Claim and run what is due, until *stop*."""
        while not self._stopping and self._types and self._concurrency:
            self._wake.clear()
            now_us = self._clock.now_us()
            if not await self._claim_due(now_us):
                await self._wait_for_more(now_us)

    async def stop(self, drain_s: float) -> None:
        """Claim nothing more; let what runs finish for *drain_s*, then give it back."""
        self._stopping = True
        self._wake.set()
        if self._tasks:
            self._log.info("draining", jobs=len(self._tasks), drain_s=drain_s)
            await self._finish(drain_s)
        for attempt in list(self._attempts.values()):
            self._stop(attempt, "shutdown")
        # Told to stop, an attempt has the grace time, and then a moment to be written down.
        await self._finish(self._grace_s + 1.0)
        for task in self._tasks:
            task.cancel()  # the log takes nothing now: the next start finds these as lost

    async def _finish(self, within_s: float) -> None:
        over = asyncio.Event()
        timer = self._clock.call_later(within_s, over.set)
        until = asyncio.create_task(over.wait())
        try:
            while self._tasks and not over.is_set():
                await asyncio.wait({until, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            until.cancel()

    # --- due, claim

    async def _claim_due(self, now_us: int) -> int:
        """Start what is due and fits; how many."""
        free = self._concurrency - len(self._tasks)
        if free <= 0:
            return 0
        threads = self._threads - self._in_threads
        position = self._views.position
        for job_id, visible in list(self._taken.items()):
            if visible is not None and visible <= position:
                del self._taken[job_id]
        types = self._types if threads > 0 else self._loop_types
        due = await self._views.due(now_us, types, self._taken, free)
        started = 0
        for job_id, type in due:
            handler = self._types[type]
            if handler.threaded:
                if threads <= 0:
                    continue
                threads -= 1
                self._in_threads += 1
            self._taken[job_id] = None
            task = asyncio.create_task(self._one(job_id, handler), name=f"job {job_id}")
            self._tasks.add(task)
            started += 1
        return started

    async def _wait_for_more(self, looked_us: int) -> None:
        # Later than when we looked, not later than now: between the two a job may have become due.
        next_us = await self._views.next_due_us(looked_us)
        wait_s = LOOK_AGAIN_S
        if next_us is not None:
            wait_s = max(0.0, (next_us - self._clock.now_us()) / 1e6)
        timer = self._clock.call_later(min(wait_s, LOOK_AGAIN_S), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _noticed(self, touched: list[Touched]) -> None:
        self._wake.set()
        for each in touched:
            if each.after.cancel_requested_us is not None and each.after.status == Status.RUNNING:
                attempt = self._attempts.get(each.after.job_id)
                if attempt is not None and attempt.job.attempt == each.after.attempt:
                    self._stop(attempt, "cancelled")

    async def _one(self, job_id: str, handler: Handler) -> None:
        try:
            job = await self._claim(job_id)
            if job is not None:
                attempt = self._begin(job, handler)
                outcome = await attempt.perform()
                if not attempt.abandoned:
                    await self._record(attempt, outcome)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._free(task, handler)

    def _free(self, task: asyncio.Task[None], handler: Handler | None = None) -> None:
        """Give the slot to the next job; an abandoned attempt's was given already."""
        if task in self._tasks:
            self._tasks.discard(task)
            self._in_threads -= handler is not None and handler.threaded
            self._wake.set()

    async def _claim(self, job_id: str) -> Job | None:
        unknown = False
        while True:
            try:
                job = await self._jobs.start(job_id, worker=self.worker)
            except Rejected:
                claimed = await self._jobs.current(job_id) if unknown else None
                if claimed is None or claimed.worker != self.worker:
                    # Cancelled or claimed since the views were read; they will show it by then.
                    self._taken[job_id] = self._jobs.log.head
                    return None
                job = claimed  # by the append that could not be answered
            except LogError as error:
                self._log.warning("claim failed", job_id=job_id, error=error.code)
                unknown = unknown or isinstance(error, OutcomeUnknown)
                await sleep(self._clock, 0.5)
                if unknown:
                    continue  # it may be ours by now, and then nobody else will run it
                self._taken[job_id] = 0
                return None
            self._taken[job_id] = job.position
            return job

    # --- perform, under its limits

    def _begin(self, job: Job, handler: Handler) -> Attempt:
        reports = Reports(self._jobs, job.job_id, self.worker, self._progress_interval_s)
        context = (
            ThreadContext(job, self._artifacts, reports, asyncio.get_running_loop())
            if handler.threaded
            else Context(job, self._artifacts, reports)
        )
        attempt = Attempt(job, handler, context, reports)
        self._attempts[job.job_id] = attempt
        spec = job.spec
        if spec.timeout_s is not None:
            self._later(attempt, spec.timeout_s, lambda: self._stop(attempt, "timeout"))
        if spec.stall_timeout_s is not None:
            self._watch(attempt, spec.stall_timeout_s)
        if job.cancel_requested_us is not None or self._stopping:
            self._stop(attempt, "cancelled" if job.cancel_requested_us else "shutdown")
        return attempt

    def _later(self, attempt: Attempt, delay_s: float, callback: Callable[[], object]) -> None:
        attempt.timers.append(self._clock.call_later(delay_s, callback))

    def _watch(self, attempt: Attempt, limit_s: float) -> None:
        silent_s = self._clock.monotonic_s() - attempt.reports.heard_s
        if silent_s >= limit_s:
            self._stop(attempt, "stalled")
        else:
            self._later(attempt, limit_s - silent_s, lambda: self._watch(attempt, limit_s))

    def _stop(self, attempt: Attempt, why: Why) -> None:
        """Tell an attempt to stop; one that does not, within the grace time, is abandoned."""
        if attempt.why is not None:
            return
        attempt.why = why
        attempt.context._stopped = True
        if attempt.performing:
            if not attempt.handler.threaded and attempt.task is not None:
                attempt.task.cancel()
            self._later(attempt, self._grace_s, lambda: self._abandon(attempt))

    def _abandon(self, attempt: Attempt) -> None:
        """The handler ignores that it was told to stop: end the attempt without it."""
        if not attempt.performing or attempt.abandoned or attempt.task is None:
            return
        attempt.abandoned = True
        self._log.error(
            "handler ignores being stopped",
            job_id=attempt.job.job_id,
            type=attempt.handler.type,
            why=attempt.why,
        )
        self._free(attempt.task, attempt.handler)
        task = asyncio.create_task(
            self._record(attempt, attempt.interrupted()), name=f"abandon {attempt.job.job_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._free)

    # --- record

    async def _record(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write the outcome down, however long the log takes to accept it."""
        await attempt.reports.flush()
        delay_s = 0.1
        while True:
            try:
                await self._write(attempt, outcome)
                break
            except Rejected as error:
                self._log.warning("outcome refused", job_id=attempt.job.job_id, error=error.code)
                break
            except InvalidInput as error:  # a result larger than any artifact may be
                outcome = Failed(error.code, error.message, False)
            except (LogError, OSError) as error:
                why = error.code if isinstance(error, LogError) else str(error)
                self._log.warning("outcome waits", job_id=attempt.job.job_id, error=why)
                await sleep(self._clock, delay_s)
                delay_s = min(delay_s * 2, 5.0)
        if self._attempts.get(attempt.job.job_id) is attempt:
            del self._attempts[attempt.job.job_id]

    async def _write(self, attempt: Attempt, outcome: Outcome) -> None:
        job_id, number = attempt.job.job_id, attempt.job.attempt
        match outcome:
            case Succeeded(result=result):
                result = await self._small(attempt, result)
                await self._jobs.complete(job_id, number, result, actor=self.worker)
            case Failed():
                retry_at_us = self._retry_at_us(attempt) if outcome.retryable else None
                failed = AttemptFailed(
                    number,
                    outcome.code,
                    outcome.retryable,
                    retry_at_us,
                    outcome.message,
                    outcome.details,
                )
                await self._jobs.fail(job_id, failed, actor=self.worker)
            case Cancelled():
                await self._jobs.stopped(job_id, number, actor=self.worker)
            case Released(reason=reason):
                await self._jobs.release(job_id, number, reason, actor=self.worker)
            case _ as never:
                assert_never(never)

    async def _small(self, attempt: Attempt, result: Any) -> Any:
        """*result*, or where to find it when it is too large for an event."""
        if result is None:
            return None
        encoded = orjson.dumps(result)
        if len(encoded) <= self._result_bytes_max:
            return result
        sha256, size = await asyncio.to_thread(self._artifacts.store, encoded)
        stored = ArtifactStored(
            attempt.job.attempt, "result.json", sha256, size, "application/json"
        )
        await self._jobs.report(attempt.job.job_id, stored, actor=self.worker)
        return {"artifact": "result.json", "size": size}

    def _retry_at_us(self, attempt: Attempt) -> int:
        """Exponential backoff, with jitter: what failed together shall not return together."""
        spec = attempt.job.spec
        first_s = self._retry_delay_s if spec.retry_delay_s is None else spec.retry_delay_s
        doubled = 2.0 ** min(attempt.job.tries - 1, 100)  # a float ends at 2**1024
        delay_s = min(first_s * doubled, self._retry_delay_max_s)
        return self._clock.now_us() + int(delay_s * random.uniform(0.75, 1.25) * 1e6)  # noqa: S311

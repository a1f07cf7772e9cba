"""Runs jobs: claim, run the handler under its limits, record the outcome."""

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress

from eventjobs.clock import timeout
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.execution.attempt import RunningAttempt, StopReason
from eventjobs.execution.attempt_log import log_start
from eventjobs.execution.outcome_writer import OutcomeWriter
from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.execution.results import failure
from eventjobs.execution.slots import Slot, Slots
from eventjobs.execution.source import ClaimableJob, JobSource, WithdrawReason
from eventjobs.execution.task_factory import TaskFactory
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import Handler, HandlerRegistry, Mode
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.observability.log_capture import LogCapture
from eventjobs.observability.logging import get_logger

#: Modes of handlers that do not run here. (A dispatcher's handlers are functions on the loop.)
REMOTE_MODES: tuple[Mode, ...] = ("external", "remote")


class Runner:
    """Runs the jobs of a job source: *concurrency* at once, at most *threads* of them in threads.

    It owns *processes* and closes them when it stops. Without them it claims no process jobs.
    """

    def __init__(
        self,
        source: JobSource,
        handlers: HandlerRegistry,
        *,
        concurrency: int,
        threads: int,
        processes: ProcessPool | None = None,
        grace_s: float,
        progress_interval_s: float,
        capture_logs: str = "off",
    ) -> None:
        self._source = source
        self._clock = source.clock
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._progress_interval_s = progress_interval_s
        self._capture = LogCapture(capture_logs)
        self._handlers = {each.type: each for each in handlers if each.mode not in REMOTE_MODES}
        self._types: dict[str, list[str]] = {}
        for each in self._handlers.values():
            self._types.setdefault(each.mode, []).append(each.type)
        limits = {
            "thread": threads,
            "process": processes.limit if processes else 0,
        }
        self._slots = Slots(concurrency, limits)
        self._processes = processes
        self._attempts: dict[str, RunningAttempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._outcomes = OutcomeWriter(source)
        self._task_factory: TaskFactory | None = None
        self._claim_task: asyncio.Task[None] | None = None
        self._log = get_logger("eventjobs.runner")
        source.on_stop(self._withdraw)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self) -> None:
        """Claim and run jobs until *stop*."""
        self._claim_task = asyncio.current_task()
        self._capture.start()
        if self._task_factory is None:
            self._task_factory = TaskFactory.add_user(asyncio.get_running_loop())
        while not self._stopping and self._handlers and self._concurrency:
            prefetch = {"process": self._processes.prefetch} if self._processes else {}
            capacities, limit = self._slots.capacities(self._types, prefetch)
            for claimable in await self._source.next_jobs(capacities, limit):
                handler = self._handlers[claimable.type]
                coroutine = self._run_job(claimable, handler, self._slots.take(handler.mode))
                # In an empty context: a handler finds no variable that others have set.
                name, context = f"job {claimable.job_id}", contextvars.Context()
                self._tasks.add(asyncio.create_task(coroutine, name=name, context=context))

    async def stop(self, drain_s: float) -> None:
        """Stop claiming, wait *drain_s* seconds for running jobs, then stop and release them."""
        self._stopping = True
        self._source.interrupt_wait()
        if self._claim_task is not None:  # jobs that it claims just now must end in order, too
            with suppress(TimeoutError):
                async with timeout(self._clock, self._grace_s):
                    await asyncio.wait({self._claim_task})
            self._claim_task.cancel()
        if self._processes is not None:
            self._processes.release_prefetched()
        if self._tasks:
            self._log.info("draining", jobs=len(self._tasks), drain_s=drain_s)
            await self._wait_for_tasks(drain_s)
        for attempt in list(self._attempts.values()):
            self._stop_attempt(attempt, "shutdown")
        # A stopped attempt has the grace time, and a second more for its outcome to be recorded.
        await self._wait_for_tasks(self._grace_s + 1.0)
        self._outcomes.close()
        for task in self._tasks:
            task.cancel()  # the log accepts nothing; the next start finds them lost
        for attempt in self._attempts.values():
            attempt.reporter.close()
        if self._processes is not None:
            await self._processes.close()
        self._capture.stop()
        if self._task_factory is not None:
            self._task_factory.remove_user(asyncio.get_running_loop())
            self._task_factory = None

    async def _wait_for_tasks(self, within_s: float) -> None:
        expired = asyncio.Event()
        timer = self._clock.call_later(within_s, expired.set)
        expiry = asyncio.create_task(expired.wait())
        try:
            while self._tasks and not expired.is_set():
                await asyncio.wait({expiry, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            expiry.cancel()

    # --- one job

    async def _run_job(self, claimable: ClaimableJob, handler: Handler, slot: Slot) -> None:
        try:
            job = await claimable.claim()
            if job is not None:
                attempt = self._start_attempt(job, handler, slot)
                try:
                    outcome = await self._run_attempt(attempt)
                except GeneratorExit as error:
                    # A future that the handler awaited has raised it. That closes all coroutines
                    # of this task but the outermost, which must still record the outcome.
                    if asyncio.current_task() is not attempt.task:
                        raise
                    outcome = attempt.outcome_of_error(error)
                if not attempt.is_abandoned:
                    self._free_mode(slot)  # the next job runs while this outcome is recorded
                    await self._record(attempt, outcome)
        except Exception as error:  # noqa: BLE001 -- a bug here must not stop the other jobs
            self._log.error("job not run", job_id=claimable.job_id, exc_info=error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._release_slot(task, slot)

    async def _run_attempt(self, attempt: RunningAttempt) -> Outcome:
        try:
            with self._capture.attach(attempt.context._add_log_line):
                return await attempt.run()
        except Exception as error:  # noqa: BLE001 -- a bug here must not leave the job running
            self._log.error("attempt broke", job_id=attempt.job.job_id, exc_info=error)
            return failure(error)

    def _free_mode(self, slot: Slot) -> None:
        """Let another job use the thread or process of this slot, if it has one."""
        if slot.free_mode():
            self._source.interrupt_wait()

    def _release_slot(self, task: asyncio.Task[None], slot: Slot) -> None:
        """Free the slot, unless it was freed when the attempt was abandoned."""
        if task in self._tasks:
            self._tasks.discard(task)
            slot.release()
            self._source.interrupt_wait()

    def _withdraw(self, job_id: str, number: int, reason: WithdrawReason) -> None:
        attempt = self._attempts.get(job_id)
        if attempt is not None and attempt.job.attempt == number:
            self._stop_attempt(attempt, reason)

    # --- run, under its limits

    def _start_attempt(self, job: Job, handler: Handler, slot: Slot) -> RunningAttempt:
        log_start(self._log, job)
        reporter = AttemptReporter(self._source, job, slot, self._progress_interval_s)
        files, policy = self._source.files, self._source.calls
        context = (
            ThreadContext(job, files, reporter, policy, asyncio.get_running_loop())
            if handler.mode == "thread"
            else Context(job, files, reporter, policy)
        )
        attempt = RunningAttempt(
            job, handler, context, reporter, slot, self._processes, self._start_limits
        )
        self._attempts[job.job_id] = attempt
        if job.cancel_requested_us is not None or self._stopping:
            self._stop_attempt(attempt, "cancelled" if job.cancel_requested_us else "shutdown")
        return attempt

    def _start_limits(self, attempt: RunningAttempt) -> None:
        """Start the time limits of an attempt whose handler starts."""
        if attempt.handler.mode == "process":
            self._source.interrupt_wait()  # while it is new, jobs may be prefetched
        spec = attempt.job.spec
        if spec.timeout_s is not None:
            self._call_later(
                attempt, spec.timeout_s, lambda: self._stop_attempt(attempt, "timeout")
            )
        if spec.stall_timeout_s is not None:
            attempt.reporter.last_report_s = self._clock.monotonic_s()
            self._check_stall(attempt, spec.stall_timeout_s)

    def _call_later(
        self, attempt: RunningAttempt, delay_s: float, callback: Callable[[], object]
    ) -> None:
        attempt.timers.append(self._clock.call_later(delay_s, callback))

    def _check_stall(self, attempt: RunningAttempt, limit_s: float) -> None:
        silent_s = self._clock.monotonic_s() - attempt.reporter.last_report_s
        if silent_s >= limit_s:
            self._stop_attempt(attempt, "stalled")
        else:
            self._call_later(
                attempt, limit_s - silent_s, lambda: self._check_stall(attempt, limit_s)
            )

    def _stop_attempt(self, attempt: RunningAttempt, reason: StopReason) -> None:
        """Ask an attempt to stop. If it does not within the grace time, abandon it."""
        if attempt.stop_reason is not None:
            return
        attempt.stop_reason = reason
        attempt.context._stopped = True
        if attempt.is_running:
            if attempt.handler.mode != "thread" and attempt.task is not None:
                attempt.task.cancel()
            if attempt.handler.mode != "process":  # a process is killed after the grace time
                self._call_later(attempt, self._grace_s, lambda: self._abandon(attempt))

    def _abandon(self, attempt: RunningAttempt) -> None:
        """End an attempt whose handler ignores being stopped. The handler may go on."""
        if not attempt.is_running or attempt.is_abandoned or attempt.task is None:
            return
        attempt.is_abandoned = True
        attempt.context.end_trials()
        self._log.error(
            "handler ignores being stopped",
            job_id=attempt.job.job_id,
            type=attempt.handler.type,
            why=attempt.stop_reason,
        )
        self._release_slot(attempt.task, attempt.slot)
        task = asyncio.create_task(
            self._record(attempt, attempt.outcome_of_stop()), name=f"abandon {attempt.job.job_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- record

    async def _record(self, attempt: RunningAttempt, outcome: Outcome) -> None:
        await self._outcomes.record(attempt, outcome)
        if self._attempts.get(attempt.job.job_id) is attempt:
            del self._attempts[attempt.job.job_id]

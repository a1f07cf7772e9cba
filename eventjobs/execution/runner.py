"""Running jobs: offer -> claim -> perform under its limits -> outcome -> record."""

import asyncio
import contextvars
from collections.abc import Callable
from contextlib import suppress

from eventjobs.clock import sleep, timeout
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Failed, Outcome
from eventjobs.errors import InvalidInput, LogError, Rejected
from eventjobs.execution.attempt import Attempt, StopReason
from eventjobs.execution.attempt_log import log_start
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
from eventjobs.observability.tracebacks import summary
from eventjobs.storable import storable_text

#: What is done elsewhere. (A dispatcher's handlers are functions on the loop.)
NOT_OURS: tuple[Mode, ...] = ("external", "remote")


class Runner:
    """Runs the jobs of a desk: *concurrency* at once, of them *threads* in threads.

    The *processes* are its own, and end with it; without them, it runs no jobs in processes.
    """

    def __init__(
        self,
        desk: JobSource,
        handlers: HandlerRegistry,
        *,
        concurrency: int,
        threads: int,
        processes: ProcessPool | None = None,
        grace_s: float,
        progress_interval_s: float,
        capture_logs: str = "off",
    ) -> None:
        self._desk = desk
        self._clock = desk.clock
        self._concurrency = concurrency
        self._grace_s = grace_s
        self._progress_interval_s = progress_interval_s
        self._capture = LogCapture(capture_logs)
        self._handlers = {each.type: each for each in handlers if each.mode not in NOT_OURS}
        self._types: dict[str, list[str]] = {}
        for each in self._handlers.values():
            self._types.setdefault(each.mode, []).append(each.type)
        limits = {
            "thread": threads,
            "process": processes.limit if processes else 0,
        }
        self._slots = Slots(concurrency, limits)
        self._processes = processes
        self._attempts: dict[str, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._given_up = False
        self._factory: TaskFactory | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._log = get_logger("eventjobs.runner")
        desk.on_stop(self._told_to_stop)

    @property
    def running(self) -> int:
        return len(self._tasks)

    async def run(self) -> None:
        """Claim and run what is due, until *stop*."""
        self._claiming = asyncio.current_task()
        self._capture.start()
        if self._factory is None:
            self._factory = TaskFactory.add_user(asyncio.get_running_loop())
        while not self._stopping and self._handlers and self._concurrency:
            ahead = {"process": self._processes.prefetch} if self._processes else {}
            for offer in await self._desk.next_jobs(*self._slots.capacities(self._types, ahead)):
                handler = self._handlers[offer.type]
                running = self._one(offer, handler, self._slots.take(handler.mode))
                # In an empty context: a handler finds no variable that others have set.
                name, context = f"job {offer.job_id}", contextvars.Context()
                self._tasks.add(asyncio.create_task(running, name=name, context=context))

    async def stop(self, drain_s: float) -> None:
        """Claim nothing more; let what runs finish for *drain_s*, then give it back."""
        self._stopping = True
        self._desk.interrupt_wait()
        if self._claiming is not None:  # what it is just being offered is to end in order, too
            with suppress(TimeoutError):
                async with timeout(self._clock, self._grace_s):
                    await asyncio.wait({self._claiming})
            self._claiming.cancel()
        if self._processes is not None:
            self._processes.release()
        if self._tasks:
            self._log.info("draining", jobs=len(self._tasks), drain_s=drain_s)
            await self._finish(drain_s)
        for attempt in list(self._attempts.values()):
            self._stop(attempt, "shutdown")
        # Told to stop, an attempt has the grace time, and then a moment to be written down.
        await self._finish(self._grace_s + 1.0)
        self._given_up = True
        for task in self._tasks:
            task.cancel()  # the log takes nothing now: the next start finds these as lost
        if self._processes is not None:
            await self._processes.close()
        self._capture.stop()
        if self._factory is not None:
            self._factory.remove_user(asyncio.get_running_loop())
            self._factory = None

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

    # --- one job

    async def _one(self, offer: ClaimableJob, handler: Handler, slot: Slot) -> None:
        try:
            job = await offer.claim()
            if job is not None:
                attempt = self._begin(job, handler, slot)
                try:
                    outcome = await self._performed(attempt)
                except GeneratorExit as error:
                    # A future that the handler awaited has raised it. That closes all coroutines
                    # of this task but the outermost, and is no reason to end that one.
                    if asyncio.current_task() is not attempt.task:
                        raise
                    outcome = attempt.raised(error)
                if not attempt.abandoned:
                    self._vacate(slot)  # the outcome is recorded while the next one runs
                    await self._record(attempt, outcome)
        except Exception as error:  # noqa: BLE001 -- a fault of ours; the next job is another's
            self._log.error("job not run", job_id=offer.job_id, exc_info=error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._leave(task, slot)

    async def _performed(self, attempt: Attempt) -> Outcome:
        try:
            with self._capture.attach(attempt.context._logged):
                return await attempt.perform()
        except Exception as error:  # noqa: BLE001 -- no fault here may leave a job running
            self._log.error("attempt broke", job_id=attempt.job.job_id, exc_info=error)
            return failure(error)

    def _vacate(self, slot: Slot) -> None:
        """Let another thread or process have the place of this one, if it has one."""
        if slot.free_mode():
            self._desk.interrupt_wait()

    def _leave(self, task: asyncio.Task[None], slot: Slot) -> None:
        """Give the slot to the next job; an abandoned attempt's was given already."""
        if task in self._tasks:
            self._tasks.discard(task)
            slot.release()
            self._desk.interrupt_wait()

    def _told_to_stop(self, job_id: str, number: int, why: WithdrawReason) -> None:
        attempt = self._attempts.get(job_id)
        if attempt is not None and attempt.job.attempt == number:
            self._stop(attempt, why)

    # --- perform, under its limits

    def _begin(self, job: Job, handler: Handler, slot: Slot) -> Attempt:
        log_start(self._log, job)
        reports = AttemptReporter(self._desk, job, slot, self._progress_interval_s)
        files, calls = self._desk.files, self._desk.calls
        context = (
            ThreadContext(job, files, reports, calls, asyncio.get_running_loop())
            if handler.mode == "thread"
            else Context(job, files, reports, calls)
        )
        given = (job, handler, context, reports, slot, self._processes, self._limit)
        self._attempts[job.job_id] = attempt = Attempt(*given)
        if job.cancel_requested_us is not None or self._stopping:
            self._stop(attempt, "cancelled" if job.cancel_requested_us else "shutdown")
        return attempt

    def _limit(self, attempt: Attempt) -> None:
        """Its time begins."""
        spec = attempt.job.spec
        if spec.timeout_s is not None:
            self._later(attempt, spec.timeout_s, lambda: self._stop(attempt, "timeout"))
        if spec.stall_timeout_s is not None:
            attempt.reports.last_report_s = self._clock.monotonic_s()
            self._watch(attempt, spec.stall_timeout_s)

    def _later(self, attempt: Attempt, delay_s: float, callback: Callable[[], object]) -> None:
        attempt.timers.append(self._clock.call_later(delay_s, callback))

    def _watch(self, attempt: Attempt, limit_s: float) -> None:
        silent_s = self._clock.monotonic_s() - attempt.reports.last_report_s
        if silent_s >= limit_s:
            self._stop(attempt, "stalled")
        else:
            self._later(attempt, limit_s - silent_s, lambda: self._watch(attempt, limit_s))

    def _stop(self, attempt: Attempt, why: StopReason) -> None:
        """Tell an attempt to stop; one that does not, within the grace time, is abandoned."""
        if attempt.why is not None:
            return
        attempt.why = why
        attempt.context._stopped = True
        if attempt.performing:
            if attempt.handler.mode != "thread" and attempt.task is not None:
                attempt.task.cancel()
            if attempt.handler.mode != "process":  # a process is killed, and then it has ended
                self._later(attempt, self._grace_s, lambda: self._abandon(attempt))

    def _abandon(self, attempt: Attempt) -> None:
        """The handler ignores that it was told to stop: end the attempt without it."""
        if not attempt.performing or attempt.abandoned or attempt.task is None:
            return
        attempt.abandoned = True
        attempt.context.end_trials()
        self._log.error(
            "handler ignores being stopped",
            job_id=attempt.job.job_id,
            type=attempt.handler.type,
            why=attempt.why,
        )
        self._leave(attempt.task, attempt.slot)
        task = asyncio.create_task(
            self._record(attempt, attempt.interrupted()), name=f"abandon {attempt.job.job_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- record

    async def _record(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write the outcome down, however long the log takes to accept it.

        One that cannot be recorded for any other reason is replaced by a failure that says why.
        """
        job_id, delay_s, replaced = attempt.job.job_id, 0.1, False
        while True:
            try:
                await attempt.reports.flush()
                await self._desk.record_outcome(attempt.job, outcome)
                break
            except Rejected as error:
                self._log.warning("outcome refused", job_id=job_id, error=error.code)
                break
            except asyncio.CancelledError:
                # A handler may have left a cancellation of its task behind.
                if self._given_up or (task := asyncio.current_task()) is None:
                    raise
                task.uncancel()
                continue
            except (LogError, OSError) as error:
                why = error.code if isinstance(error, LogError) else str(error)
                self._log.warning("outcome waits", job_id=job_id, error=why)
            except Exception as error:  # noqa: BLE001 -- no fault here may leave a job running
                outcome = _unrecordable(error)
                code, why = outcome.code, outcome.message
                self._log.error("outcome cannot be recorded", job_id=job_id, code=code, error=why)
                if not replaced:
                    replaced = True
                    continue
            await sleep(self._clock, delay_s)
            delay_s = min(delay_s * 2, 5.0)
        if self._attempts.get(job_id) is attempt:
            del self._attempts[job_id]


def _unrecordable(error: Exception) -> Failed:
    if isinstance(error, InvalidInput):  # a result larger than any artifact may be
        return Failed(error.code, error.message, False)
    message = f"the outcome of the attempt cannot be recorded: {summary(error)}"
    return Failed("outcome_not_recorded", storable_text(message), False)

"""One run of one job: runs its handler and turns all that it does into an outcome."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, assert_never

from eventjobs.clock import Timer
from eventjobs.concurrency.forks import EndsIfForked
from eventjobs.concurrency.threads import run_in_new_thread
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import (
    Failed,
    Outcome,
    Released,
    Succeeded,
)
from eventjobs.errors import InvalidInput, JobError
from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.execution.results import failure, json_details, outcome_of_stop, success
from eventjobs.execution.slots import Slot
from eventjobs.execution.task_factory import TaskExit, in_handler
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext

#: Why an attempt is stopped.
StopReason = Literal["cancelled", "lost", "timeout", "stalled", "shutdown"]


class RunningAttempt:
    """One run of one job. *on_start* is called when the handler starts."""

    def __init__(
        self,
        job: Job,
        handler: Handler,
        context: Context | ThreadContext,
        reporter: AttemptReporter,
        slot: Slot,
        processes: ProcessPool | None,
        on_start: Callable[["RunningAttempt"], object],
    ) -> None:
        self.job = job
        self.handler = handler
        self.context = context
        self.reporter = reporter
        self.slot = slot
        self._processes = processes
        self._on_start = on_start
        self.task = asyncio.current_task()
        self.stop_reason: StopReason | None = None
        self.is_running = False
        self.is_started = False
        self.is_abandoned = False
        self.timers: list[Timer] = []

    def outcome_of_stop(self) -> Outcome:
        """The outcome of an attempt that was stopped, by stop reason."""
        match self.stop_reason:
            case "lost":
                return Released("it is no longer this worker's")  # the service refuses it
            case "shutdown":
                if self.is_started and self.handler.on_shutdown == "fail":
                    return Failed("worker_shutdown", "the service was stopped while it ran", False)
                return Released("the service was stopped")
            case None:
                return Failed("handler_error", "the handler cancelled itself")
            case reason:
                return outcome_of_stop(self.job, reason)

    async def run(self) -> Outcome:
        """Run the handler and return its outcome. Raises nothing, not even SystemExit."""
        outcome = await self._run()
        if self.task is not None and self.task.cancelling():
            while self.task.uncancel():
                pass
            # A handler that cancels its own task and returns: the next await would raise, so this.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return outcome

    async def _run(self) -> Outcome:
        self.is_running = True
        try:
            if self.stop_reason is not None:
                return self.outcome_of_stop()
            try:
                payload = self.handler.parse(self.job.spec.payload)
            except InvalidInput as error:
                return Failed("invalid_payload", error.message, False, json_details(error.errors))
            if self.handler.mode != "process":
                self._start()
            outcome = await self._run_handler(payload)
            late = self.stop_reason in ("timeout", "stalled") and not isinstance(outcome, Failed)
            return self.outcome_of_stop() if late else outcome
        except BaseException as error:  # noqa: BLE001 -- sys.exit() ends its job, not the service
            return self.outcome_of_error(error)
        finally:
            self.is_running = False
            self.context.end_trials()
            for timer in self.timers:
                timer.cancel()

    def outcome_of_error(self, error: BaseException) -> Outcome:
        """The outcome of a handler that raised *error*."""
        if type(error) is TaskExit and error.__cause__ is not None:
            error = error.__cause__
        kind = type(error)  # and not isinstance: `__class__` may be a property that raises
        if issubclass(kind, asyncio.CancelledError | Stopped):
            return self.outcome_of_stop()
        is_deliberate = issubclass(kind, JobError | InvalidInput)
        return (
            failure(error) if is_deliberate or self.stop_reason is None else self.outcome_of_stop()
        )

    def _start(self) -> None:
        """The handler starts now, and so do its time limits."""
        self.is_started = True
        self._on_start(self)

    async def _run_handler(self, payload: Any) -> Outcome:
        """Run the handler in its mode; its outcome. A handler on the loop may raise."""
        match self.handler.mode:
            case "loop":
                assert isinstance(self.context, Context)
                if self.job.artifacts:
                    await asyncio.to_thread(self.context._check_files)
                with in_handler(), EndsIfForked():
                    result = await self.handler.function(self.context, payload)
                outcome = success(result, self.context.issues)
            case "thread":
                work = partial(self._run_in_thread, payload)
                with in_handler():
                    outcome = await run_in_new_thread(work, f"job {self.job.job_id}")
            case "process":
                assert self._processes is not None
                return await self._processes.run(
                    self.handler,
                    self.job,
                    self.reporter,
                    self._start,
                    is_prefetched=self.slot.is_prefetched,
                )
            case "external" | "remote":
                raise NotImplementedError(self.handler.mode)
            case _ as never:
                assert_never(never)
        if isinstance(outcome, Succeeded):
            self.context._steps.finish()
        return outcome

    def _run_in_thread(self, payload: Any) -> Outcome:
        # The result is encoded in this thread, too: a large one would block the event loop.
        try:
            with EndsIfForked():
                result = self.handler.function(self.context, payload)
            return success(result, self.context.issues)
        except BaseException as error:  # noqa: BLE001 -- sys.exit() ends its job, not the service
            return self.outcome_of_error(error)

"""One run of one job: what the handler does comes back as an outcome, a closed type."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never

from eventjobs.clock import Timer
from eventjobs.concurrency.forks import EndsIfForked
from eventjobs.concurrency.threads import run_in_new_thread
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import (
    Cancelled,
    Failed,
    Outcome,
    Released,
    Succeeded,
    stalled,
    timed_out,
)
from eventjobs.errors import InvalidInput, JobError
from eventjobs.execution.processes.pool import ProcessPool
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.execution.results import _details, failure, success
from eventjobs.execution.task_factory import TaskExit, in_handler
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.context import Context
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext

if TYPE_CHECKING:
    from eventjobs.execution.slots import Slot

#: Why an attempt is told to stop.
StopReason = Literal["cancelled", "lost", "timeout", "stalled", "shutdown"]


class Attempt:
    """One run of one job, while it lasts."""

    def __init__(
        self,
        job: Job,
        handler: Handler,
        context: Context | ThreadContext,
        reports: AttemptReporter,
        slot: "Slot",
        processes: ProcessPool | None,
        begins: Callable[["Attempt"], object],
    ) -> None:
        self.job = job
        self.handler = handler
        self.context = context
        self.reports = reports
        self.slot = slot
        self._processes = processes
        self._begins = begins
        self.task = asyncio.current_task()
        self.why: StopReason | None = None
        self.performing = False
        self.begun = False
        self.abandoned = False
        self.timers: list[Timer] = []

    def interrupted(self) -> Outcome:
        """What it comes to that this attempt was told to stop."""
        match self.why:
            case "cancelled":
                return Cancelled()
            case "lost":
                return Released("it is no longer this worker's")  # which nobody will record
            case "timeout":
                return timed_out(self.job.spec.timeout_s)
            case "stalled":
                return stalled(self.job.spec.stall_timeout_s)
            case "shutdown":
                if self.begun and self.handler.on_shutdown == "fail":
                    return Failed("worker_shutdown", "the service was stopped while it ran", False)
                return Released("the service was stopped")
            case None:
                return Failed("handler_error", "the handler cancelled itself")
            case _ as never:
                assert_never(never)

    async def perform(self) -> Outcome:
        """Run the handler; whatever it does comes back as an outcome."""
        outcome = await self._outcome()
        if self.task is not None and self.task.cancelling():
            while self.task.uncancel():
                pass
            # A handler that cancels its task and returns leaves that for the next await: this one.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return outcome

    async def _outcome(self) -> Outcome:
        self.performing = True
        try:
            if self.why is not None:
                return self.interrupted()
            try:
                payload = self.handler.parse(self.job.spec.payload)
            except InvalidInput as error:
                return Failed("invalid_payload", error.message, False, _details(error.errors))
            if self.handler.mode != "process":
                self._begin()
            outcome = await self._performed(payload)
            late = self.why in ("timeout", "stalled") and not isinstance(outcome, Failed)
            return self.interrupted() if late else outcome
        except BaseException as error:  # noqa: BLE001 -- sys.exit() ends its job, not the service
            return self.raised(error)
        finally:
            self.performing = False
            self.context.end_trials()
            for timer in self.timers:
                timer.cancel()

    def raised(self, error: BaseException) -> Outcome:
        """The outcome of a handler that raised *error*."""
        if type(error) is TaskExit and error.__cause__ is not None:
            error = error.__cause__
        kind = type(error)  # and not isinstance: `__class__` may be a property that raises
        if issubclass(kind, asyncio.CancelledError | Stopped):
            return self.interrupted()
        meant = issubclass(kind, JobError | InvalidInput)
        return failure(error) if meant or self.why is None else self.interrupted()

    def _begin(self) -> None:
        """From now on the handler runs, and its time."""
        self.begun = True
        self._begins(self)

    async def _performed(self, payload: Any) -> Outcome:
        """Run the handler; its outcome. A handler on the loop raises what it raises."""
        match self.handler.mode:
            case "loop":
                assert isinstance(self.context, Context)
                if self.job.artifacts:
                    await asyncio.to_thread(self.context._check_files)
                with in_handler(), EndsIfForked():
                    result = await self.handler.function(self.context, payload)
                outcome = success(result, self.context.issues)
            case "thread":
                work = partial(self._in_thread, payload)
                with in_handler():
                    outcome = await run_in_new_thread(work, f"job {self.job.job_id}")
            case "process":
                assert self._processes is not None
                given = (self.handler, self.job, self.reports, self._begin)
                return await self._processes.run(*given, ahead=self.slot.is_ahead)
            case "external" | "remote":
                raise NotImplementedError(self.handler.mode)
            case _ as never:
                assert_never(never)
        if isinstance(outcome, Succeeded):
            self.context._steps.finish()
        return outcome

    def _in_thread(self, payload: Any) -> Outcome:
        # Its result and its error are read here, too: a large one would hold up the loop.
        try:
            with EndsIfForked():
                result = self.handler.function(self.context, payload)
            return success(result, self.context.issues)
        except BaseException as error:  # noqa: BLE001 -- sys.exit() ends its job, not the service
            return self.raised(error)

"""One run of one job: what the handler does comes back as an outcome, a closed type."""

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never

from eventjobs.clock import Timer
from eventjobs.errors import InvalidInput, JobError
from eventjobs.handlers import Context, Handler, Stopped, ThreadContext, plain_json, plain_text
from eventjobs.job import Job
from eventjobs.outcomes import (
    Cancelled,
    Failed,
    HandedOver,
    Outcome,
    Released,
    Succeeded,
    stalled,
    timed_out,
)
from eventjobs.plain import json_text
from eventjobs.processes import Processes
from eventjobs.reports import Reports
from eventjobs.threads import in_own_thread

if TYPE_CHECKING:  # the process of a handler has no slots, and starts faster
    from eventjobs.slots import Slot

#: Why an attempt is told to stop.
Why = Literal["cancelled", "lost", "timeout", "stalled", "shutdown"]


class Attempt:
    """One run of one job, while it lasts."""

    def __init__(
        self,
        job: Job,
        handler: Handler,
        context: Context | ThreadContext,
        reports: Reports,
        slot: "Slot",
        processes: Processes | None,
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
        self.why: Why | None = None
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
        except (asyncio.CancelledError, Stopped):
            return self.interrupted()
        except (JobError, InvalidInput) as error:
            return failure(error)
        except BaseException as error:  # noqa: BLE001 -- sys.exit() ends its job, not the service
            return self.interrupted() if self.why is not None else failure(error)
        finally:
            self.performing = False
            for timer in self.timers:
                timer.cancel()

    def _begin(self) -> None:
        """From now on the handler runs, and its time."""
        self.begun = True
        self._begins(self)

    async def _performed(self, payload: Any) -> Outcome:
        """What the handler comes to. Raises whatever it raises."""
        match self.handler.mode:
            case "loop":
                assert isinstance(self.context, Context)
                if self.job.artifacts:
                    await asyncio.to_thread(self.context.read_inputs)
                result = await self.handler.function(self.context, payload)
            case "thread":
                name = f"job {self.job.job_id}"
                function = partial(self.handler.function, self.context, payload)
                result = await in_own_thread(function, name)
            case "process":
                assert self._processes is not None
                given = (self.handler, self.job, self.reports, self._begin)
                return await self._processes.run(*given, ahead=self.slot.is_ahead)
            case "external" | "outside":
                raise NotImplementedError(self.handler.mode)
            case _ as never:
                assert_never(never)
        self.context._steps.finish()
        return success(result, self.context.issues)


def success(result: Any, issues: Any = None) -> Outcome:
    """What it comes to that a handler returned *result*, having noted *issues*."""
    if isinstance(result, HandedOver):
        return result
    try:
        return Succeeded(json_text(result), issues)
    except (TypeError, ValueError, RecursionError) as error:
        return Failed(
            "result_not_json", plain_text(f"the result cannot be kept as JSON: {error}"), False
        )


def failure(error: BaseException) -> Failed:
    """What it comes to that a handler raised *error*."""
    if isinstance(error, JobError):
        code, retryable = plain_text(error.error_code), bool(error.retryable)
        details = _details(error.details)
        return Failed(code, plain_text(error), retryable, details, error.retry_after_s)
    if isinstance(error, InvalidInput):  # a bad artifact name, or one too large
        return Failed(error.code, plain_text(error.message), False, _details(error.errors))
    # Not str(error): what a handler raises may be unable to say what it is.
    trace = traceback.TracebackException.from_exception(error)
    message = "".join(trace.format_exception_only()).strip()
    # Of the library that tries again nobody wants to read, least of all instead of the handler.
    told = [each for each in trace.format() if "/tenacity/" not in each]
    lines = "".join(told[-8:])
    return Failed("handler_error", plain_text(message), details={"traceback": plain_text(lines)})


def _details(details: Any) -> Any:
    try:
        return plain_json(details)
    except (TypeError, ValueError, RecursionError):
        try:
            return plain_text(repr(details))
        except Exception:  # noqa: BLE001 -- it is somebody's __repr__
            return plain_text(type(details))

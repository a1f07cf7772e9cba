"""One run of one job: what the handler does comes back as an outcome, a closed type."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, assert_never

from eventjobs.clock import Timer
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError, NotJSON
from eventjobs.forks import EndsIfForked
from eventjobs.handlers import Context, Handler, Stopped, ThreadContext
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
from eventjobs.plain import DETAILS_BYTES_MAX, bounded_json, class_name, json_text, plain_text
from eventjobs.processes import Processes
from eventjobs.reports import Reports
from eventjobs.task_factory import TaskExit, in_handler
from eventjobs.threads import in_own_thread
from eventjobs.tracebacks import attribute, summary, trace

if TYPE_CHECKING:  # the process of a handler has no slots, and starts faster
    from eventjobs.slots import Slot

#: Of the code of a failure.
CODE_CHARS_MAX = 200

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
                    outcome = await in_own_thread(work, f"job {self.job.job_id}")
            case "process":
                assert self._processes is not None
                given = (self.handler, self.job, self.reports, self._begin)
                return await self._processes.run(*given, ahead=self.slot.is_ahead)
            case "external" | "outside":
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


def success(result: Any, issues: Any = None) -> Outcome:
    """The outcome of a handler that returned *result*, having noted *issues*. Never raises."""
    if type(result) is HandedOver:
        return result
    if issubclass(type(result), Coroutine):
        with suppress(BaseException):
            result.close()  # else Python warns that it was never awaited
        return Failed("result_not_json", "the handler returned a coroutine: await it", False)
    try:
        return Succeeded(json_text(result), issues)
    except NotJSON as error:
        message = plain_text(f"the result cannot be kept as JSON: {error}")
        return Failed("result_not_json", message, False)


def failure(error: BaseException) -> Failed:
    """The outcome of a handler that raised *error*. Never raises, whatever its class does."""
    told = trace(error)
    if issubclass(type(error), InvalidInput):  # a bad artifact name, or one too large
        code, details = attribute(error, "code", None), attribute(error, "errors", None)
        return Failed(_code(code), _message(error), False, _details(details), trace=told)
    if issubclass(type(error), ArtifactDamaged):  # of a result that is a file
        return Failed(ArtifactDamaged.code, _message(error), trace=told)
    if not issubclass(type(error), JobError):
        return Failed("handler_error", summary(error), details={"traceback": told}, trace=told)
    try:
        retryable = bool(attribute(error, "retryable", True))
    except BaseException:  # noqa: BLE001 -- a __bool__ of its own
        retryable = True
    return Failed(
        _code(attribute(error, "error_code", None)),
        _message(error),
        retryable,
        _details(attribute(error, "details", None)),
        _seconds(attribute(error, "retry_after_s", None)),
        told,
    )


def _code(code: object) -> str:
    return ("" if code is None else plain_text(code, CODE_CHARS_MAX).strip()) or "handler_error"


def _message(error: BaseException) -> str:
    return plain_text(error) or class_name(type(error))


def _details(details: Any) -> Any:
    return bounded_json(details, DETAILS_BYTES_MAX, whole=True)


def _seconds(delay_s: Any) -> float | None:
    """A delay that a handler gave, as it may have come from another service."""
    if delay_s is None or type(delay_s) is bool:
        return None
    try:
        number = float(delay_s)
    except BaseException:  # noqa: BLE001 -- text that is no number, or a __float__ of its own
        return None
    return number if math.isfinite(number) and number >= 0 else None

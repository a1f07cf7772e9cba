"""Circuit breakers: after repeated failures calls are rejected until a cooldown has passed."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from copy import copy
from typing import Any

from eventjobs.domain.events import BreakerChanged
from eventjobs.domain.validation import read_name
from eventjobs.handlers.base_caller import BaseCaller
from eventjobs.handlers.breaker_state import (
    BreakerChange,
    BreakerConfig,
    BreakerOpen,
    BreakerRegistry,
    CallResult,
)
from eventjobs.handlers.retry import Errors, should_retry
from eventjobs.observability.tracebacks import describe

NAME_CHARS_MAX = 100


class BaseCircuitBreaker:
    """One call through a breaker, and its lines in the job's log."""

    def __init__(
        self,
        caller: BaseCaller,
        breakers: BreakerRegistry,
        name: str,
        config: BreakerConfig,
        on: Errors,
    ) -> None:
        self._caller = caller
        self._breakers = breakers
        self.name = read_name(name[:NAME_CHARS_MAX] if type(name) is str else name, "name")
        self._config = config
        self._on = on
        self._trial = False

    def _enter(self) -> None:
        try:
            self._trial = self._breakers.enter(self.name, self._config)
        except BreakerOpen as open:
            line = "Circuit breaker is OPEN. Using fallback."
            self._caller.log(line, "warning", **open.details)
            # An attempt whose earlier call failed counts, even if the breaker rejects a later call.
            open.details["held_off"] = not self._caller._call_failed
            raise
        if self._trial:
            self._caller._trials[self.name] = self._config

    def _leave(self, error: BaseException | None) -> None:
        result: CallResult = "ok"
        if error is not None:
            result = "failed" if should_retry(error, self._on) else "unknown"
        if result == "failed":
            self._caller._call_failed = True
        trial, self._trial = self._trial, False
        # A call that outlives its attempt is no trial: BaseCaller.end_trials has ended that.
        trial = trial and self._caller._trials.pop(self.name, None) is not None
        change = self._breakers.leave(self.name, self._config, result, trial=trial)
        if change is not None:
            self._report_change(change, trial=trial)

    def _report_change(self, change: BreakerChange, *, trial: bool) -> None:
        if change.state == "closed":
            line, level = "Circuit breaker cooldown complete. Closing circuit.", "info"
        elif trial:
            line, level = "Circuit breaker OPENING: the trial after the cooldown failed", "error"
        else:
            failures = self._config.describe(change.failures)
            line, level = f"Circuit breaker OPENING: {failures}", "error"
        self._caller.log(line, level, breaker=self.name)
        self._caller._record_breaker_change(
            BreakerChanged(
                self._caller.attempt, self.name, change.state, change.failures, change.until_us
            )
        )

    def _record_fallback(self, error: Exception) -> bool:
        """Whether *error* is a reason for a fallback; if so, record an issue of the job."""
        if not issubclass(type(error), BreakerOpen) and not should_retry(error, self._on):
            return False
        code = f"{self.name}_failure_fallback"
        self._caller.issue(code, f"a fallback was used: {describe(error)}", breaker=self.name)
        return True


class CircuitBreaker(BaseCircuitBreaker, AbstractContextManager["CircuitBreaker"]):
    """Use it as `with breaker:`, which raises BreakerOpen, or as `breaker.call(function, …)`."""

    def __enter__(self) -> "CircuitBreaker":
        self._enter()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """Call *function*; if that is rejected or fails, *fallback* with the same arguments.

        A fallback adds an issue to the job, which completes all the same. Without a fallback it
        raises BreakerOpen, or what *function* raised.
        """
        try:
            with copy(self):  # the copy holds whether this call is the trial
                return function(*args)
        except Exception as error:
            if fallback is None or not self._record_fallback(error):
                raise
        return fallback(*args)


class AsyncCircuitBreaker(BaseCircuitBreaker, AbstractAsyncContextManager["AsyncCircuitBreaker"]):
    """Use it as `async with breaker:`, which raises BreakerOpen, or `await breaker.call(…)`."""

    async def __aenter__(self) -> "AsyncCircuitBreaker":
        self._enter()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    async def call(
        self,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """As in CircuitBreaker; *fallback* may be async or plain."""
        try:
            async with copy(self):  # the copy holds whether this call is the trial
                return await function(*args)
        except Exception as error:
            if fallback is None or not self._record_fallback(error):
                raise
        result = fallback(*args)
        return await result if inspect.isawaitable(result) else result

"""MISSING DOC."""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from copy import copy
from types import TracebackType
from typing import Any

from eventjobs.domain.events import BreakerChanged
from eventjobs.domain.validation import read_name
from eventjobs.handlers.breaker_state import BreakerConfig, BreakerOpen, Breakers, Change, Result
from eventjobs.handlers.caller import BaseCaller
from eventjobs.handlers.retry import Errors, should_retry
from eventjobs.observability.tracebacks import describe

NAME_CHARS_MAX = 100


class _Guard:
    """One call through a breaker, and what the job's log tells of it."""

    def __init__(
        self, caller: BaseCaller, breakers: Breakers, name: str, limits: BreakerConfig, on: Errors
    ) -> None:
        self._caller = caller
        self._breakers = breakers
        self.name = read_name(name[:NAME_CHARS_MAX] if type(name) is str else name, "name")
        self._limits = limits
        self._on = on
        self._trial = False

    def _enter(self) -> None:
        try:
            self._trial = self._breakers.enter(self.name, self._limits)
        except BreakerOpen as open:
            line = "Circuit breaker is OPEN. Using fallback."
            self._caller.log(line, "warning", **open.details)
            # An attempt that has called in vain counts, also when its next call is held off.
            open.details["held_off"] = not self._caller._call_failed
            raise
        if self._trial:
            self._caller._trials[self.name] = self._limits

    def _leave(self, error: BaseException | None) -> None:
        result: Result = "ok"
        if error is not None:
            result = "failed" if should_retry(error, self._on) else "unknown"
        if result == "failed":
            self._caller._call_failed = True
        trial, self._trial = self._trial, False
        # One that went on after its attempt was over is no longer the trial.
        trial = trial and self._caller._trials.pop(self.name, None) is not None
        change = self._breakers.leave(self.name, self._limits, result, trial=trial)
        if change is not None:
            self._tell(change, trial=trial)

    def _tell(self, change: Change, *, trial: bool) -> None:
        if change.state == "closed":
            line, level = "Circuit breaker cooldown complete. Closing circuit.", "info"
        elif trial:
            line, level = "Circuit breaker OPENING: the trial after the cooldown failed", "error"
        else:
            line, level = f"Circuit breaker OPENING: {self._limits.told(change.failures)}", "error"
        self._caller.log(line, level, breaker=self.name)
        self._caller._changed(
            BreakerChanged(
                self._caller.attempt, self.name, change.state, change.failures, change.until_us
            )
        )

    def _falls_back(self, error: Exception) -> bool:
        """Record that a fallback stands in for the call, if *error* is a reason for one."""
        if not issubclass(type(error), BreakerOpen) and not should_retry(error, self._on):
            return False
        code = f"{self.name}_failure_fallback"
        self._caller.issue(code, f"a fallback was used: {describe(error)}", breaker=self.name)
        return True


class Breaker(_Guard, AbstractContextManager["Breaker"]):
    """Use it as `with breaker:`, which raises BreakerOpen, or as `breaker.call(function, …)`."""

    def __enter__(self) -> "Breaker":
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """What *function* returns; or else what *fallback* makes of the same arguments.

        Then the job has an issue that says so, and completes all the same.
        """
        try:
            with copy(self):  # which remembers whether this very call is the trial
                return function(*args)
        except Exception as error:
            if fallback is None or not self._falls_back(error):
                raise
        return fallback(*args)


class AsyncBreaker(_Guard, AbstractAsyncContextManager["AsyncBreaker"]):
    """The same as `async with breaker:` and `await breaker.call(function, …)`."""

    async def __aenter__(self) -> "AsyncBreaker":
        self._enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)

    async def call(
        self,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """What *function* returns; or else what *fallback*, async or not, makes of the same.

        Then the job has an issue that says so, and completes all the same.
        """
        try:
            async with copy(self):  # which remembers whether this very call is the trial
                return await function(*args)
        except Exception as error:
            if fallback is None or not self._falls_back(error):
                raise
        answer = fallback(*args)
        return await answer if inspect.isawaitable(answer) else answer

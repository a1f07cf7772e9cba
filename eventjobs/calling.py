"""How a handler calls what may fail: it tries again, and stops calling for a while."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from copy import copy
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import tenacity

from eventjobs.breakers import BreakerOpen, Breakers, Change, Limits, Result
from eventjobs.events import BreakerChanged
from eventjobs.retries import Backoff, Errors, Plan, counts, is_transient, plan
from eventjobs.tracebacks import describe
from eventjobs.values import read_name

NAME_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class Calls:
    """What contexts share: the breakers of the process, and how retries are spaced."""

    breakers: Breakers
    backoff: Backoff = field(default_factory=Backoff)
    #: tries of one write of an artifact
    store_attempts: int = 3


class Caller(ABC):
    """A context, as far as calls are concerned."""

    _calls: Calls
    #: Whether a call through a breaker has failed in this attempt.
    _call_failed = False
    #: By name, the breakers whose trial is being made by this attempt.
    _trials: dict[str, Limits]

    def end_trials(self) -> None:
        """The attempt is over: a trial that has not ended is left to another one."""
        for name, limits in list(self._trials.items()):
            self._calls.breakers.leave(name, limits, "unknown", trial=True)
        self._trials.clear()

    @property
    @abstractmethod
    def job_id(self) -> str: ...

    @property
    @abstractmethod
    def attempt(self) -> int: ...

    @abstractmethod
    def log(self, message: str, level: str = "info", **fields: Any) -> None: ...

    @abstractmethod
    def issue(self, code: str, message: str, **details: Any) -> None: ...

    @abstractmethod
    def _changed(self, change: BreakerChanged) -> None:
        """Record it."""

    def _trying(self, name: str, attempts: int, on: Errors) -> Plan:
        def again(error: BaseException) -> bool:
            return counts(error, on) and not isinstance(error, BreakerOpen)

        return plan(self.log, name, attempts, self._calls.backoff, again)

    def _saving(self, name: str) -> Plan:
        label = f"Save file {name} for job {self.job_id}"
        attempts, backoff = self._calls.store_attempts, self._calls.backoff
        return plan(self.log, label, attempts, backoff, is_transient)


class ThreadCaller(Caller):
    """For plain functions."""

    @abstractmethod
    def sleep(self, delay_s: float) -> None: ...

    def retrying(
        self, name: str, *, attempts: int = 3, on: Errors = Exception
    ) -> tenacity.Retrying:
        """Try what raises *on* again, up to *attempts* times in all; each is a line in the log.

        As `ctx.retrying("llm")(function, *args)`, or as `for attempt in ctx.retrying("llm"):` with
        the work inside `with attempt:`. In the end it raises what the last try raised.
        """
        return tenacity.Retrying(sleep=self.sleep, **self._trying(name, attempts, on))

    def breaker(
        self,
        name: str,
        *,
        threshold: int = 5,
        window_s: float = 300.0,
        cooldown_s: float = 600.0,
        on: Errors = Exception,
    ) -> "Breaker":
        """The circuit breaker *name*, shared by all jobs that run in this process.

        It opens at *threshold* calls that raise *on* within *window_s*, for *cooldown_s*.
        """
        limits = Limits(threshold, window_s, cooldown_s)
        return Breaker(self, self._calls.breakers, name, limits, on)


class AsyncCaller(Caller):
    """For `async def`."""

    @abstractmethod
    async def sleep(self, delay_s: float) -> None: ...

    def retrying(
        self, name: str, *, attempts: int = 3, on: Errors = Exception
    ) -> tenacity.AsyncRetrying:
        """Try what raises *on* again, up to *attempts* times in all; each is a line in the log.

        As `await ctx.retrying("llm")(function, *args)`, or as
        `async for attempt in ctx.retrying("llm"):` with the work inside `with attempt:`. In the end
        it raises what the last try raised.
        """
        return tenacity.AsyncRetrying(sleep=self.sleep, **self._trying(name, attempts, on))

    def breaker(
        self,
        name: str,
        *,
        threshold: int = 5,
        window_s: float = 300.0,
        cooldown_s: float = 600.0,
        on: Errors = Exception,
    ) -> "AsyncBreaker":
        """The circuit breaker *name*, shared by all jobs that run in this process.

        It opens at *threshold* calls that raise *on* within *window_s*, for *cooldown_s*.
        """
        limits = Limits(threshold, window_s, cooldown_s)
        return AsyncBreaker(self, self._calls.breakers, name, limits, on)


class _Guard:
    """One call through a breaker, and what the job's log tells of it."""

    def __init__(
        self, caller: Caller, breakers: Breakers, name: str, limits: Limits, on: Errors
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
            result = "failed" if counts(error, self._on) else "unknown"
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
        if not issubclass(type(error), BreakerOpen) and not counts(error, self._on):
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

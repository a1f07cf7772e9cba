"""`ctx.retrying` and `ctx.breaker`, for plain functions and for `async def`."""

from abc import abstractmethod
from typing import Generic, TypeVar

import tenacity

from eventjobs.handlers.base_caller import BaseCaller
from eventjobs.handlers.breaker_state import BreakerConfig
from eventjobs.handlers.circuit_breaker import (
    AsyncCircuitBreaker,
    BaseCircuitBreaker,
    CircuitBreaker,
)
from eventjobs.handlers.retry import Errors

B = TypeVar("B", bound=BaseCircuitBreaker)


class _BreakerCaller(BaseCaller, Generic[B]):
    _breaker_type: type[B]

    def breaker(
        self,
        name: str,
        *,
        threshold: int = 5,
        window_s: float = 300.0,
        cooldown_s: float = 600.0,
        on: Errors = Exception,
    ) -> B:
        """The circuit breaker *name*, shared by all jobs that run in this process.

        It opens at *threshold* calls that raise *on* within *window_s*, for *cooldown_s*. Raises
        InvalidInput for a name or a limit that is not valid.
        """
        config = BreakerConfig(threshold, window_s, cooldown_s)
        return self._breaker_type(self, self._policy.breakers, name, config, on)


class ThreadCaller(_BreakerCaller[CircuitBreaker]):
    """For plain functions."""

    _breaker_type = CircuitBreaker

    @abstractmethod
    def sleep(self, delay_s: float) -> None: ...

    def retrying(
        self, name: str, *, attempts: int = 3, on: Errors = Exception
    ) -> tenacity.Retrying:
        """Retry what raises *on*, up to *attempts* tries in all; the job's log has a line per try.

        Use it as `ctx.retrying("llm")(function, *args)`, or as
        `for attempt in ctx.retrying("llm"):` with the work inside `with attempt:`. Raises what the
        last try raised.
        """
        return tenacity.Retrying(sleep=self.sleep, **self._retry_options(name, attempts, on))


class AsyncCaller(_BreakerCaller[AsyncCircuitBreaker]):
    """For `async def`."""

    _breaker_type = AsyncCircuitBreaker

    @abstractmethod
    async def sleep(self, delay_s: float) -> None: ...

    def retrying(
        self, name: str, *, attempts: int = 3, on: Errors = Exception
    ) -> tenacity.AsyncRetrying:
        """Retry what raises *on*, up to *attempts* tries in all; the job's log has a line per try.

        Use it as `await ctx.retrying("llm")(function, *args)`, or as
        `async for attempt in ctx.retrying("llm"):` with the work inside `with attempt:`. Raises
        what the last try raised.
        """
        return tenacity.AsyncRetrying(sleep=self.sleep, **self._retry_options(name, attempts, on))

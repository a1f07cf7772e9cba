"""How a handler calls what may fail: it tries again, and stops calling for a while."""

from abc import abstractmethod

import tenacity

from eventjobs.handlers.breaker_state import BreakerConfig
from eventjobs.handlers.caller import BaseCaller
from eventjobs.handlers.circuit_breaker import AsyncBreaker, Breaker
from eventjobs.handlers.retry import Errors


class ThreadCaller(BaseCaller):
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
        limits = BreakerConfig(threshold, window_s, cooldown_s)
        return Breaker(self, self._calls.breakers, name, limits, on)


class AsyncCaller(BaseCaller):
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
        limits = BreakerConfig(threshold, window_s, cooldown_s)
        return AsyncBreaker(self, self._calls.breakers, name, limits, on)

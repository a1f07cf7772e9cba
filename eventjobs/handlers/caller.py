"""What all calls to other services have in common: retries and breakers by policy."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from eventjobs.backoff import Backoff
from eventjobs.domain.events import BreakerChanged
from eventjobs.handlers.breaker_state import BreakerConfig, BreakerOpen, Breakers
from eventjobs.handlers.retry import Errors, RetryOptions, is_transient, retry_options, should_retry


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What contexts share: the breakers of the process, and how retries are spaced."""

    breakers: Breakers
    backoff: Backoff = field(default_factory=Backoff)
    #: tries of one write of an artifact
    store_attempts: int = 3


class BaseCaller(ABC):
    """A context, as far as calls are concerned."""

    _calls: CallPolicy
    #: Whether a call through a breaker has failed in this attempt.
    _call_failed = False
    #: By name, the breakers whose trial is being made by this attempt.
    _trials: dict[str, BreakerConfig]

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

    def _trying(self, name: str, attempts: int, on: Errors) -> RetryOptions:
        def again(error: BaseException) -> bool:
            return should_retry(error, on) and not isinstance(error, BreakerOpen)

        return retry_options(self.log, name, attempts, self._calls.backoff, again)

    def _saving(self, name: str) -> RetryOptions:
        label = f"Save file {name} for job {self.job_id}"
        attempts, backoff = self._calls.store_attempts, self._calls.backoff
        return retry_options(self.log, label, attempts, backoff, is_transient)

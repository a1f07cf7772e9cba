"""What sync and async contexts share for calls to other services: retries and breakers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from eventjobs.backoff import Backoff
from eventjobs.domain.events import BreakerChanged
from eventjobs.handlers.breaker_state import BreakerConfig, BreakerOpen, BreakerRegistry
from eventjobs.handlers.retry import (
    Errors,
    TenacityOptions,
    is_transient,
    retry_options,
    should_retry,
)


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """The breakers that all contexts of a process share, and the pauses between retries."""

    breakers: BreakerRegistry
    backoff: Backoff = field(default_factory=Backoff)
    #: tries of one write of an artifact
    store_attempts: int = 3


class BaseCaller(ABC):
    """The part of a context that calls other services."""

    _policy: CallPolicy
    #: Whether a call through a breaker has failed in this attempt.
    _call_failed = False
    #: By breaker name, the trial calls that this attempt is making.
    _trials: dict[str, BreakerConfig]

    def end_trials(self) -> None:
        """End this attempt's unfinished trials: the next call of the breaker is the trial."""
        for name, config in list(self._trials.items()):
            self._policy.breakers.leave(name, config, "unknown", trial=True)
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
    def _record_breaker_change(self, change: BreakerChanged) -> None: ...

    def _retry_options(self, name: str, attempts: int, on: Errors) -> TenacityOptions:
        def is_retried(error: BaseException) -> bool:
            return should_retry(error, on) and not isinstance(error, BreakerOpen)

        return retry_options(self.log, name, attempts, self._policy.backoff, is_retried)

    def _store_options(self, name: str) -> TenacityOptions:
        label = f"Save file {name} for job {self.job_id}"
        attempts, backoff = self._policy.store_attempts, self._policy.backoff
        return retry_options(self.log, label, attempts, backoff, is_transient)

"""The outcome of an attempt: a closed type, the same for every kind of handler and worker."""

import signal
from dataclasses import dataclass
from typing import Any, NamedTuple

#: The artifact that a result becomes when it is too large for an event.
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """*result* is JSON, or its text as an orjson.Fragment. *issues* are errors that the handler
    recovered from: [{"code", "message", …}].
    """

    result: Any
    issues: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """*retry_after_s* replaces the usual delay before the next attempt. *trace*, the handler's
    traceback, is for the service's log.
    """

    code: str
    message: str
    retryable: bool = True
    details: Any = None
    retry_after_s: float | None = None
    trace: str | None = None

    @property
    def held_off(self) -> bool:
        """Whether a circuit breaker rejected the attempt before it called anything."""
        details = self.details if isinstance(self.details, dict) else {}
        return self.code == "breaker_open" and details.get("held_off") is True


@dataclass(frozen=True, slots=True)
class Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt ended unfinished and does not count as one."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The attempt goes on: *worker*, an external service, runs it. It fails after *silence_s*
    seconds without a report. *cancel_url* is called when the attempt no longer holds the job.
    """

    worker: str
    silence_s: float
    cancel_url: str | None = None


Outcome = Succeeded | Failed | Cancelled | Released | HandedOver


def timeout_failure(limit_s: float | None) -> Failed:
    return Failed("timeout", f"ran longer than {limit_s or 0:.12g} s")


def stall_failure(limit_s: float | None) -> Failed:
    return Failed("stalled", f"reported no progress for {limit_s or 0:.12g} s")


def crash_failure(code: int | None) -> Failed:
    """The failure of an attempt whose process ended with exit *code*. A negative code is minus the
    number of the signal that killed it, None an unknown one.
    """
    if code is None:
        return Failed("worker_crashed", "the process ended before the handler returned")
    if code >= 0:
        message = f"the process ended with exit code {code} before the handler returned"
        return Failed("worker_crashed", message, details={"exit_code": code})
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = " (out of memory?)" if name == "SIGKILL" else ""
    message = f"the process was killed by {name}{why}"
    return Failed("worker_crashed", message, details={"signal": name})


def large_result(size: int) -> dict[str, Any]:
    """The result of a job whose result of *size* bytes became an artifact."""
    return {"artifact": RESULT, "size": size}


class AttemptHolder(NamedTuple):
    """The sender of a report. The attempt number is the fencing token. *worker* is the id of the
    worker that claimed the attempt; None for an external service, which has proved its token.
    """

    job_id: str
    attempt: int
    worker: str | None = None

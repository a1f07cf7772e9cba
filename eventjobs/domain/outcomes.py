"""What an attempt comes to: a closed type, whoever ran it and wherever."""

import signal
from dataclasses import dataclass
from typing import Any, NamedTuple

#: The artifact that a result becomes when it is too large for an event.
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """*result* is JSON, or its text as an orjson.Fragment. *issues* are what went wrong on the way
    and was made up for: [{"code", "message", …}].
    """

    result: Any
    issues: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """*retry_after_s* takes the place of the usual delay before the next attempt. *trace*, the
    traceback of the handler, is for the service's log.
    """

    code: str
    message: str
    retryable: bool = True
    details: Any = None
    retry_after_s: float | None = None
    trace: str | None = None

    @property
    def held_off(self) -> bool:
        """Whether a circuit breaker held it off before it called anything."""
        details = self.details if isinstance(self.details, dict) else {}
        return self.code == "breaker_open" and details.get("held_off") is True


@dataclass(frozen=True, slots=True)
class Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class Released:
    """Given back unfinished; it does not count."""

    reason: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Not the end of it: *worker*, a service elsewhere, goes on, and may be silent for so long.
    It is told at *cancel_url*, if it has one, when nobody waits for it any longer.
    """

    worker: str
    silence_s: float
    cancel_url: str | None = None


Outcome = Succeeded | Failed | Cancelled | Released | HandedOver


def timed_out(limit_s: float | None) -> Failed:
    return Failed("timeout", f"ran longer than {limit_s or 0:.12g} s")


def stalled(limit_s: float | None) -> Failed:
    return Failed("stalled", f"reported no progress for {limit_s or 0:.12g} s")


def crashed(code: int | None) -> Failed:
    """For a process that has ended with exit *code*, minus the signal if one ended it."""
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
    """What stands for a result of *size* bytes, and says which artifact it became."""
    return {"artifact": RESULT, "size": size}


class AttemptHolder(NamedTuple):
    """Who reports. The attempt is the fencing token; a *worker* is the one that claimed it, and an
    external service, which is none, has shown what only it was given.
    """

    job_id: str
    attempt: int
    worker: str | None = None

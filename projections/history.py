"""The history of a job for a person: who, what, when, why, and how long. Stores nothing."""

from typing import Any

import orjson

from eventjobs.domain.events import (
    ENDS_ATTEMPT,
    ArtifactStored,
    AttemptFailed,
    AttemptHandedOver,
    AttemptReleased,
    AttemptStarted,
    BreakerChanged,
    CancelRequested,
    HookCompleted,
    HookFailed,
    JobCancelled,
    JobCompleted,
    JobExpired,
    JobImported,
    JobRetried,
    JobSubmitted,
    LateReportRefused,
    StepCompleted,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339

#: Longest part of a traceback, or of other details of a failure, that is shown.
TRACE_CHARS_MAX = 4_000


def describe_history(events: list[Recorded]) -> dict[str, Any]:
    """The history as JSON. *events* are all of one job's, oldest first.

    `entries` has a line for each event except progress and logs, which are counted in their
    attempt. `attempts` has one entry for each attempt, with its `outcome` and `duration_s`.
    """
    entries: list[dict[str, Any]] = []
    attempts: list[dict[str, Any]] = []
    for recorded in events:
        event = recorded.event
        if (sentence := _sentence(event)) is not None:
            entries.append(
                {
                    "position": recorded.position,
                    "version": recorded.version,
                    "at": rfc3339(recorded.at_us),
                    "actor": recorded.actor,
                    "type": recorded.type,
                    "text": sentence,
                }
            )
        if isinstance(event, AttemptStarted):
            attempts.append(_new_entry(event, recorded))
        elif attempts and _is_of(event, attempts[-1]["attempt"]):
            _continue(attempts[-1], recorded)
    waited_from = events[0].at_us if events else None
    return {
        "entries": entries,
        "attempts": [{k: v for k, v in attempt.items() if k != "_us"} for attempt in attempts],
        "waited_s": (attempts[0]["_us"] - waited_from) / 1e6 if attempts and waited_from else None,
    }


def _is_of(event: Any, attempt: int) -> bool:
    late = isinstance(event, LateReportRefused)
    return not late and getattr(event, "attempt", None) == attempt


def _new_entry(event: AttemptStarted, recorded: Recorded) -> dict[str, Any]:
    return {
        "_us": recorded.at_us,
        "attempt": event.attempt,
        "worker": event.worker,
        "started_at": rfc3339(recorded.at_us),
        "ended_at": None,
        "duration_s": None,
        "outcome": "running",
        "error": None,
        "reports": 0,
    }


def _continue(attempt: dict[str, Any], recorded: Recorded) -> None:
    if isinstance(recorded.event, AttemptHandedOver):
        attempt["worker"] = recorded.event.worker
        return
    outcome = ENDS_ATTEMPT.get(type(recorded.event))
    if outcome is None:
        attempt["reports"] += 1
        return
    attempt["outcome"] = outcome
    attempt["ended_at"] = rfc3339(recorded.at_us)
    attempt["duration_s"] = max(0, recorded.at_us - attempt["_us"]) / 1e6
    if isinstance(recorded.event, AttemptFailed):
        attempt["error"] = {"code": recorded.event.code, "message": recorded.event.message}
        if (trace := trace_of(recorded.event)) is not None:
            attempt["error"]["trace"] = trace


def trace_of(failed: AttemptFailed) -> str | None:
    """The end of the traceback in the details of a failure; without one, of their JSON."""
    details = failed.details
    if details is None:
        return None
    traceback = details.get("traceback") if isinstance(details, dict) else None
    text = traceback if isinstance(traceback, str) else orjson.dumps(details).decode()
    return text[-TRACE_CHARS_MAX:]


def _sentence(event: Any) -> str | None:
    match event:
        case JobSubmitted(spec=spec):
            return f"submitted as {spec.type}"
        case JobImported(source=source, status=status, updated_us=at_us):
            return f"imported from {source}: {status}, as of {rfc3339(at_us)}"
        case AttemptStarted(attempt=number, worker=worker):
            return f"attempt {number} started on {worker}"
        case AttemptHandedOver(attempt=number, worker=worker):
            return f"attempt {number} was handed over to {worker}"
        case ArtifactStored(name=name, size=size):
            return f"stored {name} ({size} bytes)"
        case AttemptFailed(attempt=number, code=code, retry_at_us=None):
            return f"attempt {number} failed with {code}; the job has failed"
        case AttemptFailed(attempt=number, code=code, retry_at_us=int(at_us)):
            return f"attempt {number} failed with {code}; to be retried at {rfc3339(at_us)}"
        case AttemptReleased(attempt=number, reason=reason):
            return f"attempt {number} was given back: {reason}"
        case JobCompleted(attempt=number):
            return f"completed by attempt {number}"
        case CancelRequested(reason=reason):
            return f"asked to stop{_because(reason)}"
        case JobCancelled(reason=reason):
            return f"cancelled{_because(reason)}"
        case JobRetried(reason=reason) as retried:
            return f"queued again by hand{_from(retried)}{_because(reason)}"
        case StepCompleted(name=name, was=str(was)):
            return f"took over the step {name} from {was}"
        case StepCompleted(name=name):
            return f"completed the step {name}"
        case BreakerChanged(name=name, state=state):
            return f"the circuit breaker of {name} is {state}"
        case LateReportRefused(attempt=number, report=report):
            return f"attempt {number} came too late with {report}, and was refused"
        case HookCompleted(name=name, id=id, url=url):
            return f"the completion hook {name} made the record {url or id or ''}".rstrip()
        case HookFailed(name=name, code=code, message=message):
            return f"the completion hook {name} failed with {code}{_because(message)}"
        case JobExpired(reason=reason):
            return f"hidden{_because(reason)}"
        case _:
            return None


def _from(retried: JobRetried) -> str:
    if retried.restart:
        return " from the start"
    return f" from the step {retried.from_step}" if retried.from_step else ""


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""

"""Why a job is where it is: what it waits for, who runs it, or what ended it. Stores nothing.

A reason is a dict with a stable `code`, a `text` for people, and what else there is to know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptStarted,
    BreakerChanged,
    CancelRequested,
    JobCancelled,
)
from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections import history
from eventjobs.projections.pauses import Pause

Reason = dict[str, Any]

#: The code of an attempt whose worker was not heard from, and what is said of that.
WORKER_LOST = "worker_lost"
WORKER_GONE_TEXT = "its worker has gone"
#: Of jobs that are named one by one.
NAMED_MAX = 10


class LimitReached(NamedTuple):
    """A limit that is reached: how many, and (job id, since when it runs) of those who hold it."""

    limit: int
    holders: Sequence[tuple[str, int | None]]
    #: those of them that the job is a part of
    ancestors: Sequence[str] = ()


class RateReached(NamedTuple):
    rate: str
    opens_us: int | None  # None: starts of before are still being counted


@dataclass(frozen=True)
class QueueSituation:
    """What is so around a job that is queued. None and () are in nobody's way."""

    now_us: int
    #: by name, until when
    open_breakers: Mapping[str, int] = field(default_factory=dict)
    #: (id, status) of jobs that have to end first; None for one that is not there
    unmet: Sequence[tuple[str, str | None]] = ()
    type_pause: Pause | None = None
    queue_pause: Pause | None = None
    key_full: LimitReached | None = None
    type_full: LimitReached | None = None
    queue_full: LimitReached | None = None
    rate: RateReached | None = None
    #: when somebody last asked for jobs of the type, since *started_us*; None: never
    last_claim_us: int | None = None
    started_us: int = 0
    #: whether somebody waits for one right now
    claim_waits: bool = False


def explain_queued(
    job: Job, around: QueueSituation, events: Sequence[Recorded] = ()
) -> list[Reason]:
    """All that keeps a queued *job* from starting; *events* are its own."""
    reasons = [
        *_not_yet(job, around.now_us, events),
        *_open_breakers(events, around.open_breakers),
        *_dependencies(around.unmet),
        *_pauses(around),
        *_limits(job, around),
    ]
    if around.last_claim_us is None:
        since = rfc3339(around.started_us)
        text = f"nobody has asked for jobs of type {job.spec.type} since the service started"
        reasons.append({"code": "no_worker", "text": text, "type": job.spec.type, "since": since})
    elif not reasons and not around.claim_waits:
        asked = rfc3339(around.last_claim_us)
        text = f"everybody who runs jobs of type {job.spec.type} is busy; last asked at {asked}"
        reasons.append({"code": "busy", "text": text, "type": job.spec.type, "since": asked})
    reasons = reasons or [{"code": "ready", "text": "nothing: it is about to start"}]
    if job.error is not None and job.error["code"] == WORKER_LOST:
        said = f"{WORKER_GONE_TEXT}: attempt {job.attempt} was lost, {job.error['message']}"
        reasons.append({"code": "worker_gone", "text": said, "since": rfc3339(job.updated_us)})
    return reasons


def _not_yet(job: Job, now_us: int, events: Sequence[Recorded]) -> Iterator[Reason]:
    # What was due at once when it was recorded is due, also on a clock that was set back.
    if job.due_us <= max(now_us, job.updated_us):
        return
    until = rfc3339(job.due_us)
    if job.attempt and job.error is not None and job.error["code"] == "breaker_open":
        used = f"{job.tries} of {job.spec.max_attempts} attempts are used"
        text = f"attempt {job.attempt} was held off by a circuit breaker; {used}; "
        text += f"the next is at {until}"
        yield {"code": "retry_delay", "text": text, "until": until} | _attempt(job, events)
    elif job.tries and job.error is not None:
        text = f"attempt {job.attempt} failed with {job.error['code']}; the next is at {until}"
        yield {"code": "retry_delay", "text": text, "until": until} | _attempt(job, events)
    else:
        yield {"code": "scheduled", "text": f"it is not to run before {until}", "until": until}


def _attempt(job: Job, events: Sequence[Recorded]) -> Reason:
    told = {"attempt": job.attempt, "max_attempts": job.spec.max_attempts, "error": job.error}
    failed = [each.event for each in events if isinstance(each.event, AttemptFailed)]
    trace = history.trace_of(failed[-1]) if failed else None
    return told if trace is None else {**told, "trace": trace}


def _open_breakers(events: Sequence[Recorded], until_us: Mapping[str, int]) -> Iterator[Reason]:
    """Of those that are open, the ones that the newest attempt changed, or failed at."""
    met = set()
    for each in _of_last_attempt(events):
        match each.event:
            case BreakerChanged(name=name):
                met.add(name)
            case AttemptFailed(code="breaker_open", details={"breaker": name}):
                met.add(name)
            case _:
                pass
    for name in sorted(met & until_us.keys()):
        until = rfc3339(until_us[name])
        text = f"the circuit breaker of {name} is open until {until}"
        yield {"code": "breaker_open", "text": text, "breaker": name, "until": until}


def _dependencies(unmet: Sequence[tuple[str, str | None]]) -> Iterator[Reason]:
    if unmet:
        first, status = unmet[0]
        more = f" and {len(unmet) - 1} more" if len(unmet) > 1 else ""
        text = f"it waits for job {first}, which is {status or 'not there'}{more}"
        jobs = [{"job_id": id, "status": status} for id, status in unmet[:NAMED_MAX]]
        yield {"code": "dependency", "text": text, "jobs": jobs}


def _pauses(around: QueueSituation) -> Iterator[Reason]:
    for pause in (around.type_pause, around.queue_pause):
        if pause is not None:
            since = rfc3339(pause.since_us)
            text = f"{pause.kind} {pause.name} is paused by {pause.actor} since {since}"
            yield {
                "code": f"paused_{pause.kind}",
                "text": text + _because(pause.reason),
                pause.kind: pause.name,
                "by": pause.actor,
                "since": since,
                "reason": pause.reason,
            }


def _limits(job: Job, around: QueueSituation) -> Iterator[Reason]:
    key = (job.spec.concurrency_key or "").removeprefix("\x1f")  # with which a receiver's begins
    if around.key_full is not None:
        yield _full("concurrency_key", f"key {key}", around.key_full) | {"key": key}
    if around.type_full is not None:
        name = job.spec.type
        yield _full("type_limit", f"type {name}", around.type_full) | {"type": name}
    if around.queue_full is not None:
        yield _full("queue_limit", f"queue {job.queue}", around.queue_full) | {"queue": job.queue}
    if around.rate is not None:
        rate, opens_us = around.rate
        until = None if opens_us is None else rfc3339(opens_us)
        then = "its earlier starts are being counted" if until is None else f"the next at {until}"
        text = f"no more than {rate} of type {job.spec.type} are started; {then}"
        yield {"code": "rate_limit", "text": text, "rate": rate, "until": until}


def _full(code: str, what: str, full: LimitReached) -> Reason:
    limit, holders, above = full
    jobs = [
        {"job_id": job_id, "since": None if since_us is None else rfc3339(since_us)}
        for job_id, since_us in holders[:NAMED_MAX]
    ]
    if limit == 1 and jobs:
        since = f" since {jobs[0]['since']}" if jobs[0]["since"] else ""
        text = f"{what} is held by job {jobs[0]['job_id']}{since}"
    else:
        text = f"{what} has {len(holders)} jobs running, of {limit}"
    if above:
        text += f"; it is a part of job {above[0]}: should that wait for it, neither goes on"
    return {"code": code, "text": text, "limit": limit, "running": len(holders), "jobs": jobs}


# --- running, ended


def explain_running(
    job: Job, events: Sequence[Recorded], heard_us: int | None = None, silent_s: float | None = None
) -> list[Reason]:
    """Who runs *job*; *heard_us* is when a worker elsewhere, or a service, was last heard from,
    *silent_s* ago.
    """
    since = rfc3339(job.started_us or job.updated_us)
    text = f"attempt {job.attempt} runs on {job.worker} since {since}"
    told: Reason = {"code": "running", "since": since, "worker": job.worker}
    told |= {"attempt": job.attempt, "max_attempts": job.spec.max_attempts}
    period_s = job.silence_s if job.silence_s is not None else job.lease_s
    if period_s is not None:
        heard = None if heard_us is None else rfc3339(heard_us)
        text += f"; to be heard from every {period_s:g} s" + (f", last at {heard}" if heard else "")
        told |= {"lease_s": period_s, "heard_at": heard}
    reasons: list[Reason] = [told | {"text": text}]
    if silent_s is not None and _is_gone(job, silent_s):
        text = f"{WORKER_GONE_TEXT}: {job.worker} was not heard from for {silent_s:.0f} s"
        gone = {"code": "worker_gone", "worker": job.worker, "since": rfc3339(heard_us or 0)}
        reasons.append(gone | {"text": text})
    if job.cancel_requested_us is not None:
        by, reason = _cancelled_by(events)
        since = rfc3339(job.cancel_requested_us)
        text = f"it was asked to stop by {by} at {since}{_because(reason)}"
        stop = {"code": "stopping", "text": text, "since": since, "by": by, "reason": reason}
        reasons.append(stop)
    return reasons


def _is_gone(job: Job, silent_s: float) -> bool:
    """A worker sends a heartbeat in each third of its lease. A service has none to send."""
    if job.silence_s is not None:
        return silent_s >= job.silence_s
    return job.lease_s is not None and silent_s >= job.lease_s * 2 / 3


def explain_ended(job: Job, events: Sequence[Recorded]) -> list[Reason]:
    """What ended *job*."""
    at = rfc3339(job.finished_us or job.updated_us)
    told = {"since": at, "attempt": job.attempt or None}
    if job.status == Status.COMPLETED:
        return [told | {"code": "completed", "text": f"attempt {job.attempt} completed it at {at}"}]
    if job.status == Status.FAILED:
        return [told | _failed(job, events)]
    by, reason = _cancelled_by(events)
    told |= {"by": by, "reason": reason}
    text = f"it was cancelled by {by} at {at}{_because(reason)}"
    others = [other for other in job.spec.after if other in (reason or "")]
    if by == "service" and others:
        jobs = [{"job_id": other} for other in others]
        return [told | {"code": "dependency_failed", "text": text, "jobs": jobs}]
    if by == "service" and job.spec.parent is not None and job.spec.parent in (reason or ""):
        jobs = [{"job_id": job.spec.parent}]
        return [told | {"code": "parent_cancelled", "text": text, "jobs": jobs}]
    return [told | {"code": "cancelled", "text": text}]


def _failed(job: Job, events: Sequence[Recorded]) -> Reason:
    error = job.error or {"code": "unknown", "message": None, "retryable": False}
    said = f": {error['message']}" if error["message"] else ""
    why = "no attempt is left" if error["retryable"] else "trying again would be of no use"
    text = f"attempt {job.attempt} failed with {error['code']}{said}; {why}"
    if error["code"] == WORKER_LOST:
        text = f"{WORKER_GONE_TEXT}: {text}"
    return {"code": "failed", "text": text} | _attempt(job, events)


def _cancelled_by(events: Sequence[Recorded]) -> tuple[str | None, str | None]:
    """Who wanted it, and why: not the worker that did as it was told."""
    by, reason = None, None
    for each in _of_last_attempt(events):
        match each.event:
            case CancelRequested(reason=said):
                by, reason = each.actor, said
            case JobCancelled(reason=said) if by is None:
                by, reason = each.actor, said
            case _:
                pass
    return by, reason


def _of_last_attempt(events: Sequence[Recorded]) -> Sequence[Recorded]:
    starts = [n for n, each in enumerate(events) if isinstance(each.event, AttemptStarted)]
    return events[starts[-1] :] if starts else events


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""

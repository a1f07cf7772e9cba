"""Explains the state of a job: what it waits for, who runs it, or what ended it. Stores nothing.

A reason is a dict with a stable `code`, a `text` for people, and fields that depend on the code.
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
from eventjobs.domain.ids import hook_id
from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections import history
from eventjobs.projections.pauses import Pause

Reason = dict[str, Any]

#: The error code of an attempt whose lease expired, and its text.
WORKER_LOST = "worker_lost"
WORKER_GONE_TEXT = "its worker has gone"
#: How many jobs a reason lists.
NAMED_MAX = 10


class FullLimit(NamedTuple):
    """A full concurrency limit, and (job id, started_us) of the jobs that hold it."""

    limit: int
    holders: Sequence[tuple[str, int | None]]
    #: the holders that are ancestors of the explained job
    ancestors: Sequence[str] = ()
    #: how many more hold it, which the reader may not see
    unnamed: int = 0


class RateReached(NamedTuple):
    rate: str
    opens_us: int | None  # None: earlier starts are still being counted


@dataclass(frozen=True)
class QueueSituation:
    """What may keep a queued job from starting. None and () are no obstacle."""

    now_us: int
    #: until when (us), by name
    open_breakers: Mapping[str, int] = field(default_factory=dict)
    #: (id, status) of jobs that have to end first; the status of a missing one is None
    unmet: Sequence[tuple[str, str | None]] = ()
    type_pause: Pause | None = None
    queue_pause: Pause | None = None
    key_full: FullLimit | None = None
    type_full: FullLimit | None = None
    queue_full: FullLimit | None = None
    rate: RateReached | None = None
    #: the last claim for jobs of the type, since the service started at *started_us*
    last_claim_us: int | None = None
    started_us: int = 0
    #: whether a claim for the type waits now
    claim_waits: bool = False


def explain_queued(
    job: Job, around: QueueSituation, events: Sequence[Recorded] = ()
) -> list[Reason]:
    """Everything that keeps a queued *job* from starting; *events* are its own."""
    reasons = [
        *_not_yet(job, around.now_us, events),
        *_open_breakers(events, around.open_breakers),
        *_dependencies(around.unmet),
        *_pauses(around),
        *_limits(job, around),
    ]
    if around.last_claim_us is None:
        since = rfc3339(around.started_us)
        text = f"no worker has asked for jobs of type {job.spec.type} since the service started"
        reasons.append({"code": "no_worker", "text": text, "type": job.spec.type, "since": since})
    elif not reasons and not around.claim_waits:
        last = rfc3339(around.last_claim_us)
        text = f"all workers for jobs of type {job.spec.type} are busy; the last request: {last}"
        reasons.append({"code": "busy", "text": text, "type": job.spec.type, "since": last})
    reasons = reasons or [{"code": "ready", "text": "nothing: it is about to start"}]
    if job.error is not None and job.error["code"] == WORKER_LOST:
        text = f"{WORKER_GONE_TEXT}: attempt {job.attempt} was lost, {job.error['message']}"
        reasons.append({"code": "worker_gone", "text": text, "since": rfc3339(job.updated_us)})
    return reasons


def _not_yet(job: Job, now_us: int, events: Sequence[Recorded]) -> Iterator[Reason]:
    # A job that was due when it was recorded is due, also after the clock was set back.
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
    reason = {"attempt": job.attempt, "max_attempts": job.spec.max_attempts, "error": job.error}
    failed = [each.event for each in events if isinstance(each.event, AttemptFailed)]
    trace = history.trace_of(failed[-1]) if failed else None
    return reason if trace is None else {**reason, "trace": trace}


def _open_breakers(events: Sequence[Recorded], until_us: Mapping[str, int]) -> Iterator[Reason]:
    """The open breakers that the newest attempt changed, or failed at."""
    names = set()
    for each in _of_last_attempt(events):
        match each.event:
            case BreakerChanged(name=name):
                names.add(name)
            case AttemptFailed(code="breaker_open", details={"breaker": name}):
                names.add(name)
            case _:
                pass
    for name in sorted(names & until_us.keys()):
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
    key = (job.spec.concurrency_key or "").removeprefix("\x1f")  # of a key of a receiver
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


def _full(code: str, what: str, full: FullLimit) -> Reason:
    limit, holders, ancestors, unnamed = full
    running = len(holders) + unnamed
    jobs = [
        {"job_id": job_id, "since": None if since_us is None else rfc3339(since_us)}
        for job_id, since_us in holders[:NAMED_MAX]
    ]
    if limit == 1 and jobs:
        since = f" since {jobs[0]['since']}" if jobs[0]["since"] else ""
        text = f"{what} is held by job {jobs[0]['job_id']}{since}"
    else:
        text = f"{what} has {running} jobs running, of {limit}"
    if ancestors:
        text += (
            f"; the job is a descendant of {ancestors[0]}: if that waits for it, neither continues"
        )
    return {"code": code, "text": text, "limit": limit, "running": running, "jobs": jobs}


# --- jobs of other stores


def explain_imported(job: Job) -> list[Reason]:
    """Who runs *job*, or ran it: the program of the store that it was imported from."""
    assert job.imported is not None
    source, at = job.imported["source"], rfc3339(job.imported["at_us"])
    text = f"it was imported from {source}, where it is {job.status}; "
    text += "another program runs it" if not job.finished else "another program ran it"
    since = rfc3339(job.updated_us)
    return [{"code": "imported", "text": text, "since": since, "source": source, "read_at": at}]


# --- running, ended


def explain_running(
    job: Job, events: Sequence[Recorded], heard_us: int | None = None, silent_s: float | None = None
) -> list[Reason]:
    """Who runs *job*.

    *heard_us* is the time of the last heartbeat or report of a remote worker or an external
    service, *silent_s* ago.
    """
    since = rfc3339(job.started_us or job.updated_us)
    text = f"attempt {job.attempt} runs on {job.worker} since {since}"
    running: Reason = {"code": "running", "since": since, "worker": job.worker}
    running |= {"attempt": job.attempt, "max_attempts": job.spec.max_attempts}
    period_s = job.silence_s if job.silence_s is not None else job.lease_s
    if period_s is not None:
        heard = None if heard_us is None else rfc3339(heard_us)
        text += f"; it has to report every {period_s:g} s" + (f", last at {heard}" if heard else "")
        running |= {"lease_s": period_s, "heard_at": heard}
    reasons: list[Reason] = [running | {"text": text}]
    if silent_s is not None and _is_gone(job, silent_s):
        text = f"{WORKER_GONE_TEXT}: {job.worker} has not reported for {silent_s:.0f} s"
        gone = {"code": "worker_gone", "worker": job.worker, "since": rfc3339(heard_us or 0)}
        reasons.append(gone | {"text": text})
    if job.cancel_requested_us is not None:
        by, reason = _cancelled_by(events)
        since = rfc3339(job.cancel_requested_us)
        text = f"it was asked to stop by {by} at {since}{_because(reason)}"
        stopping = {"code": "stopping", "text": text, "since": since, "by": by, "reason": reason}
        reasons.append(stopping)
    return reasons


def _is_gone(job: Job, silent_s: float) -> bool:
    """Whether two heartbeats of a worker are missing, or the time of an external service is over.

    A worker sends a heartbeat in each third of its lease.
    """
    if job.silence_s is not None:
        return silent_s >= job.silence_s
    return job.lease_s is not None and silent_s >= job.lease_s * 2 / 3


def explain_ended(job: Job, events: Sequence[Recorded]) -> list[Reason]:
    """What ended *job*."""
    at = rfc3339(job.finished_us or job.updated_us)
    common = {"since": at, "attempt": job.attempt or None}
    if job.status == Status.COMPLETED:
        text = f"attempt {job.attempt} completed it at {at}"
        return [common | {"code": "completed", "text": text}, *_hooks(job)]
    if job.status == Status.FAILED:
        return [common | _failure_reason(job, events)]
    by, reason = _cancelled_by(events)
    common |= {"by": by, "reason": reason}
    text = f"it was cancelled by {by} at {at}{_because(reason)}"
    others = [other for other in job.spec.after if other in (reason or "")]
    if by == "service" and others:
        jobs = [{"job_id": other} for other in others]
        return [common | {"code": "dependency_failed", "text": text, "jobs": jobs}]
    if by == "service" and job.spec.parent is not None and job.spec.parent in (reason or ""):
        jobs = [{"job_id": job.spec.parent}]
        return [common | {"code": "parent_cancelled", "text": text, "jobs": jobs}]
    return [common | {"code": "cancelled", "text": text}]


def _hooks(job: Job) -> Iterator[Reason]:
    """The completion hooks of a completed job that have made no record."""
    ended = {each.name: each for each in job.hooks}
    for name in job.spec.hooks:
        jobs = [{"job_id": hook_id(job.job_id, name)}]
        if name not in ended:
            text = f"its completion hook {name} has not ended"
            yield {"code": "hook_pending", "text": text, "hook": name, "jobs": jobs}
        elif (error := ended[name].error) is not None:
            text = f"its completion hook {name} failed with {error['code']}"
            yield {"code": "hook_failed", "text": text, "hook": name, "jobs": jobs}


def _failure_reason(job: Job, events: Sequence[Recorded]) -> Reason:
    error = job.error or {"code": "unknown", "message": None, "retryable": False}
    message = f": {error['message']}" if error["message"] else ""
    cause = "no attempt is left" if error["retryable"] else "the error is not retryable"
    text = f"attempt {job.attempt} failed with {error['code']}{message}; {cause}"
    if error["code"] == WORKER_LOST:
        text = f"{WORKER_GONE_TEXT}: {text}"
    return {"code": "failed", "text": text} | _attempt(job, events)


def _cancelled_by(events: Sequence[Recorded]) -> tuple[str | None, str | None]:
    """(actor, reason) of the request to cancel, not of the worker that reported its end."""
    by, reason = None, None
    for each in _of_last_attempt(events):
        match each.event:
            case CancelRequested(reason=requested):
                by, reason = each.actor, requested
            case JobCancelled(reason=recorded) if by is None:
                by, reason = each.actor, recorded
            case _:
                pass
    return by, reason


def _of_last_attempt(events: Sequence[Recorded]) -> Sequence[Recorded]:
    starts = [n for n, each in enumerate(events) if isinstance(each.event, AttemptStarted)]
    return events[starts[-1] :] if starts else events


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""

"""A job as its JSON body."""

import math
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from eventjobs.attempts.error_report import ERROR_ARTIFACT
from eventjobs.domain.hook_results import HookResult
from eventjobs.domain.ids import hook_id
from eventjobs.domain.job import Job, Status
from eventjobs.domain.json_fields import fragment_of
from eventjobs.domain.timestamps import rfc3339
from eventjobs.projections import JobView
from eventjobs.projections.attempt_progress import Progress, Stage
from eventjobs.projections.progress import Estimate

_NO_PROGRESS = Progress()


def render(view: JobView, ttl_s: float = math.inf) -> dict[str, Any]:
    """The canonical JSON of a job. Every key is present; null is a value that does not exist yet.

    *ttl_s* is the time to live in seconds of jobs that have none of their own.
    """
    job, progress, estimate = view
    hooks = _hooks(job) if job.spec.hooks else []
    return {  # one dict: joined by `|`, each part would copy the ones before it
        "job_id": job.job_id,
        "type": job.spec.type,
        "status": job.status,
        **_progress(job, progress),
        **_estimate(estimate),
        **_attempt(job),
        **_times(job, ttl_s),
        "version": job.version,
        "position": job.position,
        "links": {**_links(job), **hook_links(hooks)},
        "hooks": hooks,
        "masked": False,
    }


def _progress(job: Job, progress: Progress | None) -> dict[str, Any]:
    progress = progress or _NO_PROGRESS
    fraction = 1.0 if job.status == Status.COMPLETED else progress.fraction
    return {
        "progress": round(fraction * 100, 2),
        "stage": progress.stage,
        "stages": [_stage(each) for each in progress.stages],
        "message": progress.message,
        "data": progress.data,
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "started_at": rfc3339(stage.started_us),
        "ended_at": time_or_none(stage.ended_us),
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"remaining_s": None, "pace": None}
    if estimate.low_s is None or estimate.high_s is None:
        return {"remaining_s": None, "pace": estimate.pace}
    left = {"low": round(estimate.low_s, 1), "high": round(estimate.high_s, 1)}
    return {"remaining_s": left, "pace": estimate.pace}


def _attempt(job: Job) -> dict[str, Any]:
    spec = job.spec
    return {
        "attempt": job.attempt,
        "max_attempts": spec.max_attempts,
        "can_retry": job.can_retry,
        "payload": fragment_of(spec, "payload"),
        "result": fragment_of(job, "result"),
        "issues": job.issues or [],
        "error": job.error,
        "artifacts": _artifacts(job) if job.artifacts else [],
        "steps": [{"name": each.name, "at": rfc3339(each.at_us)} for each in job.steps],
        "owner": spec.owner,
        "tags": spec.tags,
        "priority": spec.priority,
        "queue": job.queue,
        "concurrency_key": spec.concurrency_key,
        "timeout_s": spec.timeout_s,
        "stall_timeout_s": spec.stall_timeout_s,
        "retry_delay_s": spec.retry_delay_s,
        "after": spec.after,
        "after_failure": spec.after_failure or "cancel",
        "parent": spec.parent,
    }


def _artifacts(job: Job) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "sha256": each.sha256,
            "size": each.size,
            "media_type": each.media_type,
            "url": f"/v1/jobs/{job.job_id}/artifacts/{quote(each.name)}",
        }
        for each in job.artifacts
    ]


def _times(job: Job, ttl_s: float) -> dict[str, Any]:
    ttl_s = ttl_s if job.spec.ttl_s is None else job.spec.ttl_s
    expires_us = None
    if job.ended_us is not None and math.isfinite(ttl_s):
        expires_us = job.ended_us + int(ttl_s * 1e6)
    return {
        "run_at": time_or_none(job.due_us if job.waits else job.spec.run_at_us),
        "created_at": rfc3339(job.created_us),
        "updated_at": rfc3339(job.updated_us),
        "started_at": time_or_none(job.started_us),
        "finished_at": time_or_none(job.finished_us),
        "cancel_requested_at": time_or_none(job.cancel_requested_us),
        "expires_at": time_or_none(expires_us),
    }


def hook_links(hooks: Iterable[Mapping[str, Any]]) -> dict[str, str | None]:
    """The links of a job to the records of its completion *hooks*; None where there is none yet."""
    return {each["name"]: each["url"] or each["id"] for each in hooks}


def _hooks(job: Job) -> list[dict[str, Any]]:
    """The completion hooks of a job, each as the JSON of it."""
    results = {each.name: each for each in job.hooks}
    return [_hook(job.job_id, name, results.get(name)) for name in job.spec.hooks]


def _hook(job_id: str, name: str, result: HookResult | None) -> dict[str, Any]:
    status = "pending" if result is None else "completed" if result.error is None else "failed"
    id, url, error = (result.id, result.url, result.error) if result else (None, None, None)
    job = hook_id(job_id, name)
    return {"name": name, "status": status, "id": id, "url": url, "error": error, "job_id": job}


def _links(job: Job) -> dict[str, str | None]:
    address = f"/v1/jobs/{job.job_id}"
    has_error = job.status == Status.FAILED and any(
        each.name == ERROR_ARTIFACT for each in job.artifacts
    )
    return {
        "self": address,
        "events": f"{address}/events",
        "history": f"{address}/history",
        "why": f"{address}/why",
        "logs": f"{address}/logs",
        "receipt": f"{address}/receipt",
        "cancel": f"{address}/cancel",
        "retry": f"{address}/retry",
        "children": f"/v1/jobs?parent={job.job_id}",
        "error": f"{address}/artifacts/{ERROR_ARTIFACT}" if has_error else None,
    }


def time_or_none(at_us: int | None) -> str | None:
    """A time in microseconds since 1970 as RFC 3339; None for None."""
    return None if at_us is None else rfc3339(at_us)

"""A job in JSON, as it is now: the one body that pages, polls, streams and commands share."""

import math
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from eventjobs.events import rfc3339
from eventjobs.failure import ERROR
from eventjobs.job import Job, Status
from eventjobs.lru import Lru
from eventjobs.plain import text_of
from projections import JobView, Views
from projections.progress import Estimate
from projections.stages import Progress, Stage

_NO_PROGRESS = Progress()


class Snapshot(NamedTuple):
    job: Job
    body: bytes
    etag: str


class Snapshots:
    """Encoded snapshots of jobs that were just read or changed, kept by version."""

    def __init__(self, views: Views, ttl_s: float = math.inf) -> None:
        self._views = views
        self._ttl_s = ttl_s
        self._kept: Lru[Snapshot] = Lru(entries_max=20_000, bytes_max=64 * 2**20)

    def kept(self, job_id: str) -> Snapshot | None:
        """The job's newest snapshot, if it is in memory and nothing but time would change it."""
        found = self._kept.get(job_id)
        if found is None or found.job.status == Status.RUNNING:
            return None  # what is left of a running job's time changes by itself
        return found if self._views.kept(job_id) is found.job else None

    async def get(self, job_id: str) -> Snapshot | None:
        """The job as the views have it; None for one that is not there, or hidden."""
        if (found := self.kept(job_id)) is not None:
            return found
        view = await self._views.job(job_id)
        return None if view is None else self.of(view)

    def of(self, view: JobView) -> Snapshot:
        """Encode *view*, unless that was done before."""
        job = view.job
        found = self._kept.get(job.job_id)
        if found is not None and found.job is job and job.status != Status.RUNNING:
            return found
        body = self.encode(view)
        made = Snapshot(job, body, etag_of(job))
        self._kept.put(job.job_id, made, len(body))
        return made

    def encode(self, view: JobView) -> bytes:
        return orjson.dumps(render(view, self._ttl_s))


def etag_of(job: Job) -> str:
    """Its version; while it runs, remaining time makes two readings of one differ: a weak tag."""
    return f'W/"{job.version}"' if job.status == Status.RUNNING else f'"{job.version}"'


def render(view: JobView, ttl_s: float = math.inf) -> dict[str, Any]:
    """The canonical JSON of a job: null where there is nothing yet, never a missing key.

    *ttl_s* is of jobs that do not say.
    """
    job, progress, estimate = view
    return (
        {"job_id": job.job_id, "type": job.spec.type, "status": job.status}
        | _progress(job, progress)
        | _estimate(estimate)
        | _work(job)
        | _times(job, ttl_s)
        | {"version": job.version, "position": job.position, "links": _links(job)}
    )


def _progress(job: Job, progress: Progress | None) -> dict[str, Any]:
    told = progress or _NO_PROGRESS
    fraction = 1.0 if job.status == Status.COMPLETED else told.fraction
    return {
        "progress": round(fraction * 100, 2),
        "stage": told.stage,
        "stages": [_stage(each) for each in told.stages],
        "message": told.message,
        "data": told.data,
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


def _work(job: Job) -> dict[str, Any]:
    spec = job.spec
    return {
        "attempt": job.attempt,
        "max_attempts": spec.max_attempts,
        "can_retry": job.can_retry,
        "payload": text_of(spec, "payload"),
        "result": text_of(job, "result"),
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
    waits = job.status == Status.QUEUED
    ttl_s = ttl_s if job.spec.ttl_s is None else job.spec.ttl_s
    expires_us = None
    if job.finished_us is not None and math.isfinite(ttl_s):
        expires_us = job.finished_us + int(ttl_s * 1e6)
    return {
        "run_at": time_or_none(job.due_us if waits else job.spec.run_at_us),
        "created_at": rfc3339(job.created_us),
        "updated_at": rfc3339(job.updated_us),
        "started_at": time_or_none(job.started_us),
        "finished_at": time_or_none(job.finished_us),
        "cancel_requested_at": time_or_none(job.cancel_requested_us),
        "expires_at": time_or_none(expires_us),
    }


def _links(job: Job) -> dict[str, str | None]:
    here = f"/v1/jobs/{job.job_id}"
    told = job.status == Status.FAILED and any(each.name == ERROR for each in job.artifacts)
    return {
        "self": here,
        "events": f"{here}/events",
        "history": f"{here}/history",
        "why": f"{here}/why",
        "logs": f"{here}/logs",
        "receipt": f"{here}/receipt",
        "cancel": f"{here}/cancel",
        "retry": f"{here}/retry",
        "children": f"/v1/jobs?parent={job.job_id}",
        "error": f"{here}/artifacts/{ERROR}" if told else None,
    }


def time_or_none(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)

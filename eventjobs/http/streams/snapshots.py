"""A job in JSON, as it is now: the one body that pages, polls, streams and commands share."""

import math
from typing import NamedTuple

import orjson

from eventjobs.cache import LRUCache
from eventjobs.domain.job import Job, Status
from eventjobs.http.render import render
from eventjobs.projections.views import JobView, Views


class Snapshot(NamedTuple):
    job: Job
    body: bytes
    etag: str


class Snapshots:
    """Encoded snapshots of jobs that were just read or changed, kept by version."""

    def __init__(self, views: Views, ttl_s: float = math.inf) -> None:
        self._views = views
        self._ttl_s = ttl_s
        self._kept: LRUCache[Snapshot] = LRUCache(entries_max=20_000, bytes_max=64 * 2**20)

    def kept(self, job_id: str) -> Snapshot | None:
        """The job's newest snapshot, if it is in memory and nothing but time would change it."""
        found = self._kept.get(job_id)
        if found is None or found.job.status == Status.RUNNING:
            return None  # what is left of a running job's time changes by itself
        return found if self._views.cached_job(job_id) is found.job else None

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

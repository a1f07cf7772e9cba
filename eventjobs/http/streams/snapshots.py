"""A job as JSON: the one body that pages, polls, streams and commands share."""

import math
from typing import NamedTuple

import orjson

from eventjobs.cache import LRUCache
from eventjobs.domain.job import JOB_BYTES, Job, Status
from eventjobs.domain.mask import Mask
from eventjobs.http.render import hook_links, render
from eventjobs.projections import JobView, Views
from eventjobs.storable import trim

#: Bytes in memory of a snapshot and its job, without texts.
SNAPSHOT_BYTES = JOB_BYTES + 250


class Snapshot(NamedTuple):
    """A job with its JSON and the entity tag of it (RFC 9110, 8.8.3)."""

    job: Job
    body: bytes
    etag: str

    def hide(self, mask: Mask | None) -> "Snapshot":
        """The snapshot through *mask*, with an entity tag of its own."""
        if mask is None:
            return self
        fields = orjson.loads(self.body)
        body = mask.fields(fields) | {"masked": True}
        for hook, masked in zip(fields["hooks"], body["hooks"], strict=True):
            masked["name"] = hook["name"]  # it is declared, and not a text of the job
        body["links"] |= hook_links(body["hooks"])  # all other links are not masked
        return Snapshot(self.job, orjson.dumps(body), masked_etag(self.etag))


class Snapshots:
    """A cache of encoded snapshots of jobs that were just read or changed, by version."""

    def __init__(self, views: Views, ttl_s: float = math.inf) -> None:
        self._views = views
        self._ttl_s = ttl_s
        self._cache: LRUCache[Snapshot] = LRUCache(20_000, 64 * 2**20, SNAPSHOT_BYTES)

    def get_cached(self, job_id: str) -> Snapshot | None:
        """The job's newest snapshot; None if it is not in memory, or the job runs.

        A running job has a remaining time, which changes without an event.
        """
        snapshot = self._cache.get(job_id)
        if snapshot is None or snapshot.job.status == Status.RUNNING:
            return None
        return snapshot if self._views.cached_job(job_id) is snapshot.job else None

    async def get(self, job_id: str) -> Snapshot | None:
        """The job as the views have it, hidden or not; None if there is no such job."""
        if (snapshot := self.get_cached(job_id)) is not None:
            return snapshot
        view = await self._views.job(job_id)
        return None if view is None else self.of(view)

    def of(self, view: JobView) -> Snapshot:
        """The snapshot of *view*, from the cache if it is the same version."""
        job = view.job
        cached = self._cache.get(job.job_id)
        if cached is not None and cached.job is job and job.status != Status.RUNNING:
            return cached
        body = trim(self.encode(view))
        snapshot = Snapshot(job, body, etag_of(job))
        self._cache.put(job.job_id, snapshot, 2 * len(body))  # the texts are in the job, too
        return snapshot

    def encode(self, view: JobView) -> bytes:
        """The JSON of *view*, past the cache."""
        return orjson.dumps(render(view, self._ttl_s))


def etag_of(job: Job) -> str:
    """The version as an entity tag: weak while the job runs, for the remaining time changes."""
    return f'W/"{job.version}"' if job.status == Status.RUNNING else f'"{job.version}"'


def masked_etag(etag: str) -> str:
    """The entity tag of the masked body of the same version."""
    return f'{etag[:-1]}-masked"'

"""Jobs by the events of theirs that a filter is applied to."""

from collections.abc import Sequence
from sys import getsizeof

from eventjobs.cache import LRUCache
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.mask import drop_payload
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.job_filter import JobFilter

#: Bytes in memory of a job whose fields are all set, without tags: measured with tracemalloc.
SLIM_JOB_BYTES = 2_600


class JobLookup:
    """A cache of jobs for JobFilter.matches, which reads only what never changes about a job.

    Any version of a job will do, so entries are never stale. The cache of Jobs is another: it is
    for decisions, and drops a job that has ended.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._cache: LRUCache[Job] = LRUCache(20_000, 64 * 2**20, SLIM_JOB_BYTES)

    async def jobs_of(self, events: Sequence[Recorded]) -> dict[str, Job | None]:
        """The jobs of *events* by id; None for one that cannot be read."""
        jobs: dict[str, Job | None] = {}
        for recorded in events:
            job_id = recorded.job_id
            if job_id not in jobs:
                jobs[job_id] = self._cache.get(job_id) or await self._load(recorded)
        return jobs

    async def hide(self, job_filter: JobFilter, events: list[Recorded]) -> list[Recorded]:
        """*events* as the reader of *job_filter* may see them."""
        if job_filter.reader is None:
            return events
        return job_filter.hide(events, await self.jobs_of(events))

    async def _load(self, recorded: Recorded) -> Job | None:
        if isinstance(recorded.event, JobSubmitted):
            job = evolve(None, recorded)
        elif (current := await self._jobs.load_even_parked(recorded.job_id)) is not None:
            job = current
        else:
            return None
        slim = Job(
            job.job_id,
            drop_payload(job.spec),
            job.born,
            job.created_us,
            job.version,
            job.position,
            job.updated_us,
        )
        texts = *slim.spec.tags, *slim.spec.after, *slim.spec.sensitive
        self._cache.put(job.job_id, slim, sum(map(getsizeof, texts)))
        return slim

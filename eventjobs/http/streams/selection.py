"""Which jobs a list or a stream is about."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eventjobs.cache import LRUCache
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import JobSubmitted, LogWritten
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded


@dataclass(frozen=True)
class JobFilter:
    """Named jobs, or all that match; what is None does not limit."""

    ids: frozenset[str] | None = None
    type: frozenset[str] | None = None
    owner: str | None = None
    queue: str | None = None
    parent: str | None = None
    tag: str | None = None
    status: frozenset[str] | None = None
    #: Of the facts, only the lines of the jobs' logs.
    logs: bool = False

    @property
    def everything(self) -> bool:
        return self == _EVERYTHING

    @property
    def _names_them(self) -> bool:
        """The service's own jobs are shown when they are asked for, as in lists."""
        return self.ids is not None or self.type is not None

    def filters(self) -> dict[str, Any]:
        """What Views.jobs lists of it, where it names no jobs."""
        return {
            "type": self.type and sorted(self.type),
            "status": self.status and sorted(self.status),
            "owner": self.owner,
            "queue": self.queue,
            "parent": self.parent,
            "tag": self.tag,
        }

    def wants(self, job: Job | None) -> bool:
        """Whether the facts of *job* belong here: by what never changes about it, so that whoever
        reads them again reads the same.
        """
        return (
            job is not None
            and (self.ids is None or job.job_id in self.ids)
            and (self.type is None or job.spec.type in self.type)
            and (self.owner is None or job.spec.owner == self.owner)
            and (self.queue is None or job.queue == self.queue)
            and (self.parent is None or job.spec.parent == self.parent)
            and (self.tag is None or self.tag in job.spec.tags)
        )

    def shows(self, job: Job, statuses: Iterable[str] | None = None) -> bool:
        """Whether *job* belongs here, and is not hidden. *statuses* as in *concerns*."""
        return job.expired_us is None and self.concerns(job, statuses)

    def concerns(self, job: Job, statuses: Iterable[str] | None = None) -> bool:
        """Whether a change of *job*, hidden or not, is for those who watch this. Given *statuses*,
        having had one of those is enough: they see a job that leaves, too.
        """
        return (
            self.wants(job)
            and (self._names_them or not job.spec.type.startswith("eventjobs."))
            and (self.status is None or statuses is None or not self.status.isdisjoint(statuses))
        )

    def among(self, named: Iterable[Job]) -> "JobFilter":
        """For named jobs the same, once it is known which of them the other limits leave."""
        if self.ids is None:
            return self
        ids = frozenset(job.job_id for job in named if self.wants(job))
        return JobFilter(ids=ids, status=self.status, logs=self.logs)

    def of(self, events: list[Recorded]) -> list[Recorded]:
        """Those of *events*, which are of jobs that belong here, that are told."""
        return (
            [each for each in events if isinstance(each.event, LogWritten)] if self.logs else events
        )


_EVERYTHING = JobFilter()


class JobLookup:
    """Jobs as far as selections of facts ask: by what never changes, so any version will do."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        # Not in the jobs' own cache: that is for deciding, and drops a job that has ended.
        self._kept: LRUCache[Job] = LRUCache(entries_max=20_000, bytes_max=20_000)

    async def of(self, batch: Sequence[Recorded]) -> dict[str, Job | None]:
        """The jobs of *batch* by their ids."""
        found: dict[str, Job | None] = {}
        for each in batch:
            if each.job_id not in found:
                found[each.job_id] = self._kept.get(each.job_id) or await self._look(each)
        return found

    async def _look(self, recorded: Recorded) -> Job | None:
        if isinstance(recorded.event, JobSubmitted):
            job = evolve(None, recorded)
        elif (known := await self._jobs.glimpse(recorded.job_id)) is not None:
            job = known
        else:
            return None
        slim = Job(
            job.job_id,
            replace(job.spec, payload=None),
            job.born,
            job.created_us,
            job.version,
            job.position,
            job.updated_us,
        )
        self._kept.put(job.job_id, slim, 1)
        return slim

"""The jobs that commands have read or changed lately, folded, and appends to their streams."""

from collections.abc import Sequence

from eventjobs.cache import LRUCache
from eventjobs.domain.events import Event
from eventjobs.domain.job import JOB_BYTES, Job, evolve, fold, require_readable
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, JobUnreadable
from eventjobs.log import EventLog, NewEvent


class JobCache:
    """A stale job costs a Conflict and a read, never a wrong decision."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._jobs: LRUCache[Job] = LRUCache(20_000, 64 * 2**20, JOB_BYTES)
        #: The newest reader of each job that is being read. An append removes it, so that a read
        #: from before the append is not cached.
        self._readers: dict[str, object] = {}

    def get(self, job_id: str) -> Job | None:
        """The job, if it is in memory."""
        return self._jobs.get(job_id)

    async def load(self, job_id: str) -> Job | None:
        """The job, possibly one that lags behind the log. Raises JobUnreadable."""
        job = await self._load(job_id)
        return None if job is None else require_readable(job)

    async def load_even_parked(self, job_id: str) -> Job | None:
        """As *load*, but a parked job is returned. None also for a job whose first event is
        unreadable.
        """
        try:
            return await self._load(job_id)
        except JobUnreadable:
            return None

    async def _load(self, job_id: str) -> Job | None:
        if (job := self._jobs.get(job_id)) is None:
            self._readers[job_id] = mine = object()
            events = await self.log.read_job(job_id)
            job = fold(events)
            # False after an append, or for a newer reader: the events may be stale.
            if self._readers.get(job_id) is mine:
                del self._readers[job_id]
                if job is not None:
                    self._jobs.put(job_id, job, sum([each.size for each in events]))
        return job

    async def catch_up(self, job_id: str, job: Job | None) -> Job | None:
        """*job* with all events that are in the log now. Raises JobUnreadable."""
        if job is None:
            return await self.load(job_id)
        for recorded in await self.log.read_job(job_id, job.position):
            job = evolve(job, recorded)
        return job

    async def append(self, job: Job | None, job_id: str, event: Event, actor: str) -> Job:
        """*job* after *event*. Raises as EventLog.append does."""
        try:
            recorded = await self.log.append(job_id, job.version if job else 0, event, actor=actor)
        except BaseException:
            self._forget(job_id)
            raise
        self._readers.pop(job_id, None)
        return self._add(job, recorded)

    async def append_many(
        self, jobs: Sequence[Job | None], events: Sequence[NewEvent]
    ) -> list[Job | Conflict]:
        """Each job after its event, or the conflict. *jobs* has the job that each event follows;
        None is none, or the job after the event before.

        Raises as EventLog.append_many does.
        """
        try:
            outcomes = await self.log.append_many(events)
        except BaseException:
            for each in events:
                self._forget(each.job_id)
            raise
        after: dict[str, Job] = {}
        results: list[Job | Conflict] = []
        for job, outcome, (job_id, *_) in zip(jobs, outcomes, events, strict=True):
            if isinstance(outcome, Conflict):
                self._forget(job_id)
                results.append(outcome)
            else:
                self._readers.pop(job_id, None)
                after[job_id] = changed = self._add(job or after.get(job_id), outcome)
                results.append(changed)
        return results

    def _add(self, job: Job | None, recorded: Recorded) -> Job:
        job = evolve(job, recorded)
        if job.finished:
            self._jobs.drop(job.job_id)  # hardly any command follows the end of a job
        else:
            self._jobs.grow(job.job_id, job, recorded.size)
        return job

    def _forget(self, job_id: str) -> None:
        """It is stale, or the outcome of its append is unknown: read it next time."""
        self._jobs.drop(job_id)
        self._readers.pop(job_id, None)

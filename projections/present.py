"""The present: the jobs as of the newest folded event, in memory, and what is not written yet."""

from collections.abc import Iterable

from eventjobs.cache import LRUCache
from eventjobs.domain.job import JOB_BYTES
from eventjobs.domain.recorded import EVENT_BYTES, EVENT_COPIES, Recorded
from eventjobs.projections import read_ahead
from eventjobs.projections.change import JobChange
from eventjobs.projections.dependencies import has_dependencies
from eventjobs.projections.fold import FoldedJob
from eventjobs.projections.parked_events import ParkedEvent

JOBS_MAX = 20_000
BYTES_MAX = 64 * 2**20
#: Bytes in memory of a job and its progress, without texts.
JOB_AND_PROGRESS_BYTES = JOB_BYTES + 700


class UnwrittenChanges:
    """What has changed between two writes of the views."""

    def __init__(self) -> None:
        self.position = 0
        #: The events, without those that are parked.
        self.events: list[Recorded] = []
        self.changes: dict[str, JobChange] = {}
        self.parked: list[ParkedEvent] = []
        #: Bytes in memory of the events of jobs.
        self.memory_size = 0

    @property
    def is_full(self) -> bool:
        return len(self.events) >= read_ahead.WINDOW or self.memory_size >= read_ahead.WINDOW_BYTES

    def add(
        self,
        events: Iterable[Recorded],
        changes: Iterable[JobChange],
        parked: Iterable[ParkedEvent],
        position: int,
    ) -> None:
        for change in changes:
            job_id = change.after.job_id
            earlier = self.changes.get(job_id)
            self.changes[job_id] = change if earlier is None else earlier.followed_by(change)
            self.memory_size += EVENT_BYTES * len(change.events) + EVENT_COPIES * change.size
        self.events += events
        self.parked += parked
        self.position = position


class Present:
    """The jobs as of *position*. What was changed lately is here; the views file has the others."""

    def __init__(self, position: int, dependents: int) -> None:
        self.position = position
        #: The number of jobs that wait for others, or have a parent that they may end with.
        self.dependents = dependents
        #: How often changes were forgotten. What was read before that may be stale.
        self.epoch = 0
        self.unwritten = UnwrittenChanges()
        self._writing = UnwrittenChanges()
        self._cache: LRUCache[FoldedJob] = LRUCache(JOBS_MAX, BYTES_MAX, JOB_AND_PROGRESS_BYTES)

    def get(self, job_id: str) -> FoldedJob | None:
        """The job; None when the views file has it as it is, or there is none."""
        if (cached := self._cache.get(job_id)) is not None:
            return cached
        for window in (self.unwritten, self._writing):
            if (change := window.changes.get(job_id)) is not None:
                return change.after, change.progress
        return None

    def put(self, job_id: str, job: FoldedJob, size: int) -> None:
        """Keep a job that was read from the file, of *size* bytes."""
        self._cache.put(job_id, job, size)

    def add(
        self,
        events: Iterable[Recorded],
        changes: list[JobChange],
        parked: Iterable[ParkedEvent],
        position: int,
    ) -> None:
        """Go on to *position*, with the next events and their changes."""
        self.unwritten.add(events, changes, parked, position)
        for change in changes:
            self._cache.grow(change.after.job_id, (change.after, change.progress), change.size)
        self.dependents += _more_dependents(changes)
        self.position = position

    def begin_write(self) -> UnwrittenChanges:
        self._writing, self.unwritten = self.unwritten, UnwrittenChanges()
        return self._writing

    def end_write(self) -> None:
        self._writing = UnwrittenChanges()

    def forget_unwritten(self, position: int) -> None:
        """Go back to *position*, that of the file."""
        for window in (self._writing, self.unwritten):
            for job_id in window.changes:
                self._cache.drop(job_id)
            self.dependents -= _more_dependents(window.changes.values())
        self._writing, self.unwritten = UnwrittenChanges(), UnwrittenChanges()
        self.position = position
        self.epoch += 1


def _more_dependents(changes: Iterable[JobChange]) -> int:
    return sum(
        has_dependencies(change.after) - has_dependencies(change.before) for change in changes
    )

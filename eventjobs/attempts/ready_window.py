"""The first jobs of an order, in memory; the others stay in the table of the views."""

from collections.abc import Callable, Container, Iterable
from heapq import heapify, heappop, heappush

from eventjobs.projections.queue import WaitingJob

#: A place in an order.
Rank = tuple[int, int]
#: What an order is of: its kind, and the names that it is limited to.
Place = tuple[str, ...]
#: The horizon of a window that nothing is known of yet.
NOTHING_READ: Rank = (-(2**63), 0)


def by_rank(job: WaitingJob) -> Rank:
    return job.rank, job.born


def by_due_time(job: WaitingJob) -> Rank:
    return job.due_us, job.born


def by_branch(job: WaitingJob) -> Rank:
    """The newest parent first, so that a tree is run to the bottom before it gets broader."""
    return job.branch or 0, job.born


class WindowSize:
    """The jobs of each window of a kind: *jobs_max*, or its share of *total_max* if less."""

    def __init__(self, jobs_max: int, total_max: int) -> None:
        self._jobs_max = jobs_max
        self._total_max = total_max
        #: The number of windows that there are.
        self.windows = 0

    @property
    def jobs(self) -> int:
        return min(self._jobs_max, max(1, self._total_max // max(1, self.windows)))


class ReadyWindow:
    """Has each job of its order up to *horizon*; those behind it are in the table of the views.

    Without a horizon it has all. It is cut to *size* when it has twice as many.
    """

    __slots__ = ("_changed", "_heap", "_jobs", "_order", "_size", "horizon", "place")

    def __init__(
        self,
        place: Place,
        order: Callable[[WaitingJob], Rank],
        size: WindowSize,
        horizon: Rank | None,
    ) -> None:
        self.place = place
        self.horizon = horizon
        self._size = size
        self._order = order
        self._jobs: dict[str, WaitingJob] = {}
        #: Has jobs that were removed, too, until they come first or are too many.
        self._heap: list[tuple[Rank, WaitingJob]] = []
        #: The changes during a read of the table, which may not show them: by job id.
        self._changed: dict[str, WaitingJob | None] | None = None

    @property
    def size(self) -> int:
        """The number of jobs to read at a time."""
        return self._size.jobs

    @property
    def is_used_up(self) -> bool:
        """Whether no job is left, here or in the table."""
        return not self._jobs and self.horizon is None

    @property
    def is_read(self) -> bool:
        """Whether a read of the table is going on."""
        return self._changed is not None

    def put(self, job: WaitingJob) -> None:
        """Add *job*, or replace it. A job behind the horizon is left to the table."""
        if self._changed is not None:
            self._changed[job.job_id] = job
        rank = self._order(job)
        if self.horizon is not None and rank > self.horizon:
            self._jobs.pop(job.job_id, None)
            return
        self._jobs[job.job_id] = job
        heappush(self._heap, (rank, job))
        if len(self._jobs) > 2 * self.size:
            self._cut()

    def discard(self, job_id: str) -> None:
        if self._changed is not None:
            self._changed[job_id] = None
        if self._jobs.pop(job_id, None) is not None and len(self._heap) > 2 * len(self._jobs) + 64:
            self._heap = [(self._order(job), job) for job in self._jobs.values()]
            heapify(self._heap)

    def first(self) -> WaitingJob | None:
        """The first job here. None: a job behind the horizon, if any, is the first."""
        heap = self._heap
        while heap:
            job = heap[0][1]
            if self._jobs.get(job.job_id) is job:
                return job
            heappop(heap)
        return None

    def next_rank(self) -> Rank | None:
        """The place of the first job; the horizon when it is behind it. None without a job."""
        return self.horizon if self.first() is None else self._heap[0][0]

    def jobs(self) -> Iterable[WaitingJob]:
        return self._jobs.values()

    def lower_horizon(self, horizon: Rank | None) -> None:
        """Leave the jobs behind *horizon* to the table; None changes nothing."""
        if horizon is None or (self.horizon is not None and self.horizon <= horizon):
            return
        self.horizon = horizon
        self._heap = [each for each in self._live() if each[0] <= horizon]
        self._jobs = {job.job_id: job for _, job in self._heap}

    def _cut(self) -> None:
        self.lower_horizon(self._live()[self.size - 1][0])

    def _live(self) -> list[tuple[Rank, WaitingJob]]:
        return sorted((self._order(job), job) for job in self._jobs.values())

    # --- reading the table

    def begin_read(self) -> Rank:
        """Begin to read the table. Returns the place behind which to read."""
        assert self.horizon is not None
        self._changed = {}
        return self.horizon

    def end_read(
        self, horizon: Rank, page: list[WaitingJob] | None, limit: int, skipped: Container[str]
    ) -> None:
        """Add *page*, up to *limit* jobs behind *horizon*; None if the read failed.

        Jobs that are *skipped*, or have changed since the begin, are as they were put here.
        """
        changed, self._changed = self._changed, None
        if page is None or changed is None or self.horizon != horizon:
            return  # cut meanwhile: there is a nearer place to read behind
        self.horizon = self._order(page[-1]) if len(page) >= limit else None
        for job in page:
            if job.job_id not in changed and job.job_id not in skipped:
                self.put(job)
        for changed_job in changed.values():
            if changed_job is not None:
                self.put(changed_job)

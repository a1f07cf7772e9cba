"""A job source: a runner claims jobs from it and records outcomes through it. Local or HTTP."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from eventjobs.backoff import NO_JITTER, Backoff
from eventjobs.clock import Clock
from eventjobs.domain.decisions import Report
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Outcome, large_result
from eventjobs.domain.spec import JobSpec
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.files import ArtifactFiles

#: The delays between attempts to record what the log has not accepted.
RECORD_BACKOFF = Backoff(0.1, max_s=5.0, jitter=NO_JITTER)


class Capacity(NamedTuple):
    """How many jobs of *types* a runner can start now, and how many more it prefetches.

    Of the types in *children_only*, it takes only jobs with a parent. Prefetched jobs start when a
    running one ends. A job that holds a concurrency limit is never prefetched.
    """

    types: Collection[str]
    free: int
    prefetch: int = 0
    children_only: Collection[str] = ()


#: Why a job source withdraws an attempt: the job was cancelled, or its lease was lost.
WithdrawReason = Literal["cancelled", "lost"]


class ClaimableJob(NamedTuple):
    """A job that may be claimed. *claim* returns it, or None if another claim was first."""

    job_id: str
    type: str
    claim: Callable[[], Awaitable[Job | None]]


class JobSource(Protocol):
    """The jobs of one service, for a runner."""

    @property
    def worker(self) -> str:
        """The name of this worker, which claims and reports carry. Random at each start."""

    @property
    def clock(self) -> Clock: ...

    @property
    def files(self) -> ArtifactFiles: ...

    @property
    def calls(self) -> CallPolicy:
        """The breakers and the backoff that all handlers share."""

    async def next_jobs(self, capacities: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        """Up to *limit* jobs for *capacities*. May wait, and may return none."""

    def interrupt_wait(self) -> None:
        """Make a waiting *next_jobs* return at once: the capacities have changed."""

    def on_stop(self, stop: Callable[[str, int, WithdrawReason], object]) -> None:
        """Call *stop* with (job id, attempt, reason) when a running attempt is to stop.

        An attempt that is "lost" is no longer this worker's: its outcome does not count.
        """

    async def report(self, job: Job, report: Report) -> None:
        """Record a report of *job*'s attempt. Raises StaleAttempt, LogError."""

    async def steps(self, job: Job) -> dict[str, Any]:
        """The stored results of completed steps, by name, in order of completion."""

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        """Submit *spec* as the child *name* of *job*, and return its id.

        An existing child is left alone. If it failed or was cancelled before this attempt of *job*
        started, it is queued again. Raises what submitting raises.
        """

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended; its `status`, `result`, `error` and `file`.

        `file` is the [sha256, bytes] of a result that became an artifact, which is in *files* then,
        else None. Raises JobNotFound.
        """

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome of *job*'s attempt. Raises Rejected, LogError, OSError, TooLarge."""


def file_of(result: Any, artifacts: Iterable[tuple[str, str, int]]) -> list[Any] | None:
    """[sha256, bytes] of the artifact that a large *result* became, else None.

    *artifacts* are (name, sha256, bytes).
    """
    for name, sha256, size in artifacts:
        if name == RESULT and result == large_result(size):
            return [sha256, size]
    return None

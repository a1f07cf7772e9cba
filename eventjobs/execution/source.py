"""Where a runner gets its work, and takes what comes of it: this service, or one elsewhere."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from eventjobs.clock import Clock
from eventjobs.domain.decisions import Report
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Outcome, large_result
from eventjobs.domain.spec import JobSpec
from eventjobs.handlers.caller import CallPolicy
from eventjobs.handlers.files import Files


class Capacity(NamedTuple):
    """How many more jobs of these types somebody can take, and how many beyond that; of some only
    such as have a parent.

    What is taken *ahead* begins only when another has ended. It must keep nothing from others that
    they could use by then.
    """

    types: Collection[str]
    free: int
    prefetch: int = 0
    children_only: Collection[str] = ()


#: Why a desk has an attempt stopped.
WithdrawReason = Literal["cancelled", "lost"]


class ClaimableJob(NamedTuple):
    """A job that may be had: *claim* gives it, unless somebody was faster."""

    job_id: str
    type: str
    claim: Callable[[], Awaitable[Job | None]]


class JobSource(Protocol):
    """What a runner asks of the service whose jobs it runs."""

    @property
    def worker(self) -> str:
        """Who runs the jobs: random at each start."""

    @property
    def clock(self) -> Clock: ...

    @property
    def files(self) -> Files: ...

    @property
    def calls(self) -> CallPolicy:
        """What handlers share when they call something that may fail."""

    async def next_jobs(self, rooms: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        """Up to *limit* jobs that fit into *rooms*. With none, returns when asking makes sense."""

    def interrupt_wait(self) -> None:
        """Let *offers* return at once, if it waits: there is more room, or no more is wanted."""

    def on_stop(self, tell: Callable[[str, int, WithdrawReason], object]) -> None:
        """Call *tell* with (job id, attempt, why) when a running attempt is to stop.

        One that is lost is somebody else's by now, or nobody's: nothing it comes to counts.
        """

    async def report(self, job: Job, report: Report) -> None:
        """Record what *job*'s attempt tells. Raises StaleAttempt, LogError."""

    async def steps(self, job: Job) -> dict[str, Any]:
        """The results of the steps that need no repeating, in order, by name."""

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        """Submit *spec* as the child *name* of *job*; its id. One that is there is left alone; but
        one that ended in vain before this attempt of *job* began is queued again. Raises what
        submitting raises.
        """

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
        """`status`, `result` and `error` of another job, once it has ended. Raises JobNotFound.

        `file` is the [sha256, bytes] of a result that became an artifact, and is in *files* then.
        """

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        """Record how *job*'s attempt ended. Raises Rejected, LogError, OSError, TooLarge."""


def file_of(result: Any, artifacts: Iterable[tuple[str, str, int]]) -> list[Any] | None:
    """Which of a job's *artifacts* (name, sha256, bytes) *result* became, if it is so large."""
    for name, sha256, size in artifacts:
        if name == RESULT and result == large_result(size):
            return [sha256, size]
    return None

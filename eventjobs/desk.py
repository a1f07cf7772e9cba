"""Where a runner gets its work, and takes what comes of it: this service, or one elsewhere."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from eventjobs.artifacts import Artifacts, Files
from eventjobs.calling import Calls
from eventjobs.claims import Claims, Room
from eventjobs.clock import Clock
from eventjobs.errors import JobNotFound
from eventjobs.events import JobSpec, StepCompleted
from eventjobs.job import Job, Report, Status
from eventjobs.jobs import Jobs
from eventjobs.jobs import Outcome as Submitted
from eventjobs.outcomes import RESULT, Outcome, large_result
from eventjobs.settlement import Settlement
from projections import Views
from projections.touched import Touched

#: Why a desk has an attempt stopped.
StopWhy = Literal["cancelled", "lost"]


class Offer(NamedTuple):
    """A job that may be had: *claim* gives it, unless somebody was faster."""

    job_id: str
    type: str
    claim: Callable[[], Awaitable[Job | None]]


class Desk(Protocol):
    """What a runner asks of the service whose jobs it runs."""

    @property
    def worker(self) -> str:
        """Who runs the jobs: random at each start."""

    @property
    def clock(self) -> Clock: ...

    @property
    def files(self) -> Files: ...

    @property
    def calls(self) -> Calls:
        """What handlers share when they call something that may fail."""

    async def offers(self, rooms: Sequence[Room], limit: int) -> list[Offer]:
        """Up to *limit* jobs that fit into *rooms*. With none, returns when asking makes sense."""

    def hurry(self) -> None:
        """Let *offers* return at once, if it waits: there is more room, or no more is wanted."""

    def on_stop(self, tell: Callable[[str, int, StopWhy], object]) -> None:
        """Call *tell* with (job id, attempt, why) when a running attempt is to stop.

        One that is lost is somebody else's by now, or nobody's: nothing it comes to counts.
        """

    async def report(self, job: Job, report: Report) -> None:
        """Record what *job*'s attempt tells. Raises StaleAttempt, LogError."""

    async def steps(self, job: Job) -> dict[str, Any]:
        """The results of the steps that need no repeating, in order, by name."""

    async def submit(self, job: Job, name: str, spec: JobSpec) -> str:
        """Submit *spec* as the child *name* of *job*; its id. One that is there is left alone; but
        one that ended in vain before this attempt of *job* began is queued again. Raises what
        submitting raises.
        """

    async def end_of(self, job: Job, job_id: str) -> dict[str, Any]:
        """`status`, `result` and `error` of another job, once it has ended. Raises JobNotFound.

        `file` is the [sha256, bytes] of a result that became an artifact, and is in *files* then.
        """

    async def settle(self, job: Job, outcome: Outcome) -> None:
        """Record how *job*'s attempt ended. Raises Rejected, LogError, OSError, TooLarge."""


#: Submits a specification under an id, in somebody's name.
Accept = Callable[[JobSpec, str, str], Awaitable[Submitted]]


class LocalDesk:
    """This service's own: straight to the log."""

    def __init__(
        self,
        worker: str,
        jobs: Jobs,
        views: Views,
        claims: Claims,
        artifacts: Artifacts,
        settlement: Settlement,
        calls: Calls,
        accept: Accept,
    ) -> None:
        self.worker = worker
        self._accept = accept
        self.clock: Clock = jobs.clock
        self.calls = calls
        self.files: Files = artifacts
        self._jobs = jobs
        self._views = views
        self._claims = claims
        self._settlement = settlement
        self._news = claims.news()

    async def offers(self, rooms: Sequence[Room], limit: int) -> list[Offer]:
        self._news.clear()
        now_us = self._claims.now_us()
        picked = await self._claims.pick(now_us, rooms, limit)
        if not picked:
            await self._claims.wait(self._news, now_us, rooms if limit > 0 else ())
        return [self._offer(job_id, type) for job_id, type in picked]

    def _offer(self, job_id: str, type: str) -> Offer:
        return Offer(job_id, type, lambda: self._claims.claim(job_id, worker=self.worker))

    def hurry(self) -> None:
        self._news.set()

    def on_stop(self, tell: Callable[[str, int, StopWhy], object]) -> None:
        def noticed(touched: list[Touched]) -> None:
            for each in touched:
                job = each.after
                if job.cancel_requested_us is not None and job.status == Status.RUNNING:
                    tell(job.job_id, job.attempt, "cancelled")

        self._views.listen(noticed)

    async def report(self, job: Job, report: Report) -> None:
        await self._jobs.report(job.job_id, report, actor=self.worker)

    async def steps(self, job: Job) -> dict[str, Any]:
        return await steps_of(self._jobs, job)

    async def submit(self, job: Job, name: str, spec: JobSpec) -> str:
        child_id = await self._jobs.child_id(job, name)
        child = (await self._accept(spec, child_id, self.worker)).job
        if child.can_retry and (child.finished_us or 0) < (job.started_us or 0):
            await self._jobs.retry(child_id, "its parent runs again", actor=self.worker)
        return child_id

    async def end_of(self, job: Job, job_id: str) -> dict[str, Any]:
        log = self._jobs.log
        while True:
            head = log.head
            other = await self._jobs.current(job_id)
            if other is None:
                raise JobNotFound(f"there is no job {job_id}")
            if other.finished:
                files = [(each.name, each.sha256, each.size) for each in other.artifacts]
                end = {"status": other.status, "result": other.result, "error": other.error}
                return end | {"file": file_of(end["result"], files)}
            await log.wait(head, job_id)

    async def settle(self, job: Job, outcome: Outcome) -> None:
        await self._settlement.settle(job, outcome, actor=self.worker)


async def steps_of(jobs: Jobs, job: Job) -> dict[str, Any]:
    """What *job*'s completed steps came to, in order, by name."""
    if not job.steps:
        return {}
    first = min(each.position for each in job.steps)
    found = {
        each.position: each.event.result
        for each in await jobs.log.read_job(job.job_id, first - 1)
        if isinstance(each.event, StepCompleted)
    }
    return {each.name: found[each.position] for each in job.steps}


def file_of(result: Any, artifacts: Iterable[tuple[str, str, int]]) -> list[Any] | None:
    """Which of a job's *artifacts* (name, sha256, bytes) *result* became, if it is so large."""
    for name, sha256, size in artifacts:
        if name == RESULT and result == large_result(size):
            return [sha256, size]
    return None

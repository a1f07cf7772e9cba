"""The job source of a runner in the service itself."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock
from eventjobs.commands.jobs import CommandResult as Submitted
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import StepCompleted
from eventjobs.domain.job import Job, Status
from eventjobs.domain.outcomes import Outcome
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobNotFound
from eventjobs.execution.source import Capacity, ClaimableJob, WithdrawReason, file_of
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.projections.change import JobChange
from eventjobs.projections.views import Views
from eventjobs.storage.artifacts import Artifacts

#: Submits a specification under an id, in somebody's name.
Accept = Callable[[JobSpec, str, str], Awaitable[Submitted]]


class LocalJobSource:
    """This service's own: straight to the log."""

    def __init__(
        self,
        worker: str,
        jobs: Jobs,
        views: Views,
        claims: ClaimQueue,
        artifacts: Artifacts,
        settlement: OutcomeRecorder,
        calls: CallPolicy,
        accept: Accept,
    ) -> None:
        self.worker = worker
        self._accept = accept
        self.clock: Clock = jobs.clock
        self.calls = calls
        self.files: ArtifactFiles = artifacts
        self._jobs = jobs
        self._views = views
        self._claims = claims
        self._recorder = settlement
        self._wake = claims.subscribe()

    async def next_jobs(self, rooms: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        self._wake.clear()
        now_us = self._claims.now_us()
        picked = await self._claims.select(now_us, rooms, limit)
        if not picked:
            await self._claims.wait_for_work(self._wake, now_us, rooms if limit > 0 else ())
        return [self._claimable(job_id, type) for job_id, type in picked]

    def _claimable(self, job_id: str, type: str) -> ClaimableJob:
        return ClaimableJob(job_id, type, lambda: self._claims.claim(job_id, worker=self.worker))

    def interrupt_wait(self) -> None:
        self._wake.set()

    def on_stop(self, tell: Callable[[str, int, WithdrawReason], object]) -> None:
        def noticed(touched: list[JobChange]) -> None:
            for each in touched:
                job = each.after
                if job.cancel_requested_us is not None and job.status == Status.RUNNING:
                    tell(job.job_id, job.attempt, "cancelled")

        self._views.listen(noticed)

    async def report(self, job: Job, report: Report) -> None:
        await self._jobs.report(job.job_id, report, actor=self.worker)

    async def steps(self, job: Job) -> dict[str, Any]:
        return await step_results(self._jobs, job)

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        child_id = await self._jobs.child_id(job, name)
        child = (await self._accept(spec, child_id, self.worker)).job
        if child.can_retry and (child.finished_us or 0) < (job.started_us or 0):
            await self._jobs.retry(child_id, "its parent runs again", actor=self.worker)
        return child_id

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
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

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        await self._recorder.record(job, outcome, actor=self.worker)


async def step_results(jobs: Jobs, job: Job) -> dict[str, Any]:
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

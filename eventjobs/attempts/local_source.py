"""The job source of a runner in the service itself: it reads and writes the log directly."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.clock import Clock
from eventjobs.commands.jobs import Jobs
from eventjobs.commands.submissions import Submissions
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import StepCompleted
from eventjobs.domain.job import Job, Status
from eventjobs.domain.outcomes import Outcome
from eventjobs.domain.spec import JobSpec
from eventjobs.execution.source import Capacity, ClaimableJob, WithdrawReason, file_of
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.projections import JobChange, Views
from eventjobs.storage.artifacts import Artifacts


class LocalJobSource:
    """A JobSource of this service's own jobs, for a runner in its process."""

    def __init__(
        self,
        worker: str,
        jobs: Jobs,
        views: Views,
        claims: ClaimQueue,
        artifacts: Artifacts,
        recorder: OutcomeRecorder,
        calls: CallPolicy,
        submissions: Submissions,
    ) -> None:
        self.worker = worker
        self._submissions = submissions
        self.clock: Clock = jobs.clock
        self.calls = calls
        self.files: ArtifactFiles = artifacts
        self._jobs = jobs
        self._views = views
        self._claims = claims
        self._recorder = recorder
        self._wake = claims.waiters.subscribe()

    async def next_jobs(self, capacities: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        self._wake.clear()
        selected = await self._claims.select(capacities, limit)
        if not selected:
            await self._claims.wait_for_work(self._wake, capacities if limit > 0 else ())
        return [self._claimable(job_id, type) for job_id, type in selected]

    def _claimable(self, job_id: str, type: str) -> ClaimableJob:
        return ClaimableJob(job_id, type, lambda: self._claims.claim(job_id, worker=self.worker))

    def interrupt_wait(self) -> None:
        self._wake.set()

    def on_stop(self, stop: Callable[[str, int, WithdrawReason], object]) -> None:
        def stop_cancelled(changes: list[JobChange]) -> None:
            for change in changes:
                job = change.after
                if job.cancel_requested_us is not None and job.status == Status.RUNNING:
                    stop(job.job_id, job.attempt, "cancelled")

        self._views.listen(stop_cancelled)

    async def report(self, job: Job, report: Report) -> None:
        await self._jobs.report(job.job_id, report, actor=self.worker)

    async def steps(self, job: Job) -> dict[str, Any]:
        return await step_results(self._jobs, job)

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        child_id = await self._jobs.child_id(job, name)
        if spec.owner is None and (owner := job.spec.owner) is not None:
            # A child that an earlier version submitted has no owner.
            child = await self._jobs.load(child_id)
            spec = replace(spec, owner=owner if child is None else child.spec.owner)
        submitted = await self._submissions.submit(spec, actor=self.worker, job_id=child_id)
        child = submitted.job
        if child.can_retry and (child.finished_us or 0) < (job.started_us or 0):
            await self._jobs.retry(child_id, "its parent runs again", actor=self.worker)
        return child_id

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
        ended = await self._jobs.wait_until_finished(job_id)
        files = [(each.name, each.sha256, each.size) for each in ended.artifacts]
        end = {"status": ended.status, "result": ended.result, "error": ended.error}
        return end | {"file": file_of(end["result"], files)}

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        await self._recorder.record(job, outcome, actor=self.worker)


async def step_results(jobs: Jobs, job: Job) -> dict[str, Any]:
    """The results of *job*'s completed steps, by name and in order."""
    if not job.steps:
        return {}
    first = min(step.position for step in job.steps)
    results = {
        recorded.position: recorded.event.result
        for recorded in await jobs.log.read_job(job.job_id, first - 1)
        if isinstance(recorded.event, StepCompleted)
    }
    return {step.name: results[step.position] for step in job.steps}

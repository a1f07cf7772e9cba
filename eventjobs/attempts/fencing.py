"""The fence: what attempts elsewhere report counts only while they hold the job."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import orjson

from eventjobs.attempts.leases import LeaseMonitor, StopReason, outcome_of_stop
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    ProgressReported,
)
from eventjobs.domain.job import Job, Status
from eventjobs.domain.outcomes import (
    RESULT,
    AttemptHolder,
    Cancelled,
    Failed,
    Outcome,
    Succeeded,
    large_result,
)
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JSON
from eventjobs.errors import JobNotFound, LogError, Rejected, StaleAttempt, WrongState

#: How an attempt may end by itself, as its holder reports it.
End = Literal["complete", "fail", "cancelled", "release"]

#: What a report of an end becomes in the log: a job that was asked to stop is cancelled, and one
#: that stopped because its time was up has failed.
_END_EVENTS: dict[str, tuple[type, ...]] = {
    "complete": (JobCompleted,),
    "fail": (AttemptFailed, JobCancelled),
    "cancelled": (JobCancelled, AttemptFailed),
    "release": (AttemptReleased, JobCancelled),
}


class ReportResult(NamedTuple):
    """The job after a report, why whoever sent it is to stop, and whether it was there already."""

    job: Job
    stop: StopReason | None = None
    repeated: bool = False


class AttemptReports:
    """Every method raises StaleAttempt for a holder that is none (any longer), and leaves a
    LateReportRefused for one that was; JobNotFound; LogError.

    A report is judged by the log alone, so it counts whatever was restarted meanwhile. *services*
    are the names of external services, by type.
    """

    def __init__(
        self,
        jobs: Jobs,
        settlement: OutcomeRecorder,
        leases: LeaseMonitor,
        services: Mapping[str, str],
    ) -> None:
        self._jobs = jobs
        self._recorder = settlement
        self._leases = leases
        self._services = services

    async def unanswered_claims(self, worker: str, known: Collection[str]) -> list[Job]:
        """What *worker* holds and does not know of, since the answer to its claim was lost."""
        found = []
        for job_id in self._leases.held_by(worker):
            if job_id not in known:
                job = await self._jobs.load(job_id)
                if job is not None and _holds(job, AttemptHolder(job_id, job.attempt, worker)):
                    self._leases.renew(job)
                    found.append(job)
        return found

    async def heartbeat(self, holder: AttemptHolder) -> ReportResult:
        """Renew the lease of *holder*, and tell it whether to stop."""
        return self._renew(await self._require_held(holder, "heartbeat"))

    async def child_id(self, holder: AttemptHolder, name: str) -> str:
        """The id of the child *name* of the job that *holder* has."""
        job = await self._require_held(holder, "submit")
        self._leases.renew(job)
        return await self._jobs.child_id(job, name)

    async def report(
        self, holder: AttemptHolder, kind: str, reports: Sequence[Report]
    ) -> ReportResult:
        """Record *reports* in order; that renews the lease, too."""
        job = await self._require_held(holder, kind)
        for each in reports:
            try:
                job = await self._jobs.report(job.job_id, each, actor=self._actor(job, holder))
            except StaleAttempt:
                await self._record_refusal(holder, kind)
                raise
        return self._renew(job, moved=any(isinstance(each, ProgressReported) for each in reports))

    async def record_outcome(
        self, holder: AttemptHolder, end: End, outcome: Outcome
    ) -> ReportResult:
        """End the attempt. The same report again changes nothing, and is no error: its answer
        may have been lost. Raises WrongState when it was cancelled and nobody asked for that.
        """
        try:
            job = await self._require_held(holder, end)
            if isinstance(outcome, Cancelled):
                outcome = self._outcome_of_stop(job)
            actor = self._actor(job, holder)
            return ReportResult(await self._recorder.record(job, outcome, actor=actor))
        except StaleAttempt:
            _, ended = await self._past_attempt(holder)
            now = await self._jobs.load_newest(holder.job_id)
            if (
                now is not None
                and ended is not None
                and _is_repeat(now, holder, ended, end, outcome)
            ):
                return ReportResult(now, repeated=True)
            await self._record_refusal(holder, end)
            raise

    async def _require_held(self, holder: AttemptHolder, kind: str) -> Job:
        """The job, which *holder* holds."""
        job = await self._jobs.load(holder.job_id)
        if not _holds(job, holder):
            job = await self._jobs.load_newest(
                holder.job_id
            )  # what was kept may have been overtaken
        if job is None:
            raise JobNotFound
        if _holds(job, holder):
            return job
        if kind not in _END_EVENTS:
            await self._record_refusal(holder, kind)
        raise StaleAttempt(
            f"attempt {holder.attempt} of {holder.worker or 'the service'} does not hold the job "
            "(any longer)"
        )

    def _actor(self, job: Job, holder: AttemptHolder) -> str:
        """A service may report before it is on record that it took the job."""
        if holder.worker is not None:
            return holder.worker
        if job.silence_s is not None and job.worker is not None:
            return job.worker
        return self._services.get(job.spec.type, "service")

    def _renew(self, job: Job, *, moved: bool = False) -> ReportResult:
        return ReportResult(job, self._leases.renew(job, moved=moved))

    def _outcome_of_stop(self, job: Job) -> Outcome:
        if job.cancel_requested_us is not None:
            return Cancelled()
        if (outcome := outcome_of_stop(job, self._leases.renew(job))) is None:
            raise WrongState("nobody asked this attempt to stop; release it, or fail it")
        return outcome

    async def _record_refusal(self, holder: AttemptHolder, kind: str) -> None:
        """Leave evidence, once; a heartbeat that crossed the attempt's own end is none."""
        held, ended = await self._past_attempt(holder)
        if not held or (kind == "heartbeat" and ended is not None):
            return
        # That it is refused does not depend on whether it can be written down.
        with suppress(Rejected, LogError):
            actor = holder.worker or "service"
            await self._jobs.refuse(holder.job_id, holder.attempt, kind, actor=actor)

    async def _past_attempt(self, holder: AttemptHolder) -> tuple[bool, Recorded | None]:
        """Whether *holder* ever held the attempt, and how it ended, if it did so by *holder*."""
        held = False
        for each in await self._jobs.log.read_job(holder.job_id):
            event = each.event
            match event:
                case AttemptStarted(attempt=holder.attempt, worker=worker):
                    held = holder.worker in (None, worker)
                case JobCompleted() | AttemptFailed() | AttemptReleased() | JobCancelled():
                    if event.attempt == holder.attempt and holder.worker in (None, each.actor):
                        return held, each
        return held, None


def _holds(job: Job | None, holder: AttemptHolder) -> bool:
    if job is None or job.status != Status.RUNNING or job.attempt != holder.attempt:
        return False
    # Without a lease it runs here, and no worker elsewhere can speak for it.
    return holder.worker is None or (job.lease_s is not None and job.worker == holder.worker)


def _is_repeat(
    job: Job, holder: AttemptHolder, ended: Recorded, end: End, outcome: Outcome
) -> bool:
    """Whether *ended* is what became of this report; of a service, to the letter."""
    event = ended.event
    if holder.worker is not None:
        return isinstance(event, _END_EVENTS[end])
    match event, outcome:
        case JobCompleted(result=kept), Succeeded(result=given):
            return kept == given or _is_stored_result(job, given)
        case AttemptFailed(), Failed():
            told = event.code, event.message, event.retryable
            return told == (outcome.code, outcome.message, outcome.retryable)
    return False


def _is_stored_result(job: Job, result: JSON) -> bool:
    """Whether the *job* was completed with *result*, as an artifact since it is large."""
    encoded = orjson.dumps(result)
    sha256 = hashlib.sha256(encoded).hexdigest()
    stored = {each.name: each.sha256 for each in job.artifacts}
    return job.result == large_result(len(encoded)) and stored.get(RESULT) == sha256

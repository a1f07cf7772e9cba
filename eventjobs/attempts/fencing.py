"""Fencing: a remote attempt's reports count only while it holds its job.

The attempt number is the fencing token. Design: docs/internals/leases.md.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import orjson

from eventjobs.attempts.leases import LeaseMonitor, RemoteStopReason
from eventjobs.attempts.recorder import OutcomeRecorder
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import (
    AttemptEnd,
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
from eventjobs.execution.results import outcome_of_stop

#: How an attempt can end by a report of its holder.
End = Literal["complete", "fail", "cancelled", "release"]

#: The events that a reported end can become. A job with a cancel request ends as cancelled, and an
#: attempt that stopped because of a limit ends as failed.
_END_EVENTS: dict[str, tuple[type, ...]] = {
    "complete": (JobCompleted,),
    "fail": (AttemptFailed, JobCancelled),
    "cancelled": (JobCancelled, AttemptFailed),
    "release": (AttemptReleased, JobCancelled),
}


class ReportResult(NamedTuple):
    """The job after a report, why its attempt has to stop, and whether the report is a repeat."""

    job: Job
    stop: RemoteStopReason | None = None
    is_repeat: bool = False


class AttemptReports:
    """Takes the reports of remote attempts. *services* are the names of external services, by type.

    Raises StaleAttempt when the reporter does not hold the attempt. If it once did, a
    LateReportRefused event is recorded. Also raises JobNotFound and LogError. A report is judged by
    the log alone, so a restart of the service or of the worker does not matter.
    """

    def __init__(
        self,
        jobs: Jobs,
        recorder: OutcomeRecorder,
        leases: LeaseMonitor,
        services: Mapping[str, str],
    ) -> None:
        self._jobs = jobs
        self._recorder = recorder
        self._leases = leases
        self._services = services

    async def unanswered_claims(self, worker: str, held_ids: Collection[str]) -> list[Job]:
        """The jobs that *worker* has claimed besides *held_ids*: the response of that claim was
        lost.
        """
        jobs = []
        for job_id in self._leases.held_by(worker):
            if job_id not in held_ids:
                job = await self._jobs.load(job_id)
                if job is not None and _holds(job, AttemptHolder(job_id, job.attempt, worker)):
                    self._leases.renew(job)
                    jobs.append(job)
        return jobs

    async def heartbeat(self, holder: AttemptHolder) -> ReportResult:
        """Renew the lease of *holder*."""
        return self._renew(await self._require_held(holder, "heartbeat"))

    async def child_id(self, holder: AttemptHolder, name: str) -> str:
        """The id of the child *name* of the job that *holder* has. Renews the lease."""
        job = await self._require_held(holder, "submit")
        self._leases.renew(job)
        return await self._jobs.child_id(job, name)

    async def report(
        self, holder: AttemptHolder, kind: str, reports: Sequence[Report]
    ) -> ReportResult:
        """Record *reports* in order. Renews the lease."""
        job = await self._require_held(holder, kind)
        for report in reports:
            try:
                job = await self._jobs.report(job.job_id, report, actor=self._actor(job, holder))
            except StaleAttempt:
                await self._record_refusal(holder, kind)
                raise
        has_progress = any(isinstance(each, ProgressReported) for each in reports)
        return self._renew(job, has_progress=has_progress)

    async def record_outcome(
        self, holder: AttemptHolder, end: End, outcome: Outcome
    ) -> ReportResult:
        """End the attempt. A repeat changes nothing and is no error: the first response may have
        been lost. Raises WrongState for *cancelled* when the attempt did not have to stop.
        """
        try:
            job = await self._require_held(holder, end)
            if isinstance(outcome, Cancelled):
                outcome = self._outcome_of_stop(job)
            actor = self._actor(job, holder)
            return ReportResult(await self._recorder.record(job, outcome, actor=actor))
        except StaleAttempt:
            _, ended = await self._past_attempt(holder)
            current = await self._jobs.current(holder.job_id)
            if current is not None and _is_repeat(current, holder, ended, end, outcome):
                return ReportResult(current, is_repeat=True)
            await self._record_refusal(holder, end)
            raise

    async def _require_held(self, holder: AttemptHolder, kind: str) -> Job:
        """The job that *holder* holds."""
        job = await self._jobs.load(holder.job_id)
        if not _holds(job, holder):
            job = await self._jobs.current(holder.job_id)  # the cached job may be stale
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
        if holder.worker is not None:
            return holder.worker
        if job.silence_s is not None and job.worker is not None:
            return job.worker
        # An external service may report before its AttemptHandedOver is recorded.
        return self._services.get(job.spec.type, "service")

    def _renew(self, job: Job, *, has_progress: bool = False) -> ReportResult:
        return ReportResult(job, self._leases.renew(job, has_progress=has_progress))

    def _outcome_of_stop(self, job: Job) -> Outcome:
        if job.cancel_requested_us is not None:
            return Cancelled()
        if (reason := self._leases.renew(job)) is None:
            raise WrongState("this attempt was not asked to stop; release it, or fail it")
        return outcome_of_stop(job, reason)

    async def _record_refusal(self, holder: AttemptHolder, kind: str) -> None:
        """Record a LateReportRefused, once for an attempt and kind. A heartbeat that was under way
        when the attempt ended by its own report is not recorded.
        """
        held, ended = await self._past_attempt(holder)
        if not held or (kind == "heartbeat" and ended is not None):
            return
        # The report is refused even if that cannot be recorded.
        with suppress(Rejected, LogError):
            actor = holder.worker or "service"
            await self._jobs.refuse(holder.job_id, holder.attempt, kind, actor=actor)

    async def _past_attempt(self, holder: AttemptHolder) -> tuple[bool, Recorded | None]:
        """Whether *holder* ever held the attempt, and the event by which *holder* ended it."""
        held = False
        for recorded in await self._jobs.log.read_job(holder.job_id):
            event = recorded.event
            match event:
                case AttemptStarted(attempt=holder.attempt, worker=worker):
                    held = holder.worker in (None, worker)
                case _ if isinstance(event, AttemptEnd):
                    if event.attempt == holder.attempt and holder.worker in (None, recorded.actor):
                        return held, recorded
        return held, None


def _holds(job: Job | None, holder: AttemptHolder) -> bool:
    if job is None or job.status != Status.RUNNING or job.attempt != holder.attempt:
        return False
    # An attempt without a lease runs in the service. No remote worker can report for it.
    return holder.worker is None or (job.lease_s is not None and job.worker == holder.worker)


def _is_repeat(
    job: Job, holder: AttemptHolder, ended: Recorded | None, end: End, outcome: Outcome
) -> bool:
    """Whether *ended* is the event of an earlier, equal report. The outcome itself is compared for
    an external service only.
    """
    if ended is None:
        return False
    event = ended.event
    if holder.worker is not None:
        return isinstance(event, _END_EVENTS[end])
    match event, outcome:
        case JobCompleted(result=recorded), Succeeded(result=result):
            return recorded == result or _is_stored_result(job, result)
        case AttemptFailed(), Failed():
            return (event.code, event.message, event.retryable) == (
                outcome.code,
                outcome.message,
                outcome.retryable,
            )
    return False


def _is_stored_result(job: Job, result: JSON) -> bool:
    """Whether the *job* completed with *result*, stored as an artifact because it is large."""
    encoded = orjson.dumps(result)
    sha256 = hashlib.sha256(encoded).hexdigest()
    stored = {each.name: each.sha256 for each in job.artifacts}
    return job.result == large_result(len(encoded)) and stored.get(RESULT) == sha256

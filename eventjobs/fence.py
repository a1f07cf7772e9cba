"""The fence: what attempts elsewhere report counts only while they hold the job."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from eventjobs.errors import JobNotFound, LogError, Rejected, StaleAttempt, WrongState
from eventjobs.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    ProgressReported,
    Recorded,
)
from eventjobs.job import Job, Report, Status
from eventjobs.jobs import Jobs
from eventjobs.leases import Leases, Told, interrupted
from eventjobs.outcomes import Cancelled, Outcome
from eventjobs.settlement import Settlement

#: How an attempt may end by itself, as its holder reports it.
End = Literal["complete", "fail", "cancelled", "release"]

#: What a report of an end becomes in the log: a job that was asked to stop is cancelled, and one
#: that stopped because its time was up has failed.
_RECORDED: dict[str, tuple[type, ...]] = {
    "complete": (JobCompleted,),
    "fail": (AttemptFailed, JobCancelled),
    "cancelled": (JobCancelled, AttemptFailed),
    "release": (AttemptReleased, JobCancelled),
}


class Holder(NamedTuple):
    """Who reports: the attempt is the fencing token, and the worker the one that claimed it."""

    job_id: str
    attempt: int
    worker: str


class Fence:
    """Every method raises StaleAttempt for a holder that is none (any longer), and leaves a
    LateReportRefused for one that was; JobNotFound; LogError.
    """

    def __init__(self, jobs: Jobs, settlement: Settlement, leases: Leases) -> None:
        self._jobs = jobs
        self._settlement = settlement
        self._leases = leases

    async def lost_claims(self, worker: str, known: Collection[str]) -> list[Job]:
        """What *worker* holds and does not know of, since the answer to its claim was lost."""
        found = []
        for job_id in self._leases.held_by(worker):
            if job_id not in known:
                job = await self._jobs.load(job_id)
                if job is not None and _holds(job, Holder(job_id, job.attempt, worker)):
                    self._heard(job)
                    found.append(job)
        return found

    async def heard(self, holder: Holder) -> Told:
        """Renew the lease of *holder*, and tell it whether to stop."""
        return self._heard(await self._held(holder, "heartbeat"))

    async def report(self, holder: Holder, kind: str, reports: Sequence[Report]) -> Told:
        """Record *reports* in order; that renews the lease, too."""
        job = await self._held(holder, kind)
        for each in reports:
            try:
                job = await self._jobs.report(holder.job_id, each, actor=holder.worker)
            except StaleAttempt:
                await self._refuse(holder, kind)
                raise
        return self._heard(job, moved=any(isinstance(each, ProgressReported) for each in reports))

    async def settle(self, holder: Holder, end: End, outcome: Outcome) -> None:
        """End the attempt. The same report again changes nothing, and is no error: its answer
        may have been lost. Raises WrongState when it was cancelled and nobody asked for that.
        """
        try:
            job = await self._held(holder, end)
            if isinstance(outcome, Cancelled):
                outcome = self._stopped(job)
            await self._settlement.settle(job, outcome, actor=holder.worker)
        except StaleAttempt:
            _, ended = await self._past(holder)
            if ended is not None and isinstance(ended.event, _RECORDED[end]):
                return
            await self._refuse(holder, end)
            raise

    async def _held(self, holder: Holder, kind: str) -> Job:
        """The job, which *holder* holds."""
        job = await self._jobs.load(holder.job_id)
        if not _holds(job, holder):
            job = await self._jobs.current(holder.job_id)  # what was kept may have been overtaken
        if job is None:
            raise JobNotFound
        if _holds(job, holder):
            return job
        if kind not in _RECORDED:
            await self._refuse(holder, kind)
        raise StaleAttempt(
            f"attempt {holder.attempt} of {holder.worker} does not hold the job (any longer)"
        )

    def _heard(self, job: Job, *, moved: bool = False) -> Told:
        told = self._leases.heard(job.job_id, job.attempt, moved=moved)
        if told is None:
            self._leases.begin(job)
            told = self._leases.heard(job.job_id, job.attempt)
        if told is None:  # it has ended meanwhile
            raise StaleAttempt
        return told

    def _stopped(self, job: Job) -> Outcome:
        if job.cancel_requested_us is not None:
            return Cancelled()
        told = self._leases.heard(job.job_id, job.attempt)
        if told is None or (outcome := interrupted(job, told.stop)) is None:
            raise WrongState("nobody asked this attempt to stop; release it, or fail it")
        return outcome

    async def _refuse(self, holder: Holder, kind: str) -> None:
        """Leave evidence, once; a heartbeat that crossed the attempt's own end is none."""
        held, ended = await self._past(holder)
        if not held or (kind == "heartbeat" and ended is not None):
            return
        # That it is refused does not depend on whether it can be written down.
        with suppress(Rejected, LogError):
            await self._jobs.refuse(holder.job_id, holder.attempt, kind, actor=holder.worker)

    async def _past(self, holder: Holder) -> tuple[bool, Recorded | None]:
        """Whether *holder* ever held the attempt, and how it has ended it, if it did so itself."""
        held = False
        for each in await self._jobs.log.read_job(holder.job_id):
            event = each.event
            match event:
                case AttemptStarted(attempt=holder.attempt, worker=holder.worker):
                    held = True
                case JobCompleted() | AttemptFailed() | AttemptReleased() | JobCancelled():
                    if (event.attempt, each.actor) == (holder.attempt, holder.worker):
                        return held, each
        return held, None


def _holds(job: Job | None, holder: Holder) -> bool:
    return (
        job is not None
        and job.status == Status.RUNNING
        and job.lease_s is not None  # else it runs here, and nobody elsewhere can speak for it
        and (job.attempt, job.worker) == (holder.attempt, holder.worker)
    )

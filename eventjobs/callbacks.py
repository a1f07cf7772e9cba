"""What an external service reports on an attempt that it has taken on: taken once, or refused.

A report is judged by the log alone. So it counts whatever was restarted since the job was given
away, and the same report again, as a service sends it that lost the answer, changes nothing.
"""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from eventjobs.errors import JobNotFound, StaleAttempt
from eventjobs.events import (
    JSON,
    ArtifactStored,
    AttemptFailed,
    JobCompleted,
    ProgressReported,
    Recorded,
)
from eventjobs.job import Job
from eventjobs.jobs import Jobs
from eventjobs.outcomes import Failed, Succeeded
from eventjobs.settlement import Settlement

Final = Succeeded | Failed


class Taken(NamedTuple):
    """The job after a report, and whether the report was there already."""

    job: Job
    repeated: bool = False


class Callbacks:
    """Whoever calls these has shown the token of the attempt. *names* are of services, by type."""

    def __init__(self, jobs: Jobs, settlement: Settlement, names: Mapping[str, str]) -> None:
        self._jobs = jobs
        self._settlement = settlement
        self._names = names

    async def progress(self, job_id: str, report: ProgressReported) -> Taken:
        """Raises StaleAttempt, which is put on record."""
        job = await self._job(job_id)
        try:
            return Taken(await self._jobs.report(job_id, report, actor=self._actor(job)))
        except StaleAttempt:
            await self._refuse(job_id, report.attempt, "progress")
            raise

    async def end(self, job_id: str, attempt: int, outcome: Final) -> Taken:
        """The same again is taken as a repetition. Raises StaleAttempt, which is put on record."""
        job = await self._job(job_id)
        try:
            if job.attempt != attempt:
                raise StaleAttempt(f"attempt {attempt} no longer holds the job")
            return Taken(await self._settlement.settle(job, outcome, actor=self._actor(job)))
        except StaleAttempt:
            events = await self._jobs.log.read_job(job_id)
            if _is_there(events, attempt, outcome):
                return Taken(await self._job(job_id), repeated=True)
            what = "complete" if isinstance(outcome, Succeeded) else "fail"
            await self._refuse(job_id, attempt, what)
            raise

    async def _job(self, job_id: str) -> Job:
        job = await self._jobs.current(job_id)
        if job is None:
            raise JobNotFound
        return job

    async def _refuse(self, job_id: str, attempt: int, what: str) -> None:
        await self._jobs.refuse(job_id, attempt, what, actor="service")

    def _actor(self, job: Job) -> str:
        """The service, by its name: it may report before it is on record that it took the job."""
        if job.silence_s is not None and job.worker is not None:
            return job.worker
        return self._names.get(job.spec.type, "service")


def _is_there(events: list[Recorded], attempt: int, outcome: Final) -> bool:
    """Whether *attempt* ended with just this outcome."""
    stored = None
    for recorded in events:
        match recorded.event, outcome:
            case ArtifactStored(attempt=number, name="result.json", sha256=sha256), _:
                stored = sha256 if number == attempt else stored
            case JobCompleted(attempt=number) as event, Succeeded(result=result):
                if number == attempt:
                    return _is_same(event.result, result, stored)
            case AttemptFailed(attempt=number) as event, Failed():
                if number == attempt:
                    told = event.code, event.message, event.retryable
                    return told == (outcome.code, outcome.message, outcome.retryable)
    return False


def _is_same(kept: JSON, given: JSON, stored: str | None) -> bool:
    """*kept* may only say where a large result is *stored*."""
    return kept == given or stored == hashlib.sha256(orjson.dumps(given)).hexdigest()

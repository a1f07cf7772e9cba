"""Recording the outcome of an attempt: the retry time, large results and the error report."""

import asyncio
from typing import Any, assert_never

import orjson

from eventjobs.attempts.error_report import ERROR_ARTIFACT, error_report
from eventjobs.backoff import Backoff
from eventjobs.cache import LRUCache
from eventjobs.commands.jobs import Jobs
from eventjobs.domain import decisions
from eventjobs.domain.events import ArtifactStored, AttemptFailed, AttemptHandedOver, ends_job
from eventjobs.domain.job import Job, Status
from eventjobs.domain.json_fields import as_fragment
from eventjobs.domain.outcomes import (
    RESULT,
    Cancelled,
    Failed,
    HandedOver,
    Outcome,
    Released,
    Succeeded,
    large_result,
)
from eventjobs.execution.attempt_log import log_failure
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe
from eventjobs.storable import DETAILS_BYTES_MAX, bounded_json
from eventjobs.storage.artifacts import Artifacts

#: Seconds, the longest delay that a handler or another service may set by retry_after_s.
RETRY_AFTER_MAX_S = 7 * 86_400
#: Issues of one attempt that are recorded: how many, and their size as JSON.
ISSUES_MAX = 100
ISSUES_BYTES_MAX = 65_536


class OutcomeRecorder:
    """Records how attempts end, of local handlers, remote workers and external services alike."""

    def __init__(
        self,
        jobs: Jobs,
        artifacts: Artifacts,
        *,
        retry_delay_s: float,
        retry_delay_max_s: float,
        result_bytes_max: int,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._retry_delay_s = retry_delay_s
        self._retry_delay_max_s = retry_delay_max_s
        self._result_bytes_max = result_bytes_max
        self._log = get_logger("eventjobs.settlement")
        #: By attempt: when it failed. error.json has the same time when the log refuses the failure
        #: and it is recorded again.
        self._failed_us: LRUCache[int] = LRUCache(entries_max=10_000, bytes_max=10_000)

    async def record(self, job: Job, outcome: Outcome, *, actor: str) -> Job:
        """Record the outcome of *job*'s present attempt. Returns the job after it.

        Raises StaleAttempt when the attempt no longer holds the job, LogError, OSError when an
        artifact cannot be written, TooLarge for a result larger than any artifact may be.
        """
        job_id, number = job.job_id, job.attempt
        match outcome:
            case Succeeded(result=result, issues=issues):
                result = await self._store_if_large(job, result, actor)
                issues = _truncate_issues(issues)
                return await self._jobs.complete(job_id, number, result, issues, actor=actor)
            case Failed():
                failed = AttemptFailed(
                    number,
                    outcome.code,
                    outcome.retryable,
                    self._retry_at_us(job, outcome) if outcome.retryable else None,
                    outcome.message,
                    bounded_json(outcome.details, DETAILS_BYTES_MAX),
                    outcome.held_off or None,
                )
                return await self._fail(job_id, failed, actor, outcome.trace)
            case Cancelled():
                return await self._jobs.cancel_attempt(job_id, number, actor=actor)
            case Released(reason=reason):
                return await self._jobs.release(job_id, number, reason, actor=actor)
            case HandedOver():
                event = AttemptHandedOver(
                    number, outcome.worker, outcome.silence_s, outcome.cancel_url
                )
                return await self._jobs.hand_over(job_id, event, actor=actor)
            case _ as never:
                assert_never(never)

    async def record_lost(self, job: Job, message: str, *, actor: str) -> Job:
        """Record that the worker of *job*'s present attempt is lost. The retry is due at once."""
        now_us = self._jobs.clock.now_us()
        failed = AttemptFailed(job.attempt, "worker_lost", True, now_us, message)
        return await self._fail(job.job_id, failed, actor)

    async def _fail(
        self, job_id: str, failed: AttemptFailed, actor: str, trace: str | None = None
    ) -> Job:
        decided = decisions.fail(await self._jobs.current(job_id), failed)
        if isinstance(decided, AttemptFailed) and ends_job(decided):
            await self._store_error_report(job_id, decided, actor)
        job = await self._jobs.fail(job_id, failed, actor=actor)
        if job.status != Status.CANCELLED:
            outcome = Failed(failed.code, failed.message or "", details=failed.details, trace=trace)
            final = job.status == Status.FAILED
            log_failure(self._log, job, outcome, ended_us=job.updated_us, final=final)
        return job

    async def _store_error_report(self, job_id: str, failed: AttemptFailed, actor: str) -> None:
        """Store error.json while the attempt still holds the job. An error here is logged: the job
        fails all the same.
        """
        now_us = self._jobs.clock.now_us()
        at_us = self._failed_us.get(key := f"{job_id} {failed.attempt}") or now_us
        self._failed_us.put(key, at_us, 1)
        try:
            content = error_report(await self._jobs.log.read_job(job_id), failed, at_us)
            sha256, size = await asyncio.to_thread(self._artifacts.store, content)
            event = ArtifactStored(failed.attempt, ERROR_ARTIFACT, sha256, size, "application/json")
            await self._jobs.report(job_id, event, actor=actor)
        except Exception as error:  # noqa: BLE001 -- the job fails without it as well
            self._log.warning("error.json not stored", job_id=job_id, error=describe(error))

    async def _store_if_large(self, job: Job, result: Any, actor: str) -> Any:
        """*result* as JSON text. One too large for an event is stored, and a reference returned."""
        encoded = orjson.dumps(result)
        if len(encoded) <= self._result_bytes_max:
            return as_fragment(result)
        sha256, size = await asyncio.to_thread(self._artifacts.store, encoded)
        stored = ArtifactStored(job.attempt, RESULT, sha256, size, "application/json")
        await self._jobs.report(job.job_id, stored, actor=actor)
        return large_result(size)

    def _retry_at_us(self, job: Job, failed: Failed) -> int:
        """When the next attempt is due: after retry_after_s, or an exponential backoff."""
        if failed.retry_after_s is not None:
            delay_s = min(max(0.0, failed.retry_after_s), RETRY_AFTER_MAX_S)
        else:
            own_s = job.spec.retry_delay_s
            first_s = self._retry_delay_s if own_s is None else own_s
            delay_s = Backoff(first_s, max_s=self._retry_delay_max_s).delay_s(job.tries)
        return self._jobs.clock.now_us() + int(delay_s * 1e6)


def _truncate_issues(issues: Any) -> Any:
    """The first of *issues*. Each of them is also a line of the job's log."""
    left = ISSUES_BYTES_MAX
    for count, issue in enumerate(issues or ()):
        left -= len(orjson.dumps(issue))
        if left < 0 or count == ISSUES_MAX:
            return issues[:count] or None
    return issues

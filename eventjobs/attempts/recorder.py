"""Writing down what an attempt came to: when it is tried again, and where a large result goes."""

import asyncio
import random
from typing import Any, assert_never

import orjson

from eventjobs.attempts.error_report import ERROR_ARTIFACT, error_report
from eventjobs.cache import LRUCache
from eventjobs.commands.jobs import Jobs
from eventjobs.domain import decisions
from eventjobs.domain.events import ArtifactStored, AttemptFailed, AttemptHandedOver
from eventjobs.domain.job import Job, Status
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

#: Another service may name any time for the next attempt. The job is not lost for longer than this.
RETRY_AFTER_MAX_S = 7 * 86_400
#: Of one attempt, in number and as JSON.
ISSUES_MAX = 100
ISSUES_BYTES_MAX = 65_536
#: What a result is stored as that is too large for an event.


class OutcomeRecorder:
    """The one way an attempt ends, for handlers here, workers elsewhere and external services."""

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
        #: When jobs failed: a failure that the log did not take is told again, and is the same.
        self._failed_us: LRUCache[int] = LRUCache(entries_max=10_000, bytes_max=10_000)

    async def record(self, job: Job, outcome: Outcome, *, actor: str) -> Job:
        """Record how *job*'s present attempt ended; the job after that.

        Raises StaleAttempt when it no longer holds the job, LogError, OSError when an artifact
        cannot be written, TooLarge for a result larger than any artifact may be.
        """
        job_id, number = job.job_id, job.attempt
        match outcome:
            case Succeeded(result=result, issues=issues):
                result, issues = (
                    await self._store_if_large(job, result, actor),
                    _truncate_issues(issues),
                )
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
                handed = AttemptHandedOver(
                    number, outcome.worker, outcome.silence_s, outcome.cancel_url
                )
                return await self._jobs.hand_over(job_id, handed, actor=actor)
            case _ as never:
                assert_never(never)

    async def record_lost(self, job: Job, why: str, *, actor: str) -> Job:
        """Whoever ran *job*'s present attempt is gone: it runs again at once, if it may."""
        now_us = self._jobs.clock.now_us()
        failed = AttemptFailed(job.attempt, "worker_lost", True, now_us, why)
        return await self._fail(job.job_id, failed, actor)

    async def _fail(
        self, job_id: str, failed: AttemptFailed, actor: str, trace: str | None = None
    ) -> Job:
        decided = decisions.fail(await self._jobs.load_newest(job_id), failed)
        if isinstance(decided, AttemptFailed) and decided.retry_at_us is None:
            await self._store_error_report(job_id, decided, actor)
        job = await self._jobs.fail(job_id, failed, actor=actor)
        if job.status != Status.CANCELLED:
            told = Failed(failed.code, failed.message or "", details=failed.details, trace=trace)
            final = job.status == Status.FAILED
            log_failure(self._log, job, told, ended_us=job.updated_us, final=final)
        return job

    async def _store_error_report(self, job_id: str, failed: AttemptFailed, actor: str) -> None:
        """Keep error.json, while the attempt still holds the job; it fails without it as well."""
        now_us = self._jobs.clock.now_us()
        at_us = self._failed_us.get(key := f"{job_id} {failed.attempt}") or now_us
        self._failed_us.put(key, at_us, 1)
        try:
            content = error_report(await self._jobs.log.read_job(job_id), failed, at_us)
            kept = await asyncio.to_thread(self._artifacts.store, content)
            stored = ArtifactStored(failed.attempt, ERROR_ARTIFACT, *kept, "application/json")
            await self._jobs.report(job_id, stored, actor=actor)
        except Exception as error:  # noqa: BLE001 -- the job fails without it as well
            self._log.warning("error.json not stored", job_id=job_id, error=describe(error))

    async def _store_if_large(self, job: Job, result: Any, actor: str) -> Any:
        """*result*, or where to find it when it is too large for an event."""
        if result is None:
            return None
        encoded = orjson.dumps(result)
        if len(encoded) <= self._result_bytes_max:
            return orjson.Fragment(encoded)
        sha256, size = await asyncio.to_thread(self._artifacts.store, encoded)
        stored = ArtifactStored(job.attempt, RESULT, sha256, size, "application/json")
        await self._jobs.report(job.job_id, stored, actor=actor)
        return large_result(size)

    def _retry_at_us(self, job: Job, failed: Failed) -> int:
        """Exponential backoff, with jitter: what failed together shall not return together."""
        now_us = self._jobs.clock.now_us()
        if failed.retry_after_s is not None:
            delay_s = min(max(0.0, failed.retry_after_s), RETRY_AFTER_MAX_S)
            return now_us + int(delay_s * 1e6)
        spec = job.spec
        first_s = self._retry_delay_s if spec.retry_delay_s is None else spec.retry_delay_s
        doubled = 2.0 ** min(job.tries - 1, 100)  # a float ends at 2**1024
        delay_s = min(first_s * doubled, self._retry_delay_max_s)
        return now_us + int(delay_s * random.uniform(0.75, 1.25) * 1e6)  # noqa: S311


def _truncate_issues(issues: Any) -> Any:
    """The first of *issues*; all of them are lines of the job's log."""
    left = ISSUES_BYTES_MAX
    for count, each in enumerate(issues or ()):
        left -= len(orjson.dumps(each))
        if left < 0 or count == ISSUES_MAX:
            return issues[:count] or None
    return issues

"""Delivery of reports, outcomes and files from a worker to its service, and of files back.

Requests are repeated until the service accepts them or the attempt is lost, across restarts of the
service and network failures.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson

from eventjobs.client.connection import TRANSFER, Connection
from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.client.requests import BLOCK_BYTES, blocks, encode_json
from eventjobs.concurrency.batcher import Batcher
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ArtifactStored
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Outcome, Succeeded, large_result
from eventjobs.errors import InvalidInput, StaleAttempt, StepTooLarge, TooLarge
from eventjobs.observability.logging import get_logger
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker import wire
from eventjobs.worker.held_jobs import HeldJob, HeldJobs
from eventjobs.worker.outage import Outage
from eventjobs.worker.wire import JobResult

Response = TypeVar("Response")

#: Completed jobs in one request, and the bytes of each: together they fit into one request body.
BATCH_JOBS_MAX, BATCHED_BYTES_MAX = 100, 8_192
#: A connection that died silently must not delay a report for as long as the lease.
REPORT_TIMEOUT = aiohttp.ClientTimeout(total=10)
TOO_LARGE_ERRORS = {error.code: error for error in (TooLarge, StepTooLarge)}
#: Problems after which no report of the attempt counts.
LOST_CODES = frozenset({"stale_attempt", "job_not_found", "job_gone", "wrong_state"})
#: Problems after which no request of the worker counts: its token was revoked, or has expired.
REFUSED_CODES = frozenset({"unauthenticated", "invalid_credential"})


class Delivery:
    """Sends what concerns the held jobs of *worker*. *files* are those on this machine."""

    def __init__(
        self, http: Connection, worker: str, held: HeldJobs, files: Artifacts, outage: Outage
    ) -> None:
        self._http = http
        self._worker = worker
        self._held = held
        self._files = files
        self._outage = outage
        self._completions = Batcher(self._complete, BATCH_JOBS_MAX)
        self._log = get_logger("eventjobs.worker")

    async def until_accepted(self, job: Job, send: Callable[[], Awaitable[Response]]) -> Response:
        """The response to *send*, repeated until there is one.

        Raises StaleAttempt when *job*'s attempt is lost, TooLarge or InvalidInput when the service
        refuses the request.
        """
        while True:
            held = self._held.require(job)
            try:
                return await send()
            except ApiError as error:
                if self.is_lost(error):
                    self._held.lose(held)
                    raise StaleAttempt from error
                if error.is_final:
                    by_status = TooLarge if error.status == 413 else InvalidInput
                    refusal = TOO_LARGE_ERRORS.get(error.code, by_status)
                    raise refusal(error.detail, error.errors) from error
                await self._outage.pause(error)
            except Unreachable as error:
                await self._outage.pause(error)

    def is_lost(self, error: ApiError) -> bool:
        """Whether no report of the attempt counts any more. A refused token ends the worker."""
        if error.code in REFUSED_CODES:
            return self._outage.is_final(error, confirmed=True)
        return error.code in LOST_CODES

    async def call(
        self,
        job: Job,
        name: str,
        body: dict[str, Any],
        timeout: aiohttp.ClientTimeout = REPORT_TIMEOUT,
    ) -> None:
        """Send one report of *job*'s attempt, once. Raises ApiError, Unreachable."""
        path = f"/v1/work/{job.job_id}/{job.attempt}/{name}"
        body = {"worker": self._worker, **body}
        response = await self._http.call("POST", path, retry=False, json=body, timeout=timeout)
        self._outage.end()
        if response.get("cancel"):
            self._held.cancel(job)

    async def report(self, job: Job, report: Report) -> None:
        if isinstance(report, ArtifactStored):
            self._held.require(job).files.add(report.sha256)
            await self._upload(job, report.sha256)
        name, body = wire.report_body(report)
        await self.until_accepted(job, partial(self.call, job, name, body))

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        self._held.require(job).ending = True
        name, body = wire.outcome_body(outcome)
        is_small = isinstance(outcome, Succeeded) and len(encode_json(body)) <= BATCHED_BYTES_MAX
        send = (
            partial(self._completions.submit, (job, body))
            if is_small
            else partial(self.call, job, name, body)
        )
        try:
            await self.until_accepted(job, send)
        except TooLarge:
            if not isinstance(outcome, Succeeded):
                raise
            body["result"] = await self._store_result(job, body["result"])
            await self.until_accepted(job, send)

    async def _complete(self, results: Sequence[JobResult]) -> list[BaseException | None]:
        """Complete several jobs. Returns for each the error that it was refused with."""
        if len(results) > 1:
            jobs = [wire.completion_body(job, body) for job, body in results]
            body = {"worker": self._worker, "jobs": jobs}
            try:
                response = await self._http.call(
                    "POST", "/v1/work/complete", retry=False, json=body, timeout=REPORT_TIMEOUT
                )
                self._outage.end()
                errors = [each["error"] for each in response["jobs"]]
                return [error and ApiError.from_json(error) for error in errors]
            except ApiError as error:
                if error.status == 429 or error.status > 500:
                    raise
                # The request is too large, or one of its jobs is refused: send one request a job.
        calls = (self.call(job, "complete", body) for job, body in results)
        return await asyncio.gather(*calls, return_exceptions=True)

    # --- files

    async def fetch_inputs(self, held: HeldJob) -> None:
        """Fetch the files of the job that are not here."""
        for artifact in held.job.artifacts:
            await self.fetch(held, held.job.job_id, artifact.name, artifact.sha256)

    async def fetch(self, held: HeldJob, job_id: str, name: str, sha256: str) -> None:
        """Fetch the file *name* of a job for *held*. One that the service cannot send is missing
        here, as in the service.
        """
        held.files.add(sha256)
        if await self._files.size(sha256) is None:
            path = f"/v1/jobs/{job_id}/artifacts/{quote(name, safe='')}"
            try:
                await self.until_accepted(held.job, partial(self._download, path))
            except InvalidInput as error:
                self._log.warning("file missing", job_id=job_id, error=error.message)

    async def _download(self, path: str) -> None:
        async with self._http.request("GET", path, timeout=TRANSFER) as response:
            await self._files.receive(response.content.iter_chunked(BLOCK_BYTES))

    async def _upload(self, job: Job, sha256: str) -> None:
        send = partial(
            self._http.call,
            "POST",
            "/v1/artifacts",
            retry=False,
            data=partial(blocks, self._files.path(sha256)),
            headers={"Content-Type": "application/octet-stream"},
            timeout=TRANSFER,
        )
        await self.until_accepted(job, send)

    async def _store_result(self, job: Job, result: Any) -> dict[str, Any]:
        """Store *result*, too large for a request, as an artifact. Returns the reference to it."""
        sha256, size = await asyncio.to_thread(self._files.store, orjson.dumps(result))
        stored = ArtifactStored(job.attempt, RESULT, sha256, size, "application/json")
        await self.report(job, stored)
        return large_result(size)

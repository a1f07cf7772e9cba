"""A job source over HTTP: a runner in this process runs the jobs of a service."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp

from eventjobs.client.connection import Connection
from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.clock import Clock, timeout
from eventjobs.domain.decisions import Report
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Failed, Outcome, Released
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import StaleAttempt
from eventjobs.execution.attempt_log import log_failure
from eventjobs.execution.source import Capacity, ClaimableJob, WithdrawReason, file_of
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker import wire
from eventjobs.worker.delivery import Delivery
from eventjobs.worker.heartbeat import Heartbeats
from eventjobs.worker.held_jobs import HeldJobs
from eventjobs.worker.outage import Outage
from eventjobs.worker.wire import ClaimedJob

#: Seconds that one claim waits for a job, and the most jobs that it claims.
WAIT_S, CLAIM_MAX = 20.0, 100
#: Requests that try to end the wait of a claim, and seconds that each has time for.
WITHDRAWALS_MAX, WITHDRAWAL_S = 4, 0.5


class RemoteJobSource:
    """A JobSource of the service behind *http*. Reports are retried until the service accepts them
    or the attempt is lost, across restarts and network failures.

    *heartbeats* have to run beside the runner.
    """

    def __init__(
        self,
        http: Connection,
        *,
        worker: str,
        lease_s: float | None,
        files: Artifacts,
        calls: CallPolicy,
        clock: Clock,
    ) -> None:
        self.worker = worker
        self.clock = clock
        self.files = files
        self.calls = calls
        self.outage = Outage(clock)
        self._http = http
        self._lease_s = lease_s
        self._held = HeldJobs(files)
        self._delivery = Delivery(http, worker, self._held, files, self.outage)
        self.heartbeats = Heartbeats(self._delivery, self._held, self.outage, clock)
        #: The claim that waits for jobs, and its types, each with whether it claims children only.
        self._claim_task: asyncio.Task[list[ClaimedJob]] | None = None
        self._claim_types: frozenset[tuple[str, bool]] = frozenset()
        #: Whether the response of a claim was lost, and with it perhaps jobs.
        self._unanswered = False
        self._stopped = False
        self._interrupted = asyncio.Event()
        self._log = get_logger("eventjobs.worker")

    def on_stop(self, stop: Callable[[str, int, WithdrawReason], object]) -> None:
        self._held.on_stop(stop)

    def interrupt_wait(self) -> None:
        self._interrupted.set()

    # --- claims

    async def next_jobs(self, capacities: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        self._interrupted.clear()
        free = [each for each in capacities if each.free > 0 and limit > 0]
        types = frozenset(
            (type, type in each.children_only) for each in free for type in each.types
        )
        if self._claim_task is not None and types != self._claim_types:
            claimed = await self._withdraw_claim()
        else:
            if self._claim_task is None and types and not self._stopped:
                self._claim_types = types
                claim = self._claim([each for each in free if each.types], limit)
                self._claim_task = asyncio.create_task(claim, name="claim")
            claimed = await self._finished_claim()
        return [
            ClaimableJob(each.job.job_id, each.job.spec.type, self._prepare(each))
            for each in claimed
        ]

    async def _finished_claim(self) -> list[ClaimedJob]:
        """The jobs of the waiting claim, once it has ended. None of them after *interrupt_wait*."""
        interrupted = asyncio.create_task(self._interrupted.wait())
        waits: set[asyncio.Task[Any]] = {interrupted}
        if self._claim_task is not None:
            waits.add(self._claim_task)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if self._claim_task is None or not self._claim_task.done():
            return []
        claimed, self._claim_task = self._claim_task.result(), None
        return claimed

    async def stop_claiming(self) -> None:
        """Claim nothing more, and release the jobs of the waiting claim.

        To be called before the runner stops: a new claim would get the jobs that it releases.
        """
        self._stopped = True
        _, body = wire.outcome_body(Released("the worker was stopped"))
        for claimed in await self._withdraw_claim():
            job = claimed.job
            try:
                await self._delivery.call(job, "release", body)
                self._held.drop(job)
            except (Unreachable, ApiError) as error:
                self._log.warning("job not given back", job_id=job.job_id, error=str(error))

    async def _claim(
        self, capacities: Sequence[Capacity], limit: int, wait_s: float = WAIT_S
    ) -> list[ClaimedJob]:
        """The jobs of one claim request. Empty, after a pause, when the request failed."""
        limit = min(limit, CLAIM_MAX)
        body = {"worker": self.worker, "wait_s": wait_s, **wire.claim_body(capacities, limit)}
        if self._lease_s is not None:
            body["lease_s"] = self._lease_s
        if self._unanswered and capacities:
            body["holds"] = [held.job.job_id for held in self._held]
        request_timeout = aiohttp.ClientTimeout(total=wait_s + 15, sock_connect=10)
        try:
            response = await self._http.call(
                "POST", "/v1/work/claim", retry=False, json=body, timeout=request_timeout
            )
            if not isinstance(jobs := response.get("jobs"), list):
                raise self._http.wrong_address()
        except (Unreachable, ApiError) as error:
            self._unanswered = True
            is_final = self.outage.is_final(error, confirmed=self._http.is_confirmed)
            self._stopped = self._stopped or is_final
            if not self._stopped:
                await self.outage.pause(error)
            return []
        self.outage.end()
        claimed = [wire.parse_claimed_job(job) for job in jobs]
        if capacities and len(claimed) < limit:
            self._unanswered = False
        return [each for each in claimed if self._held.add(each)]

    async def _withdraw_claim(self) -> list[ClaimedJob]:
        """End the wait of the claim. Returns the jobs that it claimed before."""
        task, self._claim_task = self._claim_task, None
        if task is None:
            return []
        for _ in range(WITHDRAWALS_MAX):
            # A claim that does not wait ends it. One that arrives before it does not: try again.
            ending = asyncio.create_task(self._claim((), 1, wait_s=0), name="withdraw")
            with suppress(TimeoutError):
                async with timeout(self.clock, WITHDRAWAL_S):
                    await asyncio.wait({task})
            ending.cancel()
            if task.done():
                return task.result()
        task.cancel()  # the service does not respond
        self._unanswered = True
        return []

    def _prepare(self, claimed: ClaimedJob) -> Callable[[], Awaitable[Job | None]]:
        async def prepare() -> Job | None:
            """The job, once its files are here. None when the attempt is lost or has failed."""
            if (held := self._held.find(claimed)) is None:
                return None
            try:
                await self._delivery.fetch_inputs(held)
                return held.job
            except StaleAttempt:
                return None
            except Exception as error:  # noqa: BLE001 -- else the job would be held for ever
                job_id = held.job.job_id
                self._log.error("files cannot be kept", job_id=job_id, error=describe(error))
                failed = Failed("files_unavailable", "the worker cannot keep the job's files")
            with suppress(StaleAttempt):
                await self.record_outcome(held.job, failed)
            return None

        return prepare

    # --- running attempts

    async def report(self, job: Job, report: Report) -> None:
        await self._delivery.report(job, report)

    async def steps(self, job: Job) -> dict[str, Any]:
        return self._held.require(job).claimed.steps

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        path, headers = wire.child_request(self.worker, job, name)
        put = partial(self._http.call, "PUT", path, json=wire.submission_body(spec))
        child = await self._delivery.until_accepted(job, partial(put, headers=headers))
        # A child from before an upgrade has another id than the one in *path*.
        path = f"/v1/jobs/{child['job_id']}"
        if child["can_retry"] and child["finished_at"] < rfc3339(job.started_us or 0):
            body = {"reason": "its parent runs again"}
            retry = partial(self._http.call, "POST", f"{path}/retry", json=body)
            await self._delivery.until_accepted(job, retry)
        return str(child["job_id"])

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
        path = f"/v1/jobs/{job_id}"
        page = {"next": 0, "end": False}
        while not page["end"]:
            params = {"after": str(page["next"]), "wait": "10"}
            get_events = partial(self._http.call, "GET", f"{path}/events", params=params)
            page = await self._delivery.until_accepted(job, get_events)
        get_job = partial(self._http.call, "GET", path)
        end = await self._delivery.until_accepted(job, get_job)
        artifacts = [(each["name"], each["sha256"], each["size"]) for each in end["artifacts"]]
        if (file := file_of(end["result"], artifacts)) is not None:
            await self._delivery.fetch(self._held.require(job), job_id, RESULT, file[0])
        return {**end, "file": file}

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        await self._delivery.record_outcome(job, outcome)
        if isinstance(outcome, Failed):
            log_failure(self._log, job, outcome, ended_us=self.clock.now_us())
        self._held.drop(job)

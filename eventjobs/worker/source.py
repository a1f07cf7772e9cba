"""A job source over HTTP: the jobs of a service, for a runner in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson

from eventjobs.client.connection import TRANSFER, Connection
from eventjobs.client.errors import ApiError, Unreachable
from eventjobs.client.requests import BLOCK_BYTES, blocks, encode_json
from eventjobs.clock import Clock, sleep, timeout
from eventjobs.concurrency.batcher import Batcher
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ArtifactStored
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Failed, Outcome, Released, Succeeded, large_result
from eventjobs.domain.spec import JobSpec
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import InvalidInput, StaleAttempt, StepTooLarge, TooLarge
from eventjobs.execution.attempt_log import log_failure
from eventjobs.execution.source import Capacity, ClaimableJob, WithdrawReason, file_of
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker import wire
from eventjobs.worker.outage import Outage
from eventjobs.worker.wire import ClaimedJob, HeldJob, JobResult

Answer = TypeVar("Answer")

#: One claim waits so long for a job.
WAIT_S, CLAIM_MAX = 20.0, 100
#: Jobs whose ends are told in one request, and how large each may be: together they fit into one.
TOGETHER_MAX, TOGETHER_BYTES_MAX = 100, 8_192
#: A connection that has silently died must not keep a report for as long as the job is held.
TELLING = aiohttp.ClientTimeout(total=10)
WITHDRAWALS_MAX = 4
TOO_LARGE = {each.code: each for each in (TooLarge, StepTooLarge)}
#: After these answers nothing that the attempt comes to counts.
LOST = frozenset({"stale_attempt", "job_not_found", "job_gone", "wrong_state"})


class RemoteJobSource:
    """Jobs of the service behind *http*. Whatever is to be told is told until it was heard, or the
    attempt is lost: over restarts of the service and cuts of the network.
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
        self._http = http
        self._lease_s = lease_s
        self._held: dict[str, HeldJob] = {}
        self._any = asyncio.Event()
        self._poll: asyncio.Task[list[ClaimedJob]] | None = None
        #: The types that it asks for, and whether only of jobs that have a parent.
        self._asked: frozenset[tuple[str, bool]] = frozenset()
        #: Whether a claim may have been made whose answer was lost.
        self._unsure = False
        self._leaving = False
        self._hurried = asyncio.Event()
        self._tell: Callable[[str, int, WithdrawReason], object] = lambda job_id, attempt, why: None
        self.outage = Outage(clock)
        self._done = Batcher(self._complete, TOGETHER_MAX)
        self._log = get_logger("eventjobs.worker")

    def on_stop(self, tell: Callable[[str, int, WithdrawReason], object]) -> None:
        self._tell = tell

    def interrupt_wait(self) -> None:
        self._hurried.set()

    # --- claiming

    async def next_jobs(self, rooms: Sequence[Capacity], limit: int) -> list[ClaimableJob]:
        self._hurried.clear()
        open_rooms = [room for room in rooms if room.free > 0 and limit > 0]
        types = frozenset(
            (type, type in room.children_only) for room in open_rooms for type in room.types
        )
        if self._poll is not None and types != self._asked:
            works = await self._withdrawn()
        else:
            works = []
            if self._poll is None and types and not self._leaving:
                self._asked = types
                claim = self._claim([room for room in open_rooms if room.types], limit)
                self._poll = asyncio.create_task(claim, name="claim")
            hurried = asyncio.create_task(self._hurried.wait())
            waiting: set[asyncio.Task[Any]] = {hurried} | ({self._poll} if self._poll else set())
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                hurried.cancel()
            if self._poll is not None and self._poll.done():
                works, self._poll = self._poll.result(), None
        return [
            ClaimableJob(work.job.job_id, work.job.spec.type, self._prepare(work)) for work in works
        ]

    async def stop_claiming(self) -> None:
        """Claim nothing more, and give back what came too late. To be done before the runner stops:
        what that gives back would come again.
        """
        self._leaving = True
        for work in await self._withdrawn():
            job = work.job
            try:
                await self._call(
                    job, "release", wire.outcome_body(Released("the worker was stopped"))[1]
                )
                self._drop(job)
            except (Unreachable, ApiError) as error:
                self._log.warning("job not given back", job_id=job.job_id, error=str(error))

    async def _claim(
        self, rooms: Sequence[Capacity], size: int, wait_s: float = WAIT_S
    ) -> list[ClaimedJob]:
        """What is had; nothing, after a pause, when there was trouble."""
        size = min(size, CLAIM_MAX)
        asked = {"worker": self.worker, "wait_s": wait_s, **wire.claim_body(rooms, size)}
        if self._lease_s is not None:
            asked["lease_s"] = self._lease_s
        if self._unsure and rooms:
            asked["holds"] = list(self._held)
        limit = aiohttp.ClientTimeout(total=wait_s + 15, sock_connect=10)
        try:
            answer = await self._http.call(
                "POST", "/v1/work/claim", retry=False, json=asked, timeout=limit
            )
            if not isinstance(jobs := answer.get("jobs"), list):
                raise self._http.wrong_address()
        except (Unreachable, ApiError) as error:
            self._unsure = True
            known = self._http.is_confirmed
            self._leaving = self._leaving or self.outage.is_final(error, known=known)
            if not self._leaving:
                await self.outage.pause(error)
            return []
        self.outage.end()
        works = [wire.parse_claimed_job(each) for each in jobs]
        if rooms and len(works) < size:
            self._unsure = False
        return [work for work in works if self._take(work)]

    def _take(self, work: ClaimedJob) -> bool:
        """Hold it from now on; not when it is known already."""
        if (known := self._held.get(work.job.job_id)) is not None:
            if known.job.attempt == work.job.attempt:
                return False
            self._lose(known)
        self._held[work.job.job_id] = HeldJob(work)
        self._any.set()
        return True

    async def _withdrawn(self) -> list[ClaimedJob]:
        """End the wait of the claim that is open; what it brought all the same."""
        poll, self._poll = self._poll, None
        if poll is None:
            return []
        for _ in range(WITHDRAWALS_MAX):
            # A claim that does not wait ends it, unless it overtakes it on the way: then the next.
            ending = asyncio.create_task(self._claim((), 1, wait_s=0), name="withdraw")
            with suppress(TimeoutError):
                async with timeout(self.clock, 0.5):
                    await asyncio.wait({poll})
            ending.cancel()
            if poll.done():
                return poll.result()
        poll.cancel()  # nobody is there who could answer it
        self._unsure = True
        return []

    def _prepare(self, work: ClaimedJob) -> Callable[[], Awaitable[Job | None]]:
        async def prepare() -> Job | None:
            """The job, once its files are here."""
            held = self._held.get(work.job.job_id)
            if held is None or held.work is not work:
                return None  # lost already
            try:
                await self._fetch(held)
                return held.job
            except StaleAttempt:
                return None
            except Exception as error:  # noqa: BLE001 -- else the job would be held for ever
                job_id, told = held.job.job_id, describe(error)
                self._log.error("files cannot be kept", job_id=job_id, error=told)
                why = Failed("files_unavailable", "the worker cannot keep the job's files")
            with suppress(StaleAttempt):
                await self.record_outcome(held.job, why)
            return None

        return prepare

    # --- telling

    async def report(self, job: Job, report: Report) -> None:
        if isinstance(report, ArtifactStored):
            self._holding(job).files.add(report.sha256)
            await self._upload(job, report.sha256)
        name, body = wire.report_body(report)
        await self._until_heard(job, lambda: self._call(job, name, body))

    async def steps(self, job: Job) -> dict[str, Any]:
        return self._holding(job).work.steps

    async def submit_child(self, job: Job, name: str, spec: JobSpec) -> str:
        path, headers = wire.child_request(self.worker, job, name)
        put = partial(self._http.call, "PUT", path, json=wire.submission_body(spec))
        child = await self._until_heard(job, partial(put, headers=headers))
        path = f"/v1/jobs/{child['job_id']}"  # another one, if it is there since before an upgrade
        if child["can_retry"] and child["finished_at"] < rfc3339(job.started_us or 0):
            why = {"reason": "its parent runs again"}
            retry = partial(self._http.call, "POST", f"{path}/retry", json=why)
            await self._until_heard(job, retry)
        return str(child["job_id"])

    async def wait_for_job(self, job: Job, job_id: str) -> dict[str, Any]:
        path = f"/v1/jobs/{job_id}"
        page = {"next": 0, "end": False}
        while not page["end"]:
            asked = {"after": str(page["next"]), "wait": "10"}
            events = partial(self._http.call, "GET", f"{path}/events", params=asked)
            page = await self._until_heard(job, events)
        end = await self._until_heard(job, lambda: self._http.call("GET", path))
        artifacts = [(each["name"], each["sha256"], each["size"]) for each in end["artifacts"]]
        if (file := file_of(end["result"], artifacts)) is not None:
            await self._bring(self._holding(job), job_id, RESULT, file[0])
        return {**end, "file": file}

    async def record_outcome(self, job: Job, outcome: Outcome) -> None:
        self._holding(job).ending = True
        name, body = wire.outcome_body(outcome)
        small = isinstance(outcome, Succeeded) and len(encode_json(body)) <= TOGETHER_BYTES_MAX
        say = (
            partial(self._done.submit, (job, body))
            if small
            else partial(self._call, job, name, body)
        )
        try:
            await self._until_heard(job, say)
        except TooLarge:
            if not isinstance(outcome, Succeeded):
                raise
            body["result"] = await self._as_artifact(job, body["result"])
            await self._until_heard(job, say)
        if isinstance(outcome, Failed):
            log_failure(self._log, job, outcome, ended_us=self.clock.now_us())
        self._drop(job)

    async def _complete(self, done: Sequence[JobResult]) -> list[BaseException | None]:
        """Tell of jobs that are done; for each, why that does not count."""
        if len(done) > 1:
            sent = {"worker": self.worker, "jobs": [wire.completion_body(*each) for each in done]}
            try:
                answer = await self._http.call(
                    "POST", "/v1/work/complete", retry=False, json=sent, timeout=TELLING
                )
                self.outage.end()
                errors = [each["error"] for each in answer["jobs"]]
                return [error and ApiError.from_json(error) for error in errors]
            except ApiError as problem:
                if problem.status == 429 or problem.status > 500:
                    raise
                # Together they are too much, or one of them is: each by itself.
        calls = (self._call(job, "complete", body) for job, body in done)
        return await asyncio.gather(*calls, return_exceptions=True)

    async def send_heartbeats(self) -> None:
        """Send heartbeats for all that is held, until cancelled."""
        while True:
            if not self._held:
                self._any.clear()
                await self._any.wait()
            began_s = self.clock.monotonic_s()
            third_s = min(held.work.lease_s for held in self._held.values()) / 3
            await asyncio.gather(*(self._beat(each, third_s) for each in self._held.values()))
            took_s = self.clock.monotonic_s() - began_s
            wait_s = third_s if self.outage.code is None else min(third_s, 1.0)
            await sleep(self.clock, max(0.05, wait_s - took_s))

    async def _beat(self, held: HeldJob, limit_s: float) -> None:
        limit = aiohttp.ClientTimeout(total=max(limit_s, 0.5))
        try:
            await self._call(held.job, "heartbeat", {}, limit)
        except ApiError as problem:
            if problem.code not in LOST:
                self.outage.log(problem)
            elif not held.ending:  # else it has crossed the end on the way
                self._lose(held)
        except Unreachable as error:
            self.outage.log(error)

    async def _call(
        self, job: Job, name: str, body: dict[str, Any], limit: aiohttp.ClientTimeout = TELLING
    ) -> None:
        path = f"/v1/work/{job.job_id}/{job.attempt}/{name}"
        sent = {"worker": self.worker, **body}
        answer = await self._http.call("POST", path, retry=False, json=sent, timeout=limit)
        self.outage.end()
        if answer.get("cancel"):
            self._tell(job.job_id, job.attempt, "cancelled")

    async def _until_heard(self, job: Job, say: Callable[[], Awaitable[Answer]]) -> Answer:
        """Raises StaleAttempt when the attempt is lost, InvalidInput for what is not accepted."""
        while True:
            held = self._holding(job)
            try:
                return await say()
            except ApiError as problem:
                if problem.code in LOST:
                    self._lose(held)
                    raise StaleAttempt from problem
                if problem.is_final:
                    other = TooLarge if problem.status == 413 else InvalidInput
                    kind = TOO_LARGE.get(problem.code, other)
                    raise kind(problem.detail, problem.errors) from problem
                await self.outage.pause(problem)
            except Unreachable as error:
                await self.outage.pause(error)

    def _holding(self, job: Job) -> HeldJob:
        held = self._held.get(job.job_id)
        if held is None or held.job.attempt != job.attempt:
            raise StaleAttempt(f"attempt {job.attempt} is lost")
        return held

    def _lose(self, held: HeldJob) -> None:
        """Somebody else runs it, or nobody: stop it, and never mention it again."""
        job = held.job
        if self._held.get(job.job_id) is held:
            self._log.warning("attempt lost", job_id=job.job_id, attempt=job.attempt)
            self._drop(job)
            self._tell(job.job_id, job.attempt, "lost")

    def _drop(self, job: Job) -> None:
        held = self._held.pop(job.job_id, None)
        if held is not None and held.files:  # most jobs have none, and many may be held
            used = {each for other in self._held.values() for each in other.files}
            for each in held.files - used:
                remove = partial(self.files.path(each).unlink, missing_ok=True)
                asyncio.get_running_loop().run_in_executor(None, remove)

    # --- files

    async def _fetch(self, held: HeldJob) -> None:
        """Bring the job's files here."""
        for each in held.job.artifacts:
            await self._bring(held, held.job.job_id, each.name, each.sha256)

    async def _bring(self, held: HeldJob, job_id: str, name: str, sha256: str) -> None:
        """Bring a file here. What cannot be had is missing, as it would be there."""
        held.files.add(sha256)
        if await self.files.size(sha256) is None:
            path = f"/v1/jobs/{job_id}/artifacts/{quote(name, safe='')}"
            try:
                await self._until_heard(held.job, partial(self._download, path))
            except InvalidInput as error:
                self._log.warning("file missing", job_id=job_id, error=error.message)

    async def _download(self, path: str) -> None:
        async with self._http.request("GET", path, timeout=TRANSFER) as response:
            await self.files.receive(response.content.iter_chunked(BLOCK_BYTES))

    async def _upload(self, job: Job, sha256: str) -> None:
        file = self.files.path(sha256)
        send = partial(
            self._http.call,
            "POST",
            "/v1/artifacts",
            retry=False,
            data=partial(blocks, file),
            headers={"Content-Type": "application/octet-stream"},
            timeout=TRANSFER,
        )
        await self._until_heard(job, send)

    async def _as_artifact(self, job: Job, result: Any) -> dict[str, Any]:
        """Where to find *result*, which is too large for a report."""
        sha256, size = await asyncio.to_thread(self.files.store, orjson.dumps(result))
        stored = ArtifactStored(job.attempt, RESULT, sha256, size, "application/json")
        await self.report(job, stored)
        return large_result(size)

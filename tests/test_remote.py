"""The same handlers in another process: what they do there comes out as it would here."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from eventjobs.artifacts import Artifacts
from eventjobs.breakers import LocalBreakers
from eventjobs.calling import Calls
from eventjobs.clock import SystemClock
from eventjobs.connection import Connection
from eventjobs.errors import JobError
from eventjobs.events import (
    AttemptFailed,
    AttemptReleased,
    JobCancelled,
    LateReportRefused,
    LogWritten,
    ProgressReported,
)
from eventjobs.handlers import Context, Handler, ThreadContext, handler, outside
from eventjobs.remote import RemoteDesk
from eventjobs.runner import Runner
from tests.api_client import Client
from tests.conftest import Connect
from tests.facts import job_when, kinds, recorded_of
from tests.fake_clock import FakeClock

CLOCK = SystemClock()


class Elsewhere:
    """A worker, as far as it is not a process."""

    def __init__(self, desk: RemoteDesk, runner: Runner) -> None:
        self.desk = desk
        self.runner = runner
        self.claiming = asyncio.create_task(runner.run())
        self.beating = asyncio.create_task(desk.beat())

    async def stop(self, drain_s: float = 10.0) -> None:
        await self.desk.leave()
        await self.runner.stop(drain_s)
        await self.claiming
        self.beating.cancel()


@asynccontextmanager
async def elsewhere(
    api: Client, folder: Path, *handlers: Handler, lease_s: float | None = None, **limits: int
) -> AsyncIterator[Elsewhere]:
    """A worker for the service behind *api*; what it keeps is in *folder*."""
    files = Artifacts(folder, 2**30)
    await asyncio.to_thread(files.prepare)
    address = f"http://127.0.0.1:{api.listening.port}"
    async with aiohttp.ClientSession() as session:
        http = Connection(session, address, CLOCK, 60, lambda delay_s: None)
        calls = Calls(LocalBreakers(CLOCK))
        desk = RemoteDesk(
            http, worker="afar", lease_s=lease_s, files=files, calls=calls, clock=CLOCK
        )
        numbers = {"concurrency": 8, "threads": 4, **limits}
        runner = Runner(desk, handlers, **numbers, grace_s=0.2, progress_interval_s=0)  # type: ignore[arg-type]
        worker = Elsewhere(desk, runner)
        try:
            yield worker
        finally:
            await worker.stop(0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "worker"


def types(*handlers: Handler) -> list[Handler]:
    """They are known to the service, and not run there."""
    return [outside(each.type, model=each.model) for each in handlers]


@handler("loop")
async def loop(context: Context, payload: Any) -> Any:
    context.progress(1, 2, stage="first", message="half")
    context.log("a line", "warning", number=1)
    content = await asyncio.to_thread(context.input("in.txt").read_bytes)
    await context.artifact("out.txt", content.upper(), "text/plain")
    context.progress(2, 2)
    return {"attempt": context.attempt, "payload": payload}


@handler("thread")
def thread(context: ThreadContext, payload: Any) -> Any:
    context.progress(1, 2, stage="first", message="half")
    context.log("a line", "warning", number=1)
    content = context.input("in.txt").read_bytes()
    context.artifact("out.txt", content.upper(), "text/plain")
    context.progress(2, 2)
    return {"attempt": context.attempt, "payload": payload}


@pytest.mark.parametrize("made", [loop, thread], ids=["loop", "thread"])
async def test_a_handler_elsewhere_does_all_that_it_does_here(
    client: Connect, folder: Path, made: Handler
) -> None:
    api = await client(*types(made))
    sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
    async with elsewhere(api, folder, made):
        job = await api.submit(made.type, [1], artifacts={"in.txt": sha256})
        await api.service.wait(job["job_id"])
    done = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    assert (done["status"], done["result"]) == ("completed", {"attempt": 1, "payload": [1]})
    urls = {each["name"]: each["url"] for each in done["artifacts"]}
    assert (await api.get(urls["out.txt"])).body == b"TEXT"
    progress = await recorded_of(api.service, job["job_id"], ProgressReported)
    assert {each.actor for each in progress} == {"afar"}
    assert progress[0].event == ProgressReported(1, 1, 2, "first", "half")
    assert progress[-1].event == ProgressReported(1, 2, 2)
    [line] = await recorded_of(api.service, job["job_id"], LogWritten)
    assert line.event == LogWritten(1, "warning", "a line", {"number": 1})


async def test_files_of_jobs_that_are_over_are_not_kept(client: Connect, folder: Path) -> None:
    api = await client(*types(loop))
    sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
    async with elsewhere(api, folder, loop):
        job = await api.submit("loop", artifacts={"in.txt": sha256})
        await api.service.wait(job["job_id"])
        while files(folder):
            await asyncio.to_thread(str)


def files(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]


@handler("broken")
async def broken(context: Context, payload: Any) -> None:
    raise JobError("no_luck", "It did not work.", retryable=False, details={"x": 1})


async def test_an_error_keeps_its_code_and_details(client: Connect, folder: Path) -> None:
    api = await client(*types(broken))
    async with elsewhere(api, folder, broken):
        job = await api.submit("broken")
        done = await api.service.wait(job["job_id"])
    assert done.error == {"code": "no_luck", "message": "It did not work.", "retryable": False}
    [failed] = await recorded_of(api.service, job["job_id"], AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert failed.event.details == {"x": 1}


@handler("large")
async def large(context: Context, payload: int) -> str:
    context.log("too much", data="x" * payload)
    return "y" * payload


async def test_what_is_too_large_for_a_request_goes_as_a_file(
    client: Connect, folder: Path
) -> None:
    api = await client(*types(large))
    async with elsewhere(api, folder, large):
        job = await api.submit("large", 3_000_000)
        done = await api.service.wait(job["job_id"])
    assert done.result == {"artifact": "result.json", "size": 3_000_002}
    [artifact] = (await api.get(f"/v1/jobs/{job['job_id']}")).json["artifacts"]
    assert (await api.get(artifact["url"])).json == "y" * 3_000_000


@handler("endless")
async def endless(context: Context, payload: Any) -> None:
    context.progress(stage="begun")
    await asyncio.Event().wait()


@handler("endless")
def endless_thread(context: ThreadContext, payload: Any) -> None:
    context.progress(stage="begun")
    while True:
        context.check_cancelled()
        time.sleep(0)


BOTH_ENDLESS = pytest.mark.parametrize("forever", [endless, endless_thread], ids=["loop", "thread"])


async def begun(api: Client) -> str:
    """The id of a job that is being run elsewhere."""
    job_id: str = (await api.submit("endless"))["job_id"]
    await job_when(api.service, job_id, lambda job: job.version == 3)
    return job_id


@BOTH_ENDLESS
async def test_a_cancel_arrives(client: Connect, folder: Path, forever: Handler) -> None:
    api = await client(*types(forever))
    async with elsewhere(api, folder, forever, lease_s=1):
        job_id = await begun(api)
        await api("POST", f"/v1/jobs/{job_id}/cancel")
        assert (await api.service.wait(job_id)).status == "cancelled"
        [cancelled] = await recorded_of(api.service, job_id, JobCancelled)
        assert cancelled.actor == "afar"


@BOTH_ENDLESS
async def test_what_does_not_finish_is_given_back(
    client: Connect, folder: Path, forever: Handler
) -> None:
    api = await client(*types(forever))
    async with elsewhere(api, folder, forever) as worker:
        job_id = await begun(api)
        await worker.stop(0.0)
    [released] = await recorded_of(api.service, job_id, AttemptReleased)
    assert released.actor == "afar"
    job = await job_when(api.service, job_id, lambda job: True)
    assert (job.status, job.tries) == ("queued", 0)


@BOTH_ENDLESS
async def test_a_lost_attempt_is_stopped_and_says_nothing_more(
    client: Connect, folder: Path, forever: Handler, clock: FakeClock
) -> None:
    """The service's clock runs away from the worker's: to each the other one is too slow."""
    api = await client(*types(forever), clock=clock)
    async with elsewhere(api, folder, forever, lease_s=1, concurrency=1):
        job_id = await begun(api)
        await clock.advance(2)
        # It hears of it with its next heartbeat, stops, and has room for the next attempt.
        job = await job_when(api.service, job_id, lambda job: job.attempt == 2)
        assert await kinds(api.service, job_id) == (
            "JobSubmitted AttemptStarted ProgressReported AttemptFailed LateReportRefused"
            " AttemptStarted"
        )
        assert job.worker == "afar"
        [late] = await recorded_of(api.service, job_id, LateReportRefused)
        assert late.event == LateReportRefused(1, "heartbeat")


async def test_a_waiting_claim_is_ended_when_there_is_room_for_more_types(
    client: Connect, folder: Path
) -> None:
    """All threads are taken, so nothing for them is asked for; until one is free."""
    api = await client(*types(endless_thread, thread, loop))
    limits = {"threads": 1, "concurrency": 3}
    async with elsewhere(api, folder, endless_thread, thread, loop, lease_s=1, **limits):
        first = await begun(api)
        sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
        second = await api.submit("thread", artifacts={"in.txt": sha256})
        third = await api.submit("loop", artifacts={"in.txt": sha256})
        await api.service.wait(third["job_id"])
        assert await kinds(api.service, second["job_id"]) == "JobSubmitted"
        await api("POST", f"/v1/jobs/{first}/cancel")
        await api.service.wait(second["job_id"])


async def test_more_jobs_than_room(client: Connect, folder: Path) -> None:
    api = await client(*types(echo))
    ids = [(await api.submit("echo", number))["job_id"] for number in range(50)]
    async with elsewhere(api, folder, echo, concurrency=3):
        done = [await api.service.wait(each) for each in ids]
    assert [each.result for each in done] == list(range(50))
    assert {each.attempt for each in done} == {1}


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload

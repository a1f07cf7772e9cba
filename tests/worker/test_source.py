"""Handlers have the same outcomes in a remote worker, also with failing networks and services."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from eventjobs.client.connection import Connection
from eventjobs.clock import sleep
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    JobCancelled,
    LateReportRefused,
    LogWritten,
    ProgressReported,
)
from eventjobs.errors import DiskFull, JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Connect
from tests.support.child_jobs import square, sum_in_a_thread, sum_of
from tests.support.clock import FakeClock
from tests.support.hostile import ERRORS, RESULTS, SLOW
from tests.support.http_client import Client
from tests.support.log_lines import capture_logs
from tests.support.process_handlers import sum_of_squares
from tests.support.remote_runner import CLOCK, declare_remote, network_to, remote_runner
from tests.support.waiting import job_when, kinds, recorded_of, turns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "worker"


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


@pytest.mark.parametrize("own_handler", [loop, thread], ids=["loop", "thread"])
async def test_a_handler_elsewhere_does_all_that_it_does_here(
    client: Connect, folder: Path, own_handler: Handler
) -> None:
    api = await client(*declare_remote(own_handler))
    sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
    async with remote_runner(api, folder, own_handler):
        job = await api.submit(own_handler.type, [1], artifacts={"in.txt": sha256})
        await api.service.wait(job["job_id"])
    done = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    assert (done["status"], done["result"]) == ("completed", {"attempt": 1, "payload": [1]})
    urls = {each["name"]: each["url"] for each in done["artifacts"]}
    assert (await api.get(urls["out.txt"])).body == b"TEXT"
    progress = await recorded_of(api.service, job["job_id"], ProgressReported)
    assert {each.actor for each in progress} == {"afar"}
    assert progress[0].event == ProgressReported(1, 1, 2, "first", "half")
    assert progress[-1].event == ProgressReported(1, 2, 2)
    line, saved = await recorded_of(api.service, job["job_id"], LogWritten)
    assert line.event == LogWritten(1, "warning", "a line", {"number": 1})
    saves = f"Save file out.txt for job {job['job_id']}: Attempt 1/3"
    assert saved.event == LogWritten(1, "info", saves)


async def test_files_of_jobs_that_are_over_are_not_kept(client: Connect, folder: Path) -> None:
    api = await client(*declare_remote(loop))
    sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
    async with remote_runner(api, folder, loop):
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
    api = await client(*declare_remote(broken))
    async with remote_runner(api, folder, broken):
        job = await api.submit("broken")
        done = await api.service.wait(job["job_id"])
    assert done.error is not None
    assert (done.error["code"], done.error["retryable"]) == ("no_luck", False)
    assert done.error["message"] == "It did not work."
    [failed] = await recorded_of(api.service, job["job_id"], AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert failed.event.details == {"x": 1}


@handler("charge")
async def charge(context: Context, payload: Any) -> None:
    raise JobError("declined", f"{payload['card']} is declined", retryable=False)


async def test_no_log_has_a_value_of_a_field_that_the_service_declares_sensitive(
    client: Connect, folder: Path
) -> None:
    api = await client(remote("charge", sensitive=("card",)))
    with capture_logs() as lines:
        async with remote_runner(api, folder, charge):
            job = await api.submit("charge", {"card": "4111-1111"})
            await api.service.wait(job["job_id"])
    failed = [each for each in lines if each["event"] == "attempt failed"]
    assert [each["error"] for each in failed] == ["[hidden] is declined"] * 2
    assert "4111-1111" not in str(failed)


@handler("large")
async def large(context: Context, payload: int) -> str:
    context.log("too much", data="x" * payload)
    return "y" * payload


async def test_whatever_a_handler_elsewhere_raises_or_returns_ends_its_attempt(
    client: Connect, folder: Path
) -> None:
    @handler("odd", max_attempts=1)
    async def odd(context: Context, payload: list[str]) -> Any:
        kind, name = payload
        if kind == "raises":
            raise ERRORS[name]()
        return RESULTS[name]()

    api = await client(*declare_remote(odd))
    payloads = [["raises", each] for each in ERRORS if each not in SLOW]
    payloads += [["returns", each] for each in RESULTS if each not in SLOW]
    async with remote_runner(api, folder, odd):
        ids = [(await api.service.submit("odd", each)).job_id for each in payloads]
        jobs = [await api.service.wait(job_id) for job_id in ids]
    finished = [payload for payload, job in zip(payloads, jobs, strict=True) if not job.error]
    assert finished == [["returns", "dict"], ["returns", "list"]]


async def test_what_is_too_large_for_a_request_goes_as_a_file(
    client: Connect, folder: Path
) -> None:
    api = await client(*declare_remote(large))
    async with remote_runner(api, folder, large):
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


async def start_endless(api: Client) -> str:
    """The id of a job that the remote worker runs."""
    job_id: str = (await api.submit("endless"))["job_id"]
    await job_when(api.service, job_id, lambda job: job.version == 3)
    return job_id


@BOTH_ENDLESS
async def test_a_cancel_arrives(client: Connect, folder: Path, forever: Handler) -> None:
    api = await client(*declare_remote(forever))
    async with remote_runner(api, folder, forever, lease_s=1):
        job_id = await start_endless(api)
        await api("POST", f"/v1/jobs/{job_id}/cancel")
        assert (await api.service.wait(job_id)).status == "cancelled"
        [cancelled] = await recorded_of(api.service, job_id, JobCancelled)
        assert cancelled.actor == "afar"


async def test_what_does_not_finish_fails_where_its_type_says_so(
    client: Connect, folder: Path
) -> None:
    @handler("endless", on_shutdown="fail")
    async def endless(context: Context, payload: Any) -> None:
        context.progress(1, 2)
        await asyncio.Event().wait()

    api = await client(*declare_remote(endless))
    async with remote_runner(api, folder, endless) as worker:
        job_id = await start_endless(api)
        await worker.stop(0.0)
    job = await api.service.wait(job_id)
    assert (job.status, job.error and job.error["code"]) == ("failed", "worker_shutdown")


@BOTH_ENDLESS
async def test_what_does_not_finish_is_given_back(
    client: Connect, folder: Path, forever: Handler
) -> None:
    api = await client(*declare_remote(forever))
    async with remote_runner(api, folder, forever) as worker:
        job_id = await start_endless(api)
        await worker.stop(0.0)
    [released] = await recorded_of(api.service, job_id, AttemptReleased)
    assert released.actor == "afar"
    job = await job_when(api.service, job_id, lambda job: True)
    assert (job.status, job.tries) == ("queued", 0)


@BOTH_ENDLESS
async def test_a_lost_attempt_is_stopped_and_says_nothing_more(
    client: Connect, folder: Path, forever: Handler, clock: FakeClock
) -> None:
    """The service's clock is ahead, so the lease expires although heartbeats arrive."""
    api = await client(*declare_remote(forever), clock=clock)
    async with remote_runner(api, folder, forever, lease_s=1, concurrency=1):
        job_id = await start_endless(api)
        await clock.advance(2)
        # The next heartbeat is refused: the worker stops the attempt and claims the next one.
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
    """While all threads are busy no type for them is claimed."""
    api = await client(*declare_remote(endless_thread, thread, loop))
    limits: dict[str, Any] = {"threads": 1, "concurrency": 3}
    async with remote_runner(api, folder, endless_thread, thread, loop, lease_s=1, **limits):
        first = await start_endless(api)
        sha256 = (await api("POST", "/v1/artifacts", data=b"text")).json["sha256"]
        second = await api.submit("thread", artifacts={"in.txt": sha256})
        third = await api.submit("loop", artifacts={"in.txt": sha256})
        await api.service.wait(third["job_id"])
        assert await kinds(api.service, second["job_id"]) == "JobSubmitted"
        await api("POST", f"/v1/jobs/{first}/cancel")
        await api.service.wait(second["job_id"])


async def test_more_jobs_than_room(client: Connect, folder: Path) -> None:
    api = await client(*declare_remote(echo))
    ids = [(await api.submit("echo", number))["job_id"] for number in range(50)]
    async with remote_runner(api, folder, echo, concurrency=3):
        done = [await api.service.wait(each) for each in ids]
    assert [each.result for each in done] == list(range(50))
    assert {each.attempt for each in done} == {1}


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


class Meeting:
    """A barrier for *size* handlers."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._all = asyncio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._all.set()
        await self._all.wait()


@pytest.mark.parametrize(
    ("keys_max", "requests"),
    [(10_000, ["/v1/work/complete"]), (30, ["/v1/work/complete", *["complete"] * 8])],
    ids=["accepted", "too many keys for one request"],
)
async def test_jobs_that_end_at_the_same_time_are_told_of_together_if_they_can(
    client: Connect,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys_max: int,
    requests: list[str],
) -> None:
    meeting = Meeting(8)

    @handler("meet")
    async def meet(context: Context, payload: int) -> int:
        await meeting.wait()
        return payload

    called = []
    call = Connection.call

    async def call_and_note(http: Connection, method: str, path: str, **sent: Any) -> Any:
        called.append(path if path.count("/") == 3 else path.rpartition("/")[2])
        return await call(http, method, path, **sent)

    monkeypatch.setattr(Connection, "call", call_and_note)
    api = await client(*declare_remote(meet), keys_max=keys_max)
    ids = [(await api.submit("meet", number))["job_id"] for number in range(8)]
    async with remote_runner(api, folder, meet):
        done = [await api.service.wait(each) for each in ids]
        while called.count("complete") < requests.count("complete"):
            await asyncio.to_thread(str)
    assert [each.result for each in done] == list(range(8))
    assert [each for each in called if each.endswith("complete")] == requests


# --- outages


@handler("story")
async def story(context: Context, payload: Any) -> Any:
    """Tells something, waits until it is requests to go on, and tells the rest."""
    context.log("first")
    await context.artifact("first.txt", b"1")
    TURN.begun.set()
    await TURN.go_on.wait()
    context.log("second")
    await context.artifact("second.txt", b"2")
    return "the end"


class Turn:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()


TURN: Turn


@pytest.fixture
def turn() -> Turn:
    global TURN  # noqa: PLW0603  a handler of a module has nothing else to look at
    TURN = Turn()
    return TURN


async def test_nothing_is_lost_when_the_network_is_cut(
    client: Connect, folder: Path, turn: Turn
) -> None:
    api = await client(*declare_remote(story))
    async with network_to(api) as (network, port), remote_runner(api, folder, story, port=port):
        job = await api.submit("story")
        await turn.begun.wait()
        network.cut()
        turn.go_on.set()
        for _ in range(3):
            await sleep(CLOCK, 0.1)  # several requests fail meanwhile
            assert (await api.service.jobs.load(job["job_id"])).status == "running"  # type: ignore[union-attr]
        network.mend()
        done = await api.service.wait(job["job_id"])
    assert (done.result, done.attempt) == ("the end", 1)
    assert [each.name for each in done.artifacts] == ["first.txt", "second.txt"]
    lines = await recorded_of(api.service, job["job_id"], LogWritten)
    requests = [each.event.message for each in lines if isinstance(each.event, LogWritten)]
    saves = f"Save file %s.txt for job {job['job_id']}: Attempt 1/3"
    assert list(dict.fromkeys(requests)) == ["first", saves % "first", "second", saves % "second"]


async def test_a_service_whose_disk_is_full_is_told_again_later(
    client: Connect, folder: Path, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*declare_remote(story))
    append_many = api.service.log.append_many
    refused = asyncio.Semaphore(0)

    async def full(*args: Any, **kwargs: Any) -> Any:
        refused.release()
        raise DiskFull

    async with remote_runner(api, folder, story):
        job = await api.submit("story")
        await turn.begun.wait()
        monkeypatch.setattr(api.service.log, "append_many", full)
        turn.go_on.set()
        for _ in range(3):
            await refused.acquire()
        monkeypatch.setattr(api.service.log, "append_many", append_many)
        done = await api.service.wait(job["job_id"])
    assert (done.result, done.attempt) == ("the end", 1)
    assert [each.name for each in done.artifacts] == ["first.txt", "second.txt"]


async def test_a_claim_that_was_not_answered_is_not_lost(
    client: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service has claimed, and the connection breaks before the response is sent."""
    api = await client(*declare_remote(echo))
    claim = api.service.claims.claim
    async with network_to(api) as (network, port):

        async def and_cut(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(api.service.claims, "claim", claim)
            job = await claim(*args, **kwargs)
            network.cut()  # before the response
            network.mend()
            return job

        monkeypatch.setattr(api.service.claims, "claim", and_cut)
        async with remote_runner(api, folder, echo, port=port):
            job = await api.submit("echo", 1)
            done = await api.service.wait(job["job_id"])
    assert (done.result, done.attempt) == (1, 1)
    assert await kinds(api.service, job["job_id"]) == "JobSubmitted AttemptStarted JobCompleted"


async def test_a_type_that_the_service_does_not_know_is_a_refusal_for_good(
    client: Connect, folder: Path
) -> None:
    api = await client(*declare_remote(loop))
    with capture_logs() as lines:
        async with remote_runner(api, folder, echo) as worker:
            assert (await worker.source.outage.refused).code == "unknown_type"
            worker.source.interrupt_wait()
            await turns()
    refusals = [line["code"] for line in lines if line["event"] == "request refused"]
    assert refusals == ["unknown_type"]  # the worker stopped claiming
    assert "service does not answer; trying on" not in [line["event"] for line in lines]


@pytest.mark.parametrize("parent", [sum_of, sum_in_a_thread, sum_of_squares])
async def test_a_handler_elsewhere_submits_jobs_and_waits_for_them(
    client: Connect, folder: Path, parent: Handler
) -> None:
    api = await client(square, *declare_remote(parent))
    async with remote_runner(api, folder, parent, processes=1):
        job = await api.service.submit(parent.type, [1, 2, 3])
        job = await api.service.wait(job.job_id)
    assert (job.status, job.result) == ("completed", 14), job.error
    page = (await api.get(f"/v1/jobs?parent={job.job_id}")).json
    assert sorted(each["payload"] for each in page["jobs"]) == [1, 2, 3]

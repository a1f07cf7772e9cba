"""Asked why a job is where it is, the service tells every reason there is, and no other."""

import asyncio
from typing import Any

import pytest

from eventjobs.domain.events import AttemptStarted
from eventjobs.domain.job import Job
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.log import NewEvent
from tests.conftest import Connect
from tests.support.appends import at_each_append
from tests.support.child_jobs import child_of
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.waiting import job_when, time_passing


@handler("noop")
async def noop(context: Context, payload: Any) -> Any:
    return payload


class Slow:
    """A handler that runs until it is let go."""

    def __init__(self, type: str = "slow", **limits: Any) -> None:
        self.go = asyncio.Event()

        @handler(type, **limits)
        async def slow(context: Context, payload: Any) -> None:
            await self.go.wait()

        self.handler = slow


async def why(api: Client, job: Any) -> list[Any]:
    reply = await api.get(f"/v1/jobs/{job['job_id']}/why")
    assert reply.status == 200, reply.body
    assert reply.json["job_id"] == job["job_id"]
    reasons: list[Any] = reply.json["reasons"]
    return reasons


async def codes(api: Client, job: Any) -> list[str]:
    return [each["code"] for each in await why(api, job)]


async def runs(api: Client, job: Any) -> Any:
    return await job_when(api.service, job["job_id"], lambda each: each.status == "running")


# --- time


async def test_a_scheduled_job_waits_for_its_time(client: Connect) -> None:
    api = await client(noop)
    job = await api.submit("noop", run_at="2999-01-31T12:00:00Z")
    [reason] = await why(api, job)
    assert reason == {
        "code": "scheduled",
        "text": "it is not to run before 2999-01-31T12:00:00.000000Z",
        "until": "2999-01-31T12:00:00.000000Z",
    }


async def test_a_job_that_failed_waits_for_its_next_attempt(client: Connect) -> None:
    @handler("fails", retry_delay_s=3600)
    async def fails(context: Context, payload: Any) -> None:
        raise JobError("no_line", "the line is dead")

    api = await client(fails, retry_delay_max_s=7200)
    job = await api.submit("fails")
    failed = await job_when(api.service, job["job_id"], lambda each: each.error is not None)
    [reason] = await why(api, job)
    assert (reason["code"], reason["attempt"], reason["max_attempts"]) == ("retry_delay", 1, 3)
    assert reason["error"] == (await api.get(f"/v1/jobs/{failed.job_id}")).json["error"]
    assert reason["error"]["code"] == "no_line"
    assert reason["until"] == (await api.get(f"/v1/jobs/{failed.job_id}")).json["run_at"]


async def test_a_breaker_that_its_newest_attempt_met_is_named_while_it_is_open(
    client: Connect, clock: FakeClock
) -> None:
    up = False

    @handler("calls", max_attempts=9, retry_delay_s=7200)
    async def calls(context: Context, payload: str) -> None:
        async with context.breaker(payload, threshold=1, cooldown_s=3600):
            if not up:
                raise OSError

    api = await client(calls, clock=clock, retry_delay_max_s=9999)
    job, other = [await api.submit("calls", "llm"), await api.submit("calls", "mail")]
    for each in (job, other):
        await job_when(api.service, each["job_id"], lambda job: job.error is not None)
    assert (await codes(api, other)).count("breaker_open") == 1
    _, reason = await why(api, job)
    assert (reason["code"], reason["breaker"]) == ("breaker_open", "llm")
    assert reason["until"] == "2025-01-01T01:00:00.000000Z"
    late = await api.submit("calls", "llm")
    await job_when(api.service, late["job_id"], lambda job: job.error is not None)
    assert "breaker_open" in await codes(api, late), "it found it open"

    up = True
    await clock.advance(3600)
    await api.service.wait((await api.submit("calls", "llm"))["job_id"])
    assert await codes(api, job) == ["retry_delay"], "another job has found out that it is closed"


# --- who is in the way


@pytest.mark.parametrize("limit", ["key", "type"])
async def test_a_job_kept_out_by_the_one_it_is_a_part_of_says_so(
    client: Connect, limit: str
) -> None:
    """They wait for each other, for ever; the limit is configured, and stays."""

    @handler("deep", concurrency=2 if limit == "type" else None)
    async def deep(context: Context, depth: int) -> Any:
        fields = {"concurrency_key": "k"} if limit == "key" and depth == 1 else {}
        return await context.result(await context.submit("deep", depth - 1, **fields))

    api = await client(deep)
    key = {"concurrency_key": "k"} if limit == "key" else {}
    top = await api.submit("deep", 2, **key)
    middle = await job_when(api.service, await child_of(api.service, top["job_id"]), is_running)
    low = {"job_id": await child_of(api.service, middle.job_id)}
    [reason] = await why(api, low)
    first = middle.job_id if limit == "type" else top["job_id"]
    assert reason["code"] == {"key": "concurrency_key", "type": "type_limit"}[limit]
    assert first in [each["job_id"] for each in reason["jobs"]]
    assert reason["text"].endswith(
        f"the job is a descendant of {first}: if that waits for it, neither continues"
    )
    await api("POST", f"/v1/jobs/{top['job_id']}/cancel", {})
    await api.service.wait(low["job_id"])
    [reason] = await why(api, low)
    assert reason["code"] == "parent_cancelled"
    assert reason["jobs"] == [{"job_id": middle.job_id}]
    assert reason["by"] == "service"
    assert middle.job_id in reason["reason"]


def is_running(job: Job) -> bool:
    return job.status == "running"


async def test_a_key_is_held_by_a_job_since_a_time(client: Connect) -> None:
    slow = Slow()
    api = await client(slow.handler)
    first = await api.submit("slow", concurrency_key="k 1")
    holder = await runs(api, first)
    second = await api.submit("slow", concurrency_key="k 1")
    [reason] = await why(api, second)
    started = (await api.get(f"/v1/jobs/{holder.job_id}")).json["started_at"]
    assert reason == {
        "code": "concurrency_key",
        "text": f"key k 1 is held by job {holder.job_id} since {started}",
        "key": "k 1",
        "limit": 1,
        "running": 1,
        "jobs": [{"job_id": holder.job_id, "since": started}],
    }
    slow.go.set()
    await api.service.wait(second["job_id"])
    assert await codes(api, second) == ["completed"]


async def test_full_types_and_queues_are_told_together(client: Connect) -> None:
    slow = Slow(concurrency=2, queue="post")
    api = await client(slow.handler, queue_limits="post=2")
    running = [await api.submit("slow") for _ in range(2)]
    for each in running:
        await runs(api, each)
    job = await api.submit("slow")
    of_type, of_queue = await why(api, job)
    assert (of_type["code"], of_type["type"]) == ("type_limit", "slow")
    assert (of_queue["code"], of_queue["queue"]) == ("queue_limit", "post")
    for reason in (of_type, of_queue):
        assert (reason["limit"], reason["running"]) == (2, 2)
        assert {each["job_id"] for each in reason["jobs"]} == {each["job_id"] for each in running}
    slow.go.set()


async def test_a_rate_says_when_the_next_may_start(client: Connect, clock: FakeClock) -> None:
    @handler("paced", rate="1/m")
    async def once_a_minute(context: Context, payload: Any) -> None:
        pass

    api = await client(once_a_minute, clock=clock)
    first, second = [await api.submit("paced") for _ in range(2)]
    await api.service.wait(first["job_id"])
    [reason] = await why(api, second)
    assert (reason["code"], reason["rate"]) == ("rate_limit", "1/m")
    assert reason["until"] == "2025-01-01T00:01:00.000000Z"


async def test_pauses_say_by_whom_since_when_and_why(client: Connect) -> None:
    api = await client(noop)
    pause = (await api("POST", "/v1/types/noop/pause", {"reason": "too hot"})).json["paused"]
    await api("POST", "/v1/queues/default/pause")
    job = await api.submit("noop")
    of_type, of_queue = await why(api, job)
    assert of_type == {
        "code": "paused_type",
        "text": f"type noop is paused by http since {pause['since']}: too hot",
        "type": "noop",
        **pause,
    }
    assert (of_queue["code"], of_queue["queue"], of_queue["reason"]) == (
        "paused_queue",
        "default",
        None,
    )


async def test_a_job_waits_for_other_jobs(client: Connect) -> None:
    slow = Slow()
    api = await client(slow.handler, noop)
    first = await api.submit("slow")
    await runs(api, first)
    job = await api.submit("noop", after=[first["job_id"]])
    [reason] = await why(api, job)
    assert reason == {
        "code": "dependency",
        "text": f"it waits for job {first['job_id']}, which is running",
        "jobs": [{"job_id": first["job_id"], "status": "running"}],
    }
    slow.go.set()
    await api.service.wait(job["job_id"])


# --- who could run it


async def test_nobody_has_asked_for_jobs_of_its_type(client: Connect) -> None:
    api = await client(remote("elsewhere"), noop)
    job = await api.submit("elsewhere")
    [reason] = await why(api, job)
    assert (reason["code"], reason["type"]) == ("no_worker", "elsewhere")
    claim = {"worker": "w-1", "types": ["elsewhere"], "wait_s": 0}
    assert len((await api("POST", "/v1/work/claim", claim)).json["jobs"]) == 1
    other = await api.submit("elsewhere")
    [reason] = await why(api, other)
    assert reason["code"] == "busy", "somebody did ask, and does not now"


async def test_everybody_is_busy(client: Connect) -> None:
    slow = Slow()
    api = await client(slow.handler, noop, concurrency=1)
    await runs(api, await api.submit("slow"))
    job = await api.submit("noop")
    assert await codes(api, job) == ["busy"]
    slow.go.set()
    await api.service.wait(job["job_id"])


async def test_nothing_is_in_its_way(client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is being claimed, and a claim for more waits."""
    api = await client(noop)
    job_id = "00000000-0000-4000-8000-000000000001"
    is_free = asyncio.Event()

    async def wait(new: NewEvent) -> None:
        if isinstance(new.event, AttemptStarted):
            await is_free.wait()

    at_each_append(monkeypatch, api.service.log, before=wait)
    job = (await api("PUT", f"/v1/jobs/{job_id}", {"type": "noop"})).json
    while not api.service.claims.waiters.has_capacity_for("noop", child=False):  # noqa: ASYNC110  no event for it
        await asyncio.sleep(0)
    assert await codes(api, job) == ["ready"]
    is_free.set()
    await api.service.wait(job_id)


# --- running


async def test_a_running_job_says_where_since_when_and_whether_it_is_to_stop(
    client: Connect,
) -> None:
    slow = Slow()
    api = await client(slow.handler)
    job = await api.submit("slow")
    started = await runs(api, job)
    [reason] = await why(api, job)
    assert (reason["code"], reason["worker"]) == ("running", started.worker)
    assert (reason["attempt"], reason["max_attempts"]) == (1, 3)
    assert "lease_s" not in reason
    slow.go.set()


async def test_a_worker_elsewhere_was_heard_from_at_a_time(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(remote("elsewhere"), clock=clock)
    job = await api.submit("elsewhere")
    claim = {"worker": "w-1", "types": ["elsewhere"], "wait_s": 0, "lease_s": 60}
    assert len((await api("POST", "/v1/work/claim", claim)).json["jobs"]) == 1
    begun = (await api.get(f"/v1/jobs/{job['job_id']}")).json["started_at"]
    for _ in range(40):
        await clock.advance(0.25)
    address = f"/v1/work/{job['job_id']}/1"
    assert (await api("POST", f"{address}/heartbeat", {"worker": "w-1"})).status == 200
    await clock.advance(0.25)
    await api("POST", f"/v1/jobs/{job['job_id']}/cancel", {"reason": "enough"})
    running, stopping = await why(api, job)
    assert (running["since"], running["lease_s"], running["worker"]) == (begun, 60, "w-1")
    assert running["heard_at"] == "2025-01-01T00:00:10.000000Z"
    assert running["text"].endswith(" every 60 s, last at 2025-01-01T00:00:10.000000Z")
    assert (stopping["code"], stopping["by"], stopping["reason"]) == ("stopping", "http", "enough")


async def test_a_worker_that_is_not_heard_from_has_gone(client: Connect, clock: FakeClock) -> None:
    api = await client(remote("elsewhere"), clock=clock)
    job = await api.submit("elsewhere", max_attempts=2)
    claim = {"worker": "w-1", "types": ["elsewhere"], "wait_s": 0, "lease_s": 60}
    assert len((await api("POST", "/v1/work/claim", claim)).json["jobs"]) == 1
    for _ in range(4 * 40 - 1):
        await clock.advance(0.25)
    assert await codes(api, job) == ["running"]
    await clock.advance(0.25)
    _, gone = await why(api, job)
    assert (gone["code"], gone["worker"]) == ("worker_gone", "w-1")
    assert gone["text"] == "its worker has gone: w-1 has not reported for 40 s"
    assert gone["since"] == "2025-01-01T00:00:00.000000Z"
    await time_passing(clock, job_when(api.service, job["job_id"], lambda job: bool(job.error)))
    *_, lost = await why(api, job)
    assert lost["code"] == "worker_gone"
    assert lost["text"].startswith("its worker has gone: attempt 1 was lost, not heard from for ")
    assert len((await api("POST", "/v1/work/claim", claim)).json["jobs"]) == 1
    ended = await time_passing(clock, api.service.wait(job["job_id"]))
    assert ended.status == "failed"
    [failed] = await why(api, job)
    assert failed["text"].startswith("its worker has gone: attempt 2 failed with worker_lost")


# --- ended


async def test_what_ended_a_job_is_told(client: Connect) -> None:
    @handler("fails", max_attempts=2, retry_delay_s=0)
    async def fails(context: Context, payload: bool) -> None:
        raise JobError("broken", "it does not work", retryable=payload)

    api = await client(noop, fails)
    done = await api.submit("noop")
    await api.service.wait(done["job_id"])
    [reason] = await why(api, done)
    assert (reason["code"], reason["attempt"]) == ("completed", 1)

    for retryable, attempt, last in ((True, 2, "no attempt is left"), (False, 1, "not retryable")):
        failed = await api.submit("fails", retryable)
        await api.service.wait(failed["job_id"])
        [reason] = await why(api, failed)
        assert (reason["code"], reason["attempt"]) == ("failed", attempt)
        assert reason["error"]["code"] == "broken"
        assert "broken: it does not work" in reason["text"]
        assert last in reason["text"]


async def test_who_cancelled_a_job_is_told_and_not_who_obeyed(client: Connect) -> None:
    slow = Slow()
    api = await client(slow.handler, noop)
    running = await api.submit("slow")
    await runs(api, running)
    waiting = await api.submit("noop", run_at="2999-01-01T00:00:00Z")
    for job in (running, waiting):
        await api("POST", f"/v1/jobs/{job['job_id']}/cancel", {"reason": "a slip"})
        await api.service.wait(job["job_id"])
        [reason] = await why(api, job)
        assert (reason["code"], reason["by"], reason["reason"]) == ("cancelled", "http", "a slip")
        assert reason["text"].endswith(": a slip")


async def test_a_job_that_waited_for_one_that_failed_says_so(client: Connect) -> None:
    @handler("fails", max_attempts=1)
    async def fails(context: Context, payload: Any) -> None:
        raise OSError

    api = await client(noop, fails)
    first = await api.submit("fails")
    job = await api.submit("noop", after=[first["job_id"]])
    await api.service.wait(job["job_id"])
    [reason] = await why(api, job)
    assert (reason["code"], reason["jobs"]) == ("dependency_failed", [{"job_id": first["job_id"]}])


async def test_a_job_that_was_queued_again_says_what_it_waits_for_now(client: Connect) -> None:
    api = await client(noop)
    job = await api.submit("noop", run_at="2999-01-01T00:00:00Z")
    await api("POST", f"/v1/jobs/{job['job_id']}/cancel", {})
    await api("POST", "/v1/types/noop/pause", {})
    await api("POST", f"/v1/jobs/{job['job_id']}/retry", {})
    assert await codes(api, job) == ["paused_type"]


async def test_no_job_has_no_reason(client: Connect) -> None:
    api = await client(noop)
    for wrong in ("00000000-0000-4000-8000-000000000001", "x"):
        reply = await api.get(f"/v1/jobs/{wrong}/why")
        assert (reply.status, reply.code) == (404, "job_not_found")
    job = await api.submit("noop")
    await api.service.wait(job["job_id"])
    await api("DELETE", f"/v1/jobs/{job['job_id']}")
    reply = await api.get(f"/v1/jobs/{job['job_id']}/why")
    assert (reply.status, reply.code) == (410, "job_gone")


async def test_after_a_restart_a_key_is_still_held_by_whom_it_was(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(remote("elsewhere"), clock=clock)
    holder = await api.submit("elsewhere", concurrency_key="k")
    claim = {"worker": "w", "types": ["elsewhere"], "wait_s": 0, "lease_s": 600}
    await api("POST", "/v1/work/claim", claim)
    job = await api.submit("elsewhere", concurrency_key="k")
    await time_passing(clock, api.service.close())
    api = await client(remote("elsewhere"), clock=clock)
    assert (await api("POST", "/v1/work/claim", claim)).json["jobs"] == []
    reasons = await why(api, job)
    assert [each["code"] for each in reasons] == ["concurrency_key", "busy"][: len(reasons)]
    assert reasons[0]["jobs"][0]["job_id"] == holder["job_id"]


async def test_a_failure_is_explained_with_its_traceback_if_it_has_one(client: Connect) -> None:
    @handler("fails", retry_delay_s=3600)
    async def fails(context: Context, payload: str) -> None:
        raise ValueError("no such row") if payload == "trace" else JobError("no_line", "dead")

    api = await client(fails, retry_delay_max_s=7200)
    for payload in ("trace", "none"):
        job = await api.submit("fails", payload)
        await job_when(api.service, job["job_id"], lambda each: each.error is not None)
        [reason] = await why(api, job)
        assert ("trace" in reason) == (payload == "trace")
        assert "no such row" in reason.get("trace", "no such row")

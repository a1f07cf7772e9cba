"""Jobs that wait for other jobs: when they start, and what becomes of them when those fail."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs.domain.events import JobCancelled
from eventjobs.domain.ids import new_id
from eventjobs.errors import InvalidInput, JobError, UnknownJob
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.cli import Tool
from tests.support.http_client import Client
from tests.support.waiting import job_when, kinds, recorded_of

NOBODY = "00000000-0000-4000-8000-000000000001"
ID = "00000000-0000-4000-8000-{:012d}".format


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise JobError("broken", "it does not work")


@handler("hold")
async def hold(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


class Gate:
    """Jobs of its handler fail in their first *failures* runs, once it is open."""

    def __init__(self, failures: int = 0) -> None:
        self.opened = asyncio.Event()
        self.failures = failures

        @handler("gate", max_attempts=1)
        async def gate(context: Context, payload: Any) -> None:
            await self.opened.wait()
            if context.attempt <= self.failures:
                raise JobError("shut", "not yet")

        self.handler = gate


async def when_ended(service: Service, *ids: str) -> list[str]:
    return [(await service.wait(each)).status for each in ids]


async def why_cancelled(service: Service, job_id: str) -> tuple[str, str | None]:
    """By whom, and the reason."""
    cancelled = (await recorded_of(service, job_id, JobCancelled))[-1]
    assert isinstance(cancelled.event, JobCancelled)
    return cancelled.actor, cancelled.event.reason


async def test_a_job_starts_when_all_that_it_waits_for_are_completed(serve: Serve) -> None:
    first, second = Gate(), Gate()
    service = await serve(first.handler, handler("other")(second.handler.function), ok)
    a = await service.submit("gate")
    b = await service.submit("other")
    last = await service.submit("ok", after=[a.job_id, b.job_id], priority=1000)
    first.opened.set()
    await service.wait(a.job_id)
    bystander = await service.submit("ok")
    await service.wait(bystander.job_id)
    assert await service.views.unmet_dependencies(last.job_id) == [(b.job_id, "running")]
    assert await kinds(service, last.job_id) == "JobSubmitted"
    second.opened.set()
    assert await when_ended(service, last.job_id) == ["completed"]
    job, waited_for = await service.wait(last.job_id), await service.wait(b.job_id)
    assert (job.started_us or 0) >= (waited_for.finished_us or 0) > 0


async def test_what_is_completed_already_is_not_waited_for(serve: Serve) -> None:
    service = await serve(ok)
    done = await service.submit("ok")
    await service.wait(done.job_id)
    await service.jobs.expire(done.job_id, "hidden, and still completed", actor="test")
    job = await service.submit("ok", after=[done.job_id])
    assert await when_ended(service, job.job_id) == ["completed"]


async def test_a_failure_cancels_all_that_waited_for_it_and_says_why(serve: Serve) -> None:
    gate = Gate(failures=1)
    service = await serve(gate.handler, ok)
    root = await service.submit("gate")
    child = await service.submit("ok", after=[root.job_id])
    grandchild = await service.submit("ok", after=[child.job_id])
    gate.opened.set()
    ids = root.job_id, child.job_id, grandchild.job_id
    assert await when_ended(service, *ids) == ["failed", "cancelled", "cancelled"]
    why = f"it waited for {root.job_id}, which failed"
    assert await why_cancelled(service, child.job_id) == ("service", why)
    why = f"it waited for {child.job_id}, which was cancelled"
    assert await why_cancelled(service, grandchild.job_id) == ("service", why)


async def test_a_failure_of_before_cancels_too(serve: Serve) -> None:
    service = await serve(fail, ok)
    failed = await service.submit("fail")
    await service.wait(failed.job_id)
    job = await service.submit("ok", after=[failed.job_id])
    assert await when_ended(service, job.job_id) == ["cancelled"]


async def test_a_job_that_runs_anyway_waits_for_the_end_only(serve: Serve) -> None:
    gate = Gate(failures=9)
    service = await serve(gate.handler, ok)
    root = await service.submit("gate")
    job = await service.submit("ok", after=[root.job_id], after_failure="run")
    assert await kinds(service, job.job_id) == "JobSubmitted"
    gate.opened.set()
    assert await when_ended(service, root.job_id, job.job_id) == ["failed", "completed"]
    assert job.spec.after_failure == "run"


async def test_a_job_that_runs_anyway_does_not_start_while_the_other_only_stops(
    serve: Serve,
) -> None:
    stops, go = asyncio.Event(), asyncio.Event()

    @handler("stubborn")
    async def stubborn(context: Context, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stops.set()
            await go.wait()

    service = await serve(stubborn, ok)
    root = await service.submit("stubborn")
    job = await service.submit("ok", after=[root.job_id], after_failure="run", priority=1000)
    await job_when(service, root.job_id, lambda job: job.status == "running")
    await service.jobs.cancel(root.job_id, actor="test")
    await stops.wait()
    bystander = await service.submit("ok")
    await service.wait(bystander.job_id)
    assert await service.views.unmet_dependencies(job.job_id) == [(root.job_id, "running")]
    assert await kinds(service, job.job_id) == "JobSubmitted"
    go.set()
    assert await when_ended(service, root.job_id, job.job_id) == ["cancelled", "completed"]


async def test_retries_of_a_failing_job_are_waited_for(serve: Serve) -> None:
    @handler("flaky", max_attempts=3, retry_delay_s=0)
    async def flaky(context: Context, payload: Any) -> None:
        if context.attempt < 3:
            raise JobError("flaky", "again")

    service = await serve(flaky, ok)
    root = await service.submit("flaky")
    job = await service.submit("ok", after=[root.job_id])
    assert await when_ended(service, job.job_id) == ["completed"]


async def test_both_can_be_retried_by_hand_and_then_the_one_waits_again(serve: Serve) -> None:
    gate = Gate(failures=1)
    gate.opened.set()
    service = await serve(gate.handler, ok)
    root = await service.submit("gate")
    job = await service.submit("ok", after=[root.job_id])
    assert await when_ended(service, job.job_id) == ["cancelled"]
    # While what it waits for is failed, a retry ends the same way.
    before = (await service.jobs.retry(job.job_id, actor="test")).job.version
    again = await job_when(service, job.job_id, lambda job: job.finished and job.version > before)
    assert (again.status, again.attempt) == ("cancelled", 0)
    gate.opened.clear()
    await service.jobs.retry(root.job_id, actor="test")
    await service.jobs.retry(job.job_id, actor="test")
    await service.views.wait_for_position(service.log.head)
    [(waited_for, _)] = await service.views.unmet_dependencies(job.job_id)
    assert waited_for == root.job_id
    gate.opened.set()
    assert await when_ended(service, root.job_id, job.job_id) == ["completed", "completed"]


async def test_a_stop_in_between_forgets_nobody(serve: Serve, monkeypatch: Any) -> None:
    """Cut off after the failure and before its dependents were cancelled."""
    service = await serve(ok, fail, concurrency=0)
    root = await service.submit("fail")
    ids = [(await service.submit("ok", after=[root.job_id])).job_id for _ in range(5)]
    await service.close()
    again = Service(handlers=[ok, fail], settings=service.settings)

    async def never(self: Any) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr("eventjobs.maintenance.cascade.CascadeCanceller.run", never)
        await again.start()
        await again.jobs.cancel(root.job_id, actor="test")
        await again.close()
    third = await serve(ok, fail, concurrency=0)
    assert await when_ended(third, *ids) == ["cancelled"] * 5
    assert len(await recorded_of(third, ids[0], JobCancelled)) == 1


# --- what may be waited for


async def test_what_is_not_there_cannot_be_waited_for(client: Connect) -> None:
    api = await client(ok)
    there = await api.submit("ok")
    given = {"type": "ok", "after": [there["job_id"], NOBODY], "parent": NOBODY}
    reply = await api("POST", "/v1/jobs", given)
    assert (reply.status, reply.code) == (422, "unknown_job")
    assert reply.fields == ["after.1", "parent"]
    for wrong in (["x"], "x", [NOBODY] * 101, [5]):
        reply = await api("POST", "/v1/jobs", {"type": "ok", "after": wrong})
        assert (reply.status, reply.code) == (422, "invalid_input"), wrong
    reply = await api("PUT", f"/v1/jobs/{NOBODY}", {"type": "ok", "after": [NOBODY]})
    assert (reply.status, reply.code) == (422, "unknown_job"), "nor can a job wait for itself"
    with pytest.raises(UnknownJob):
        await api.service.submit("ok", after=[NOBODY])
    with pytest.raises(InvalidInput, match="submission"):
        await api.service.submit("ok", after=[there["job_id"]], after_failure="explode")


async def test_a_job_tells_what_it_waits_for(client: Connect) -> None:
    api = await client(ok, hold, drain_s=0)
    first = await api.submit("hold")
    upper = first["job_id"].upper()
    second = await api.submit("ok", after=[upper, first["job_id"]], after_failure="run")
    assert (second["after"], second["after_failure"]) == ([first["job_id"]], "run")
    assert (first["after"], first["after_failure"], first["parent"]) == ([], "cancel", None)
    again = {"type": "ok", "after": [first["job_id"]], "after_failure": "run"}
    reply = await api("PUT", f"/v1/jobs/{second['job_id']}", {**again, "payload": None})
    assert reply.status == 200, "the same submission again"


async def batch(api: Client, lines: list[dict[str, Any]]) -> list[Any]:
    body = b"\n".join(map(orjson.dumps, lines))
    headers = {"Content-Type": "application/x-ndjson"}
    reply = await api("POST", "/v1/jobs/batch", data=body, headers=headers)
    return [orjson.loads(each) for each in reply.body.splitlines()]


async def test_lines_of_a_batch_may_wait_for_lines_before_them(client: Connect) -> None:
    api = await client(ok)
    lines = [
        {"type": "ok", "job_id": ID(100 + n), "after": [ID(99 + n)] if n else []} for n in range(60)
    ]
    outcomes = await batch(api, lines)
    assert {each["status"] for each in outcomes} == {202}
    assert await when_ended(api.service, ID(159)) == ["completed"]
    # Lines after it are not there yet, nor is the line itself.
    circle = [
        {"type": "ok", "job_id": ID(1), "after": [ID(2)]},
        {"type": "ok", "job_id": ID(2), "after": [ID(2)]},
    ]
    assert [each["status"] for each in await batch(api, circle)] == [422, 422]


async def test_the_command_line_submits_what_waits(client: Connect, tmp_path: Path) -> None:
    api = await client(ok, hold, drain_s=0)
    first = await api.submit("hold")
    tool = Tool(f"http://127.0.0.1:{api.listening.port}", tmp_path)
    arguments = ["submit", "ok", "--after", first["job_id"], "--after-failure", "run"]
    arguments += ["--ttl", "2h", "--json"]
    process = await asyncio.to_thread(tool.spawn, *arguments)
    assert process.returncode == 0, process.stderr
    [job] = (await api.get("/v1/jobs?type=ok")).json["jobs"]
    assert (job["after"], job["after_failure"]) == ([first["job_id"]], "run")
    done = await api.service.jobs.load(job["job_id"])
    assert done is not None
    assert done.spec.ttl_s == 7200


async def test_many_that_wait_for_one_do_not_hold_up_others(serve: Serve) -> None:
    service = await serve(ok, hold, drain_s=0)
    root = await service.submit("hold")
    ids = [new_id(number * 1_000_000) for number in range(500)]
    await asyncio.gather(
        *(service.submit("ok", job_id=each, after=[root.job_id], priority=9) for each in ids)
    )
    job = await service.submit("ok")
    assert await when_ended(service, job.job_id) == ["completed"]
    await service.jobs.cancel(root.job_id, "enough", actor="test")
    assert set(await when_ended(service, *ids)) == {"cancelled"}

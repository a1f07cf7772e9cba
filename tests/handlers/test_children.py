"""Child jobs: each is submitted once, cancelled with its parent, and waited for."""

from typing import Any

import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    CancelRequested,
    JobCancelled,
    JobRetried,
    JobSubmitted,
)
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Connect, Serve
from tests.support.child_jobs import (
    child_of,
    children,
    hold,
    running,
    square,
    sum_in_a_thread,
    sum_of,
)
from tests.support.process_handlers import sum_of_squares
from tests.support.waiting import kinds, recorded_of


@handler("holds child")
async def holds_child(context: Context, payload: Any) -> Any:
    return await context.result(await context.submit("hold", name="child"))


@handler("holds child in a thread")
def holds_child_in_a_thread(context: ThreadContext, payload: Any) -> Any:
    return context.result(context.submit("hold", name="child"))


@pytest.mark.parametrize("parent", [sum_of, sum_in_a_thread, sum_of_squares])
async def test_a_handler_submits_jobs_and_waits_for_what_they_come_to(
    client: Connect, parent: Handler
) -> None:
    api = await client(square, parent)
    job = await api.service.submit(parent.type, [1, 2, 3])
    job = await api.service.wait(job.job_id)
    assert (job.status, job.result) == ("completed", 14), job.error
    body = (await api.get(f"/v1/jobs/{job.job_id}")).json
    listed = (await api.get(body["links"]["children"])).json["jobs"]
    assert sorted(each["payload"] for each in listed) == [1, 2, 3]
    assert {each["parent"] for each in listed} == {job.job_id}
    assert len(await children(api.service, job.job_id)) == 3


async def test_a_parent_that_runs_again_finds_its_children(serve: Serve) -> None:
    """Named, or in the order in which they are submitted."""

    @handler("twice", retry_delay_s=0)
    async def twice(context: Context, payload: Any) -> list[str]:
        ids = [await context.submit("square", each) for each in (1, 2)]
        ids += [await context.submit("square", 3, name="three") for _ in range(2)]
        if context.attempt == 1:
            raise JobError("once", "again")
        return ids

    service = await serve(twice, square)
    job = await service.submit("twice")
    job = await service.wait(job.job_id)
    assert job.attempt == 2
    first, second, third, same = job.result
    assert third == same
    assert await children(service, job.job_id) == [first, second, third]
    for each in (first, second, third):
        assert (await service.wait(each)).status == "completed"
        assert len(await recorded_of(service, each, JobSubmitted)) == 1


async def test_a_child_that_failed_runs_again_with_its_parent(serve: Serve) -> None:
    runs = []

    @handler("frail", max_attempts=1)
    async def frail(context: Context, payload: Any) -> str:
        runs.append(context.attempt)
        if len(runs) == 1:
            raise JobError("weak", "not this time")
        return "strong"

    @handler("parent", retry_delay_s=0, max_attempts=2)
    async def parent(context: Context, payload: Any) -> list[Any]:
        done = await context.result(await context.submit("square", 5))
        return [done, await context.result(await context.submit("frail"))]

    service = await serve(frail, parent, square)
    job = await service.submit("parent")
    job = await service.wait(job.job_id)
    assert (job.status, job.result, job.attempt) == ("completed", [25, "strong"], 2)
    [done, failed] = await children(service, job.job_id)
    assert len(await recorded_of(service, failed, JobRetried)) == 1
    assert await kinds(service, done) == "JobSubmitted AttemptStarted JobCompleted"


async def test_a_child_that_fails_for_good_fails_its_parent_with_a_reason(serve: Serve) -> None:
    @handler("fail")
    async def fail(context: Context, payload: Any) -> None:
        raise JobError("broken", "it does not work", retryable=False)

    @handler("parent")
    async def parent(context: Context, payload: Any) -> Any:
        return await context.result(await context.submit("fail"))

    service = await serve(fail, parent)
    job = await service.wait((await service.submit("parent")).job_id)
    assert (job.status, job.attempt) == ("failed", 1), "the child said that it is no use"
    assert job.error is not None
    assert job.error["code"] == "child_failed"
    assert job.error["message"].endswith("failed: broken: it does not work")


@pytest.mark.parametrize("parent", [holds_child, holds_child_in_a_thread])
async def test_a_parent_that_is_cancelled_takes_its_children_along(
    serve: Serve, parent: Handler
) -> None:
    service = await serve(parent, hold)
    job = await service.submit(parent.type)
    child = await child_of(service, job.job_id)
    await running(service, child)
    await service.jobs.cancel(job.job_id, "enough", actor="ann")
    assert (await service.wait(job.job_id)).status == "cancelled"
    assert (await service.wait(child)).status == "cancelled"
    [asked] = await recorded_of(service, child, CancelRequested)
    assert isinstance(asked.event, CancelRequested)
    assert (asked.actor, asked.event.reason) == (
        "service",
        f"its parent {job.job_id} was cancelled",
    )


async def test_grandchildren_go_too_and_what_has_ended_stays(serve: Serve) -> None:
    service = await serve(square, concurrency=0)
    top = await service.submit("square", 1)
    done = await service.submit("square", 1, parent=top.job_id)
    await service.jobs.start(done.job_id, worker="w")
    await service.jobs.complete(done.job_id, 1, "done", actor="w")
    middle = await service.submit("square", 1, parent=top.job_id)
    low = await service.submit("square", 1, parent=middle.job_id)
    other = await service.submit("square", 1)
    await service.jobs.cancel(top.job_id, actor="test")
    assert (await service.wait(low.job_id)).status == "cancelled"
    assert (await service.wait(done.job_id)).status == "completed"
    assert await kinds(service, other.job_id) == "JobSubmitted"
    late = await service.submit("square", 1, parent=top.job_id)
    assert (await service.wait(late.job_id)).status == "cancelled", "born too late"
    [why] = await recorded_of(service, late.job_id, JobCancelled)
    assert why.actor == "service"


async def test_a_parent_that_fails_leaves_its_children_alone(serve: Serve) -> None:
    service = await serve(square, concurrency=0)
    top = await service.submit("square", 1)
    child = await service.submit("square", 1, parent=top.job_id)
    await service.jobs.start(top.job_id, worker="w")
    await service.jobs.fail(top.job_id, AttemptFailed(1, "x", False), actor="w")
    await service.views.wait_for_position(service.log.head)
    assert await service.views.jobs_to_cancel(9) == []
    assert await kinds(service, child.job_id) == "JobSubmitted"


async def test_a_cancelled_child_tells_its_parent(serve: Serve) -> None:
    service = await serve(holds_child, hold)
    job = await service.submit("holds child")
    child = await child_of(service, job.job_id)
    await service.jobs.cancel(child, actor="test")
    job = await service.wait(job.job_id)
    assert (job.status, job.error and job.error["code"]) == ("failed", "child_cancelled")


async def test_children_are_listed_and_streamed_by_their_parent(client: Connect) -> None:
    api = await client(square, concurrency=0)
    top = await api.submit("square", 1)
    child = await api.submit("square", 2, parent=top["job_id"].upper())
    await api.submit("square", 3)
    page = (await api.get(f"/v1/jobs?parent={top['job_id']}")).json
    assert [each["job_id"] for each in page["jobs"]] == [child["job_id"]]
    reply = await api.get("/v1/jobs?parent=x")
    assert (reply.status, reply.fields) == (422, ["parent"])
    path = f"/v1/jobs?parent={top['job_id']}"
    async with api.session.get(path, headers={"Accept": "text/event-stream"}) as response:
        async for line in response.content:
            if line.startswith(b"data: {") and b"payload" in line:
                assert child["job_id"].encode() in line
                break

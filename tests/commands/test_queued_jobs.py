"""The limit of queued jobs of one owner is exact, also for concurrent submissions."""

import asyncio
from typing import Any

import pytest

from eventjobs.commands.command_queue import CommandResult
from eventjobs.commands.queued_jobs import QueuedJobs
from eventjobs.errors import JobExists, LogUnavailable, OwnerLimit
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.http_jobs import echo
from tests.support.keys import bearer, make_key

IDS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(10)]


@handler("parent")
async def parent(ctx: Context, payload: Any) -> Any:
    for number in range(3):
        await ctx.submit("echo", payload, name=f"child {number}")


def count_queued(service: Service, owner: str) -> int:
    return service.queued_jobs._counts[owner] + len(service.queued_jobs._reserved.get(owner, ()))


async def submit_many(service: Service, count: int, owner: str = "ann") -> list[Any]:
    tasks = [service.submit("echo", owner=owner) for _ in range(count)]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_concurrent_submissions_never_exceed_the_limit(serve: Serve) -> None:
    service = await serve(echo, concurrency=0, owner_queued_max=3)
    results = await submit_many(service, 8)
    assert sum(isinstance(each, OwnerLimit) for each in results) == 5
    assert service.log.head == 3
    await service.submit("echo", owner="bob")
    await service.submit("echo")  # jobs without an owner have no limit
    await service.views.wait_for_position(service.log.head)
    with pytest.raises(OwnerLimit):
        await service.submit("echo", owner="ann")
    assert not service.queued_jobs._reserved


async def test_a_job_that_is_no_longer_queued_makes_place_for_another(serve: Serve) -> None:
    service = await serve(echo, concurrency=0, owner_queued_max=2)
    first, _ = await submit_many(service, 2)
    await service.jobs.cancel(first.job_id, actor="test")
    await service.views.wait_for_position(service.log.head)
    assert sum(isinstance(each, OwnerLimit) for each in await submit_many(service, 3)) == 2


async def test_a_repeated_submission_takes_no_place_and_is_answered(serve: Serve) -> None:
    service = await serve(echo, concurrency=0, owner_queued_max=1)
    same = [service.submit("echo", 1, job_id=IDS[0], owner="ann") for _ in range(3)]
    assert {each.job_id for each in await asyncio.gather(*same)} == {IDS[0]}
    assert count_queued(service, "ann") == 1
    assert (await service.submit("echo", 1, job_id=IDS[0], owner="ann")).job_id == IDS[0]
    with pytest.raises(JobExists):
        await service.submit("echo", 2, job_id=IDS[0], owner="ann")
    await service.views.wait_for_position(service.log.head)
    assert count_queued(service, "ann") == 1


async def test_a_submission_that_fails_takes_no_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(echo, concurrency=0, owner_queued_max=1)

    async def refuse(*arguments: Any, **options: Any) -> None:
        raise LogUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(service.log, "append", refuse)
        with pytest.raises(LogUnavailable):
            await service.submit("echo", owner="ann")
    assert count_queued(service, "ann") == 0
    await service.submit("echo", owner="ann")


async def test_queued_jobs_are_counted_at_a_start_and_after_a_rebuild(serve: Serve) -> None:
    service = await serve(echo, concurrency=0, owner_queued_max=2)
    await submit_many(service, 2)
    await service.close()
    service = await serve(echo, concurrency=0, owner_queued_max=2)
    with pytest.raises(OwnerLimit):
        await service.submit("echo", owner="ann")
    await service.views.rebuild()
    assert count_queued(service, "ann") == 2


async def test_jobs_that_are_queued_while_the_others_are_counted_count_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(echo, concurrency=0)
    queued_jobs = QueuedJobs(service.views, 3)
    count = service.views.queued_by_owner

    async def submit() -> CommandResult:
        job = await service.submit("echo", owner="ann")
        await service.views.wait_for_position(job.position)
        return CommandResult(job, True)

    async def count_slowly() -> tuple[int, dict[str, int]]:
        counts = await count()
        await submit()
        return counts

    monkeypatch.setattr(service.views, "queued_by_owner", count_slowly)
    await submit()
    with pytest.raises(LogUnavailable):
        await queued_jobs.queue("ann", IDS[0], submit)
    await queued_jobs.load()
    assert queued_jobs._counts == {"ann": 2}
    await queued_jobs.load()
    await submit()
    assert queued_jobs._counts == {"ann": 3}
    with pytest.raises(OwnerLimit):
        await queued_jobs.queue("ann", IDS[0], submit)


async def test_children_of_a_running_job_are_not_refused(serve: Serve) -> None:
    service = await serve(echo, parent, owner_queued_max=1)
    job = await service.submit("parent", owner="ann")
    assert (await service.wait(job.job_id)).status == "completed"
    await service.views.wait_for_position(service.log.head)
    children = await service.views.jobs(
        {"parent": job.job_id}, order="newest", cursor=None, limit=9
    )
    assert [each.job.spec.owner for each in children] == ["ann"] * 3


async def test_the_limit_over_http(client: Connect) -> None:
    api = await client(echo, concurrency=0, auth="required", owner_queued_max=2)
    ann = bearer(await make_key(api.service, owner="ann"))
    bob = bearer(await make_key(api.service, owner="bob"))
    lines = await api(
        "POST",
        "/v1/jobs/batch",
        data=b'{"type":"echo"}\n' * 4,
        headers=ann | {"Content-Type": "application/x-ndjson"},
    )
    assert lines.body.count(b'"status":202') == 2
    assert lines.body.count(b'"code":"owner_limit"') == 2
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=ann)
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (429, "owner_limit", "5")
    assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=bob)).status == 202


async def test_a_retry_takes_a_place_too(client: Connect) -> None:
    api = await client(echo, concurrency=0, auth="required", owner_queued_max=1)
    ann = bearer(await make_key(api.service, owner="ann"))

    async def post(path: str, body: Any = None) -> Any:
        return await api("POST", path, body, headers=ann)

    first = (await post("/v1/jobs", {"type": "echo"})).json["links"]["self"]
    assert (await post(first + "/cancel")).status == 200
    await api.service.views.wait_for_position(api.service.log.head)
    second = (await post("/v1/jobs", {"type": "echo"})).json["links"]["self"]
    assert (await post(first + "/retry")).code == "owner_limit"
    assert (await post(second + "/cancel")).status == 200
    await api.service.views.wait_for_position(api.service.log.head)
    assert (await post(first + "/retry")).status == 200
    assert (await post(second + "/retry")).code == "owner_limit"

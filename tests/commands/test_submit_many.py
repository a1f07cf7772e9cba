"""Many submissions at once: one commit, and an outcome for each."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from eventjobs.domain.ids import new_id
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import (
    DiskFull,
    EventjobsError,
    InvalidInput,
    JobExists,
    OwnerLimit,
    UnknownJob,
    UnknownType,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.log import follow
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.histories import job_id


class Order(BaseModel):
    amount: int


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("order")
async def order(context: Context, payload: Order) -> None: ...


@pytest.fixture
async def service(serve: Serve) -> Service:
    return await serve(echo, order, concurrency=0, owner_queued_max=3)


def kinds(outcomes: list[Job | EventjobsError]) -> list[type]:
    return [type(each) for each in outcomes]


async def test_a_list_of_five_hundred_is_one_commit(service: Service) -> None:
    async def read_commit() -> list[Recorded]:
        return await anext(aiter(follow(service.log, 0)))

    commit = asyncio.create_task(read_commit())
    await asyncio.sleep(0)
    outcomes = await service.submit_many({"type": "echo", "payload": n} for n in range(500))
    assert [each.position for each in await commit] == list(range(1, 501))
    jobs = [each for each in outcomes if isinstance(each, Job)]
    assert [each.spec.payload for each in jobs] == list(range(500))
    assert [each.position for each in jobs] == list(range(1, 501))
    assert await service.jobs.load(jobs[7].job_id) == jobs[7]
    assert await service.submit_many([]) == []


async def test_each_has_its_own_outcome(service: Service) -> None:
    mine, taken = job_id(1), job_id(2)
    await service.submit("echo", 1, job_id=taken)
    outcomes = await service.submit_many(
        [
            {"type": "echo", "payload": 1, "tags": ["a"]},
            {"type": "unheard"},
            {"type": "order", "payload": {"amount": "much"}},
            {"payload": 1},
            "echo",  # type: ignore[list-item]
            {"type": "echo", "colour": "red"},
            {"type": "echo", "payload": 1, "job_id": taken},
            {"type": "echo", "payload": 2, "job_id": taken},
            {"type": "echo", "job_id": mine},
            {"type": "echo", "job_id": mine},
            {"type": "echo", "after": [job_id(3)]},
        ]
    )
    assert kinds(outcomes) == [
        Job,
        UnknownType,
        *[InvalidInput] * 4,
        Job,
        JobExists,
        Job,
        Job,
        UnknownJob,
    ]
    assert service.log.head == 3


async def test_one_may_name_those_before_it(service: Service) -> None:
    first, second = new_id(1), new_id(2)
    outcomes = await service.submit_many(
        [
            {"type": "echo", "job_id": first},
            {"type": "echo", "job_id": second, "after": [first]},
            {"type": "echo", "after": [first, second]},
        ]
    )
    assert kinds(outcomes) == [Job] * 3
    outcomes = await service.submit_many(
        [{"type": "echo", "after": [new_id(3)]}, {"type": "echo", "job_id": new_id(3)}]
    )
    assert isinstance(outcomes[0], UnknownJob)


async def test_an_owner_has_no_more_queued_jobs_than_allowed(service: Service) -> None:
    jobs = [{"type": "echo", "owner": "ann", "job_id": new_id(n)} for n in range(5)]
    assert kinds(await service.submit_many(jobs)) == [Job] * 3 + [OwnerLimit] * 2
    assert kinds(await service.submit_many(jobs[:3])) == [Job] * 3, "they are there"
    assert service.log.head == 3


async def test_what_was_not_submitted_counts_for_no_owner(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> None:
        raise DiskFull

    jobs = [{"type": "echo", "owner": "ann"} for _ in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(service.log, "append_many", full)
        assert kinds(await service.submit_many(jobs)) == [DiskFull] * 3
    assert kinds(await service.submit_many(jobs)) == [Job] * 3

"""The claims of one search share an append, and so do jobs that end together. Each of them is
claimed, given up or tried again by itself.
"""

import asyncio
from collections.abc import Sequence

import pytest

from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptStarted
from eventjobs.domain.job import Job
from eventjobs.errors import DiskFull, OutcomeUnknown
from eventjobs.execution.source import Capacity
from eventjobs.log import NewEvent
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.appends import appends_of, at_each_append
from tests.support.clock import FakeClock
from tests.support.limited_jobs import free
from tests.support.remote_worker import FAR, WORKER, claim
from tests.support.waiting import kinds, time_passing

LIMIT = 3


async def select(service: Service) -> list[str]:
    """The ids of the jobs that are selected, once the views show all that has happened."""
    await service.views.wait_for_position(service.log.head)
    selected = await service.claims.select([Capacity(["free"], 9)], 9)
    return [job_id for job_id, _ in selected]


async def submit_and_select(serve: Serve, clock: FakeClock) -> tuple[Service, list[str], str]:
    """A service, as many selected jobs as may run at once, and one more job."""
    service = await serve(free, clock=clock, concurrency=0, type_limits=f"free={LIMIT}")
    *ids, last = [(await service.submit("free")).job_id for _ in range(LIMIT + 1)]
    assert await select(service) == ids
    return service, ids, last


async def claim_all(service: Service, ids: Sequence[str]) -> list[Job | None]:
    return await asyncio.gather(*(service.claims.claim(each, worker="w") for each in ids))


async def assert_held(service: Service, ids: Sequence[str], last: str) -> None:
    """All of *ids* are claimed once, and hold their places until one of them ends."""
    for each in ids:
        assert await kinds(service, each) == "JobSubmitted AttemptStarted"
    assert await select(service) == []
    await service.jobs.complete(ids[1], 1, None, actor="w")
    assert await select(service) == [last]
    assert await service.claims.claim(last, worker="w") is not None


async def test_a_runner_claims_what_it_finds_in_one_append_and_ends_it_in_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(free, concurrency=5)
    await service.pauses.pause("type", "free", actor="ann")
    jobs = [await service.submit("free", number) for number in range(5)]
    appends = appends_of(monkeypatch, service.log)
    await service.pauses.resume("type", "free", actor="ann")
    ended = [await service.wait(each.job_id) for each in jobs]
    assert [each.result for each in ended] == list(range(5))
    assert appends == [["Resumed"], ["AttemptStarted"] * 5, ["JobCompleted"] * 5]


async def test_a_worker_claims_in_one_append_and_ends_several_jobs_in_one(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(FAR)
    for _ in range(5):
        await api.submit("far")
    appends = appends_of(monkeypatch, api.service.log)
    jobs = await claim(api, max=5)
    ends = [{"job_id": each["job_id"], "attempt": 1, "result": 1} for each in jobs]
    reply = await api("POST", "/v1/work/complete", {"worker": WORKER, "jobs": ends})
    assert [each["status"] for each in reply.json["jobs"]] == [200] * 5
    assert appends == [["AttemptStarted"] * 5, ["JobCompleted"] * 5]


@pytest.mark.parametrize("conflict", [False, True])
async def test_a_job_that_is_cancelled_meanwhile_is_given_up_alone(
    serve: Serve, clock: FakeClock, conflict: bool
) -> None:
    service, ids, last = await submit_and_select(serve, clock)
    jobs = Jobs(service.log, clock) if conflict else service.jobs
    await jobs.cancel(ids[1], actor="ann")
    claimed = await claim_all(service, ids)
    assert [each and each.worker for each in claimed] == ["w", None, "w"]
    assert await kinds(service, ids[1]) == "JobSubmitted JobCancelled"
    assert await select(service) == [last], "its place is free"
    assert await service.claims.claim(last, worker="w") is not None
    assert await select(service) == []


async def test_when_the_log_is_full_all_of_them_are_put_back(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, ids, last = await submit_and_select(serve, clock)
    with monkeypatch.context() as patch:

        async def refuse(new: NewEvent) -> None:
            raise DiskFull

        at_each_append(patch, service.log, before=refuse)
        assert await time_passing(clock, claim_all(service, ids)) == [None] * LIMIT
    assert await select(service) == ids
    assert None not in await claim_all(service, ids)
    await assert_held(service, ids, last)


@pytest.mark.parametrize("written", [True, False])
async def test_when_the_outcome_is_unknown_each_is_claimed_once(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    service, ids, last = await submit_and_select(serve, clock)
    unknown = [OutcomeUnknown()]

    async def fail(new: NewEvent) -> None:
        if unknown:
            raise unknown.pop()

    at_each_append(monkeypatch, service.log, **{"after" if written else "before": fail})
    claimed = await time_passing(clock, claim_all(service, ids))
    assert [each and each.worker for each in claimed] == ["w"] * LIMIT
    await assert_held(service, ids, last)


async def test_when_the_claimer_is_cancelled_they_hold_their_places(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the claims, and their answers have not come."""
    service, ids, last = await submit_and_select(serve, clock)
    appended, go = asyncio.Event(), asyncio.Event()

    async def answer_late(new: NewEvent) -> None:
        appended.set()
        await go.wait()

    at_each_append(monkeypatch, service.log, after=answer_late)
    claiming = asyncio.create_task(claim_all(service, ids))
    await appended.wait()
    claiming.cancel()
    await asyncio.wait({claiming})
    assert await select(service) == []
    go.set()
    await assert_held(service, ids, last)


async def test_jobs_that_are_being_claimed_when_the_service_stops_are_released(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(free, concurrency=5, drain_s=0)
    claims, go = asyncio.Event(), asyncio.Event()

    async def wait(new: NewEvent) -> None:
        if isinstance(new.event, AttemptStarted):
            claims.set()
            await go.wait()

    at_each_append(monkeypatch, service.log, before=wait)
    await service.pauses.pause("type", "free", actor="ann")
    jobs = [await service.submit("free") for _ in range(5)]
    await service.pauses.resume("type", "free", actor="ann")
    await claims.wait()
    closing = asyncio.create_task(service.close())
    while not service.runner._stopping:  # noqa: ASYNC110  no event is set
        await asyncio.sleep(0)
    go.set()
    await closing
    again = await serve(concurrency=0)
    for each in jobs:
        assert await kinds(again, each.job_id) == "JobSubmitted AttemptStarted AttemptReleased"

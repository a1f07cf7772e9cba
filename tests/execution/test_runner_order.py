"""The order of jobs: each runs once, at its time and within the limits."""

import asyncio
from itertools import pairwise
from typing import Any

from eventjobs.domain.events import AttemptStarted
from eventjobs.domain.spec import JobSpec
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.waiting import job_when, kinds, recorded_of, time_passing, turns


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


async def test_a_scheduled_job_runs_at_its_time_and_not_before(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(ok, clock=clock)
    at_us = clock.now_us() + 3600 * SECOND
    outcome = await service.jobs.submit(JobSpec("ok", run_at_us=at_us), actor="ann")
    job_id = outcome.job.job_id
    for _ in range(10):
        await clock.advance(300)
    assert await kinds(service, job_id) == "JobSubmitted"
    await time_passing(clock, service.wait(job_id), 60)
    [started] = await recorded_of(service, job_id, AttemptStarted)
    assert started.at_us >= at_us


class TickingClock(FakeClock):
    """A clock that advances by a millisecond each time it is read."""

    def now_us(self) -> int:
        self.jump_wall(0.001)
        return super().now_us()


async def test_a_job_that_becomes_due_while_the_runner_looks_is_not_overlooked(
    serve: Serve,
) -> None:
    """Due after "what is due now?" and before "what is next?": it used to wait for 30 seconds."""
    clock = TickingClock()
    service = await serve(ok, clock=clock)
    jobs = [
        await service.jobs.submit(
            JobSpec("ok", run_at_us=clock.now_us() + number * 1000), actor="ann"
        )
        for number in range(100)
    ]
    for each in jobs:
        began_s = clock.monotonic_s()
        job = each.job
        # Less than the 30 seconds after which the runner searches again without a signal.
        while not job.finished and clock.monotonic_s() - began_s < 10:
            await clock.advance(0.001)
            newest = await service.jobs.current(job.job_id)
            assert newest is not None
            job = newest
        assert job.finished


async def test_no_more_jobs_run_at_once_than_allowed(serve: Serve) -> None:
    running, most = 0, 0
    go = asyncio.Event()

    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    service = await serve(count, concurrency=3)
    jobs = [await service.submit("count") for _ in range(20)]
    await service.views.wait_for_position(service.log.head)
    for job in jobs[:3]:
        await job_when(service, job.job_id, lambda job: job.status == "running")
    await turns()
    assert running == 3
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    assert most == 3


async def test_the_older_of_two_equals_goes_first(serve: Serve) -> None:
    ran: list[int] = []
    first, go = asyncio.Event(), asyncio.Event()

    @handler("one")
    async def one(context: Context, payload: int) -> None:
        ran.append(payload)
        first.set()
        await go.wait()

    service = await serve(one, concurrency=1)
    await service.submit("one", 0)
    await first.wait()
    jobs = [
        await service.submit("one", number, priority=priority)
        for number, priority in [(1, 0), (2, 5), (3, 0), (4, 9), (5, -1), (6, 5)]
    ]
    await service.views.wait_for_position(service.log.head)
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    assert ran == [0, 4, 2, 6, 1, 3, 5]


async def test_a_retried_job_waits_its_turn_from_when_it_is_due(serve: Serve) -> None:
    """Its first attempt failed: it goes behind those that have waited since before."""
    ran: list[Any] = []
    first, go = asyncio.Event(), asyncio.Event()

    @handler("one", retry_delay_s=0)
    async def one(context: Context, payload: int) -> None:
        ran.append((payload, context.attempt))
        first.set()
        await go.wait()
        if payload == 0 and context.attempt == 1:
            raise OSError("not now")

    service = await serve(one, concurrency=1)
    jobs = [await service.submit("one", 0)]
    await first.wait()
    jobs += [await service.submit("one", number) for number in (1, 2)]
    await service.views.wait_for_position(service.log.head)
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    assert ran == [(0, 1), (1, 1), (2, 1), (0, 2)]


async def test_a_job_nobody_can_run_waits_for_one_who_can(serve: Serve) -> None:
    service = await serve(ok)
    outcome = await service.jobs.submit(JobSpec("other"), actor="ann")
    for number in range(3):
        job = await service.submit("ok", number)
        await service.wait(job.job_id)
    assert await kinds(service, outcome.job.job_id) == "JobSubmitted"


async def test_many_jobs_run_once_each(serve: Serve) -> None:
    ran: list[int] = []

    @handler("once")
    async def once(context: Context, payload: int) -> None:
        ran.append(payload)

    service = await serve(once, concurrency=7)
    jobs = await asyncio.gather(*(service.submit("once", number) for number in range(300)))
    for job in jobs:
        await service.wait(job.job_id)
    assert sorted(ran) == list(range(300))
    events = await service.log.read(0, 2000)
    assert len(events) == 900


async def test_versions_and_times_of_a_job_are_in_order(serve: Serve) -> None:
    service = await serve(ok)
    job = await service.submit("ok")
    await service.wait(job.job_id)
    events = await service.log.read_job(job.job_id)
    assert all(a.at_us <= b.at_us and a.version + 1 == b.version for a, b in pairwise(events))

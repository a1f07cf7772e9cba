"""A runner that is stopped leaves nothing behind that goes on."""

import asyncio
from typing import Any

import pytest

from eventjobs.domain.events import AttemptReleased
from eventjobs.errors import DiskFull
from eventjobs.execution.source import ClaimableJob
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.log import NewEvent
from tests.conftest import Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.waiting import job_when, kinds, time_passing, turns


@handler("endless")
async def endless(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


async def test_an_outcome_that_the_log_never_takes_does_not_outlive_the_service(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(endless, clock=clock, drain_s=0, grace_s=1)
    job = await service.submit("endless")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    refused = 0

    async def refuse(new: NewEvent) -> None:
        nonlocal refused
        if isinstance(new.event, AttemptReleased):
            refused += 1
            raise DiskFull

    at_each_append(monkeypatch, service.log, before=refuse)
    await time_passing(clock, service.close())
    await turns()
    assert service.runner.running == 0
    assert refused > 1
    again = await serve(clock=clock)
    expected = "JobSubmitted AttemptStarted AttemptFailed"
    assert await kinds(again, job.job_id) == expected, "the next start finds it lost"


async def test_a_job_that_is_found_just_before_a_stop_is_released(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(endless, clock=clock, drain_s=0)
    search_ended, go = asyncio.Event(), asyncio.Event()
    next_jobs = service.job_source.next_jobs

    async def find_late(*given: Any) -> list[ClaimableJob]:
        jobs = await next_jobs(*given)
        if jobs:
            search_ended.set()
            await go.wait()
        return jobs

    monkeypatch.setattr(service.job_source, "next_jobs", find_late)
    service.job_source.interrupt_wait()
    await turns()
    job = await service.submit("endless")
    await search_ended.wait()
    closing = asyncio.create_task(service.close())
    await turns()
    go.set()
    await time_passing(clock, asyncio.wait({closing}))
    again = await serve(clock=clock)
    assert await kinds(again, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"

"""A stop reaches the attempt that it is for, once and for the first reason."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from eventjobs.attempts.local_source import LocalJobSource
from eventjobs.domain.events import AttemptStarted
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.errors import OutcomeUnknown
from eventjobs.execution.source import WithdrawReason
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.log import NewEvent
from tests.conftest import Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.waiting import job_when, kinds, time_passing, turns


async def test_a_handler_that_tidies_up_after_a_stop_is_not_stopped_again(
    serve: Serve, clock: FakeClock
) -> None:
    """Its time is up while it does that: that is neither a second stop nor another reason."""
    stopped, tidy = asyncio.Event(), asyncio.Event()

    @handler("tidies")
    async def tidies(context: Context, payload: Any) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            await tidy.wait()
        return "tidied up"

    service = await serve(tidies, clock=clock, grace_s=60)
    job = await service.submit("tidies", timeout_s=5)
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.jobs.cancel(job.job_id, actor="test")
    await stopped.wait()
    await clock.advance(6)
    tidy.set()
    ended = await service.wait(job.job_id)
    assert (ended.status, ended.result) == ("completed", "tidied up")


async def test_a_cancel_reaches_an_attempt_that_begins_while_the_one_before_is_recorded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    @handler("again", retry_delay_s=0)
    async def again(context: Context, payload: Any) -> None:
        if context.attempt == 1:
            raise OSError("not now")
        await asyncio.Event().wait()

    service = await serve(again, concurrency=2)
    record, go, recorded = service.job_source.record_outcome, asyncio.Event(), asyncio.Event()

    async def slow(job: Job, outcome: Outcome) -> None:
        await record(job, outcome)
        if job.attempt == 1:
            await go.wait()
            recorded.set()

    monkeypatch.setattr(service.job_source, "record_outcome", slow)
    job = await service.submit("again")
    await job_when(service, job.job_id, lambda job: job.status == "running" and job.attempt == 2)
    go.set()
    await recorded.wait()
    await turns()
    await service.jobs.cancel(job.job_id, actor="test")
    async with asyncio.timeout(10):
        assert (await service.wait(job.job_id)).status == "cancelled"


async def test_a_stop_of_the_attempt_before_does_not_stop_the_present_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a remote worker that learns late that it has lost a job, and has it again."""
    begun, go = asyncio.Event(), asyncio.Event()
    stops: list[Callable[[str, int, WithdrawReason], object]] = []

    @handler("again", retry_delay_s=0)
    async def again(context: Context, payload: Any) -> str:
        if context.attempt == 1:
            raise OSError("not now")
        begun.set()
        await go.wait()
        return "done"

    monkeypatch.setattr(LocalJobSource, "on_stop", lambda source, stop: stops.append(stop))
    service = await serve(again)
    job = await service.submit("again")
    await begun.wait()
    for stop in stops:
        stop(job.job_id, 1, "lost")
    await turns()
    go.set()
    ended = await service.wait(job.job_id)
    assert (ended.result, ended.attempt) == ("done", 2)


async def test_a_cancel_reaches_an_attempt_whose_claim_is_not_confirmed_yet(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is in the log, but the runner is about to ask for it once more."""

    @handler("endless")
    async def endless(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(endless, clock=clock)
    unknown = [OutcomeUnknown()]

    async def fail(new: NewEvent) -> None:
        if isinstance(new.event, AttemptStarted) and unknown:
            raise unknown.pop()

    at_each_append(monkeypatch, service.log, after=fail)
    job = await service.submit("endless")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.jobs.cancel(job.job_id, actor="test")
    await service.views.wait_for_position(service.log.head)
    async with asyncio.timeout(10):
        await time_passing(clock, service.wait(job.job_id))
    expected = "JobSubmitted AttemptStarted CancelRequested JobCancelled"
    assert await kinds(service, job.job_id) == expected


async def test_a_shutdown_waits_until_the_end_of_an_abandoned_attempt_is_recorded(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over, asked, go = (asyncio.Event() for _ in range(4))

    @handler("deaf")
    async def deaf(context: Context, payload: Any) -> None:
        begun.set()
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    service = await serve(deaf, clock=clock, grace_s=5)
    record, recorded = service.job_source.record_outcome, []

    async def slow(job: Job, outcome: Outcome) -> None:
        asked.set()
        await go.wait()
        await record(job, outcome)
        recorded.append(job.job_id)

    monkeypatch.setattr(service.job_source, "record_outcome", slow)
    job = await service.submit("deaf")
    await begun.wait()
    await service.jobs.cancel(job.job_id, actor="test")
    await clock.advance(5)
    await asked.wait()
    closing = asyncio.create_task(service.close())
    await clock.advance(0.1)
    closed_early = closing.done()
    go.set()
    over.set()
    await time_passing(clock, asyncio.wait([closing]))
    assert not closed_early
    assert recorded == [job.job_id]

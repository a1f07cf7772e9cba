"""Limits hold at every moment, for any number of claimers, retries and restarts."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptStarted,
)
from eventjobs.domain.ids import new_id
from eventjobs.domain.job import Job
from eventjobs.domain.limits import ConcurrencyLimits, Rate
from eventjobs.errors import InvalidInput, JobUnreadable, Rejected
from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.limited_jobs import free, most_at_once, most_in_a_minute, paced, pair, two
from tests.support.views import quick_folder
from tests.support.waiting import job_when, kinds, recorded_of, time_passing

ALL = (free, two, pair, paced)
TYPES = [each.type for each in ALL]
QUEUES = {"narrow": 3}


# --- any order of actions


class Claimers:
    """Concurrent claimers, which also end, cancel and submit jobs."""

    def __init__(self, service: Service, clock: FakeClock) -> None:
        self.service = service
        self.clock = clock
        self.held: dict[str, Job] = {}

    async def do(self, what: str, who: int, number: int) -> None:
        with suppress(Rejected):  # another one was faster
            await getattr(self, what)(who, number)

    async def claim(self, who: int, number: int) -> None:
        claims = self.service.claims
        picked = await claims.select([Capacity(TYPES, 1 + number)], 1 + number)
        for job_id, _ in picked:
            job = await claims.claim(job_id, worker=f"w{who}", lease_s=30 if who % 2 else None)
            if job is not None:
                self.held[job_id] = job

    async def end(self, who: int, number: int) -> None:
        if not self.held:
            return
        job_id = sorted(self.held)[number % len(self.held)]
        job = self.held.pop(job_id)
        jobs, actor, now_us = self.service.jobs, f"w{who}", self.clock.now_us()
        match number % 5:
            case 0 | 1:
                await jobs.complete(job_id, job.attempt, None, actor=actor)
            case 2:
                failed = AttemptFailed(job.attempt, "oops", True, now_us + number % 3 * SECOND)
                await jobs.fail(job_id, failed, actor=actor)
            case 3:
                await self.service.recorder.record_lost(job, "not heard from", actor=actor)
            case _:
                await jobs.release(job_id, job.attempt, "shutdown", actor=actor)

    async def cancel(self, who: int, number: int) -> None:
        queued = await self.service.views.jobs(
            {"status": ["queued"]}, order="oldest", cursor=None, limit=5
        )
        if queued:
            await self.service.jobs.cancel(queued[number % len(queued)].job.job_id, actor="ann")

    async def submit(self, who: int, number: int) -> None:
        await self.service.submit(
            TYPES[number % 4],
            concurrency_key=(None, "a", "b")[number % 3],
            **({} if number % 5 else {"queue": "narrow"}),
        )


WHAT = ["claim", "claim", "claim", "end", "end", "cancel", "submit", "wait", "restart"]
rounds = st.lists(
    st.lists(
        st.tuples(st.sampled_from(WHAT), st.integers(0, 3), st.integers(0, 9)),
        min_size=1,
        max_size=5,
    ),
    max_size=12,
)


def new_service(folder: Any, clock: FakeClock) -> Service:
    own_settings = Settings(data=folder, concurrency=0, queue_limits=QUEUES)
    return Service(handlers=ALL, settings=own_settings, clock=clock)


@settings(max_examples=25)
@given(rounds)
async def test_there_are_never_more_than_allowed(
    rounds: list[list[tuple[str, int, int]]],
) -> None:
    """Each round's actions go on at the same time; jobs with a lease go on after a restart."""
    clock = FakeClock()
    with quick_folder() as folder:
        service = new_service(folder, clock)
        await service.start()
        claimers = Claimers(service, clock)
        try:
            for number in range(24):
                await claimers.submit(0, number)
            for each in rounds:
                doing = [
                    claimers.do(what, who, number)
                    for what, who, number in each
                    if what not in ("wait", "restart")
                ]
                await asyncio.gather(*doing)
                if any(what == "wait" for what, _, _ in each):
                    await clock.advance(7)
                if any(what == "restart" for what, _, _ in each):
                    await time_passing(clock, service.close())
                    service = claimers.service = new_service(folder, clock)
                    await service.start()
                    claimers.held = {i: j for i, j in claimers.held.items() if j.lease_s}
            events = await service.log.read(0, 10_000)
        finally:
            await time_passing(clock, service.close())
    most = most_at_once(events)
    assert most["type", "two"] <= 2
    assert most["queue", "narrow"] <= 3
    assert most["key", "a"] <= 2
    assert most["key", "b"] <= 2
    assert most_in_a_minute(events, "paced") <= 3


# --- limits in settings


async def test_a_setting_wins_over_the_handler_and_limits_a_queue(serve: Serve) -> None:
    go = asyncio.Event()

    @handler("wait", concurrency=9)
    async def wait(context: Context, payload: Any) -> None:
        await go.wait()

    service = await serve(wait, type_limits="wait=3", queue_limits="thin=1")
    jobs = [await service.submit("wait") for _ in range(5)]
    jobs += [await service.submit("wait", queue="thin") for _ in range(2)]
    await service.views.wait_for_position(service.log.head)
    await job_when(service, jobs[2].job_id, lambda job: job.status == "running")
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    most = most_at_once(await service.log.read(0, 1000))
    assert (most["type", "wait"], most["queue", "thin"]) == (3, 1)


@pytest.mark.parametrize("text", ["0/m", "10", "10/w", "1.5/s", "-1/s", " 1/s", "1/m ", "100001/s"])
def test_a_rate_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="like 10/m"):
        Rate.parse(text)


def test_a_rate_is_written_as_it_is_read() -> None:
    assert [str(Rate.parse(each)) for each in ("1/s", "10/m", "3/h", "100000/d")] == [
        "1/s",
        "10/m",
        "3/h",
        "100000/d",
    ]
    assert Rate.parse("10/m") == Rate(10, 60)


def test_a_handler_with_a_limit_of_none_is_refused() -> None:
    for wrong in ({"concurrency": 0}, {"key_concurrency": 0}, {"rate": "often"}):
        with pytest.raises(ValueError, match=r"pause the type|like 10/m"):
            handler("x", **wrong)
    with pytest.raises(InvalidInput):
        handler("x", queue="no spaces")
    assert ConcurrencyLimits().of_key("x") == 1


@pytest.mark.parametrize("wrong", [{"queue": ""}, {"queue": "a b"}, {"concurrency_key": ""}])
async def test_a_name_that_cannot_be_is_refused(serve: Serve, wrong: dict[str, str]) -> None:
    service = await serve(free)
    with pytest.raises(InvalidInput) as refused:
        await service.submit("free", **wrong)
    assert [each["field"] for each in refused.value.errors] == list(wrong)
    assert service.log.head == 0


# --- rates


async def test_no_more_are_started_in_a_while_than_the_rate_says(
    serve: Serve, clock: FakeClock
) -> None:
    """And not later than it allows: the clock stands still while the next ones start."""
    service = await serve(paced, clock=clock)
    begun_us = clock.now_us()
    jobs = [await service.submit("paced", n) for n in range(7)]
    for job in jobs[:3]:
        await service.wait(job.job_id)
    for seconds, again in ((59.5, ()), (0.5, jobs[3:6]), (59.5, ()), (0.5, jobs[6:])):
        await clock.advance(seconds)
        for job in again:
            await service.wait(job.job_id)
    events = await service.log.read(0, 1000)
    starts = [each.at_us - begun_us for each in events if isinstance(each.event, AttemptStarted)]
    assert starts == [0, 0, 0, *[60 * SECOND] * 3, 120 * SECOND]


async def test_a_rate_holds_across_a_restart(serve: Serve, clock: FakeClock) -> None:
    service = await serve(paced, clock=clock)
    begun_us = clock.now_us()
    for n in range(3):
        await service.wait((await service.submit("paced", n)).job_id)
        await clock.advance(10)
    await time_passing(clock, service.close(), 0.01)
    again = await serve(paced, free, clock=clock)
    jobs = [await again.submit("paced") for _ in range(2)]
    other = await again.submit("free")
    await again.wait(other.job_id)
    await clock.advance(59.5 - (clock.now_us() - begun_us) / SECOND)
    assert await kinds(again, jobs[0].job_id) == "JobSubmitted"
    for job, seconds in zip(jobs, (0.5, 10), strict=True):
        await clock.advance(seconds)
        await again.wait(job.job_id)
    starts = [await recorded_of(again, job.job_id, AttemptStarted) for job in jobs]
    assert [each.at_us - begun_us for [each] in starts] == [60 * SECOND, 70 * SECOND]


async def test_jobs_that_wait_for_their_rate_hide_no_other(serve: Serve, clock: FakeClock) -> None:
    service = await serve(paced, free, clock=clock)
    await asyncio.gather(*(service.submit("paced") for _ in range(300)))
    other = await service.submit("free", 1)
    assert (await service.wait(other.job_id)).result == 1


async def test_a_job_that_cannot_be_read_takes_no_start_of_its_rate(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(paced, clock=clock)
    start, unreadable = service.jobs.start, new_id(clock.now_us())

    async def start_if_readable(job_id: str, **more: Any) -> Job:
        if job_id == unreadable:
            raise JobUnreadable("by this version")
        return await start(job_id, **more)

    monkeypatch.setattr(service.jobs, "start", start_if_readable)
    await service.submit("paced", job_id=unreadable)
    for _ in range(3):
        await service.wait((await service.submit("paced")).job_id)


async def test_a_retry_counts_as_a_start(serve: Serve, clock: FakeClock) -> None:
    @handler("paced", rate="2/m", max_attempts=4, retry_delay_s=0)
    async def fails(context: Context, payload: Any) -> None:
        raise OSError

    service = await serve(fails, clock=clock)
    job = await service.submit("paced")
    job = await time_passing(clock, service.wait(job.job_id), 1)
    assert (job.status, job.attempt) == ("failed", 4)
    assert most_in_a_minute(await service.log.read(0, 1000), "paced") == 2


async def test_starts_longer_ago_than_the_period_do_not_count_after_a_restart(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(paced, clock=clock)
    for n in range(3):
        await service.wait((await service.submit("paced", n)).job_id)
    await time_passing(clock, service.close(), 0.01)
    await clock.advance(60)
    again = await serve(paced, clock=clock)
    job = await again.submit("paced")
    async with asyncio.timeout(20):
        assert (await again.wait(job.job_id)).status == "completed"

"""Only run_at, cron and expiry follow the wall clock; delays take as long as they are."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventjobs.clock import JUMP_S, STEADY_S, STEP_US, Timeline
from eventjobs.domain.events import AttemptStarted, JobExpired
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support import remote_worker as elsewhere
from tests.support.clock import SECOND, FakeClock
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when, recorded_of, time_passing, turns

HOUR_S = 3600
DAY_S = 86_400


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


def again(delay_s: float) -> Any:
    @handler("again", max_attempts=2, retry_delay_s=0)
    async def fails_once(context: Context, payload: Any) -> None:
        if context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=delay_s)

    return fails_once


class Gate:
    def __init__(self) -> None:
        self.opened = asyncio.Event()

        @handler("gate", concurrency=1)
        async def gate(context: Context, payload: Any) -> None:
            await self.opened.wait()

        self.handler = gate


async def waits(service: Service, job_id: str) -> None:
    """Return when it has failed once and is in the views."""
    await job_when(service, job_id, lambda job: job.error is not None)
    await service.views.wait_for_position(service.log.head)
    await turns()


async def starts_after(service: Service, clock: FakeClock, job_id: str, limit_s: float) -> float:
    """The time that passes until its second attempt begins."""
    began_s = clock.monotonic_s()

    async def start_again() -> None:
        await job_when(service, job_id, lambda job: job.attempt == 2)

    async with asyncio.timeout(20):
        await time_passing(clock, start_again(), limit_s / 20)
    return clock.monotonic_s() - began_s


@pytest.mark.parametrize("back_s", [0.5, 60, HOUR_S, 400 * DAY_S])
async def test_what_is_queued_runs_though_the_clock_is_set_back(
    serve: Serve, clock: FakeClock, back_s: float
) -> None:
    gate = Gate()
    service = await serve(ok, gate.handler, clock=clock)
    ids = [(await service.submit("gate")).job_id for _ in range(3)]
    await job_when(service, ids[0], lambda job: job.status == "running")
    clock.jump_wall(-back_s)
    gate.opened.set()
    ids.append((await service.submit("ok")).job_id)
    before_s = clock.monotonic_s()
    for job_id in ids:
        async with asyncio.timeout(20):
            await time_passing(clock, service.wait(job_id), 0.01)
    assert clock.monotonic_s() - before_s < 5


@pytest.mark.parametrize("step_s", [-HOUR_S, -0.5, 0.5, HOUR_S, 400 * DAY_S])
async def test_a_retry_that_waits_takes_as_long_as_it_says(
    serve: Serve, clock: FakeClock, step_s: float
) -> None:
    service = await serve(again(100), clock=clock)
    job_id = (await service.submit("again")).job_id
    await waits(service, job_id)
    await clock.advance(20)
    clock.jump_wall(step_s)
    assert 75 <= await starts_after(service, clock, job_id, 80) <= 90


async def test_a_job_that_only_seems_due_uses_no_start_of_its_rate(
    serve: Serve, clock: FakeClock
) -> None:
    @handler("paced", rate="2/m", max_attempts=2)
    async def paced(context: Context, payload: Any) -> None:
        if payload == "again" and context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=1000)

    service = await serve(paced, clock=clock)
    await waits(service, (await service.submit("paced", "again")).job_id)
    await clock.advance(61)
    clock.jump_wall(HOUR_S)
    jobs = [await service.submit("paced") for _ in range(2)]
    async with asyncio.timeout(20):
        for job in jobs:
            await service.wait(job.job_id)


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_retry_after_the_step_takes_as_long_as_it_says(
    serve: Serve, clock: FakeClock, step_s: float
) -> None:
    service = await serve(again(0.5), clock=clock)
    clock.jump_wall(step_s)
    job_id = (await service.submit("again")).job_id
    await time_passing(clock, waits(service, job_id), 0.001)
    assert 0.4 <= await starts_after(service, clock, job_id, 0.5) <= 0.7


async def test_after_the_step_each_of_several_retries_starts_when_it_is_due(
    serve: Serve, clock: FakeClock
) -> None:
    """A step forward makes all of them seem due. None waits for the last one."""

    @handler("again", max_attempts=2)
    async def again_after(context: Context, payload: float) -> None:
        if context.attempt == 1:
            raise JobError("again", "once more", retry_after_s=payload)

    service = await serve(again_after, clock=clock)
    delays_s = (5, 10, 20)
    ids = [(await service.submit("again", each)).job_id for each in delays_s]
    for job_id in ids:
        await waits(service, job_id)
    clock.jump_wall(HOUR_S)
    began_s = clock.monotonic_s()
    for job_id, delay_s in zip(ids, delays_s, strict=True):
        await starts_after(service, clock, job_id, 10)
        assert delay_s - 1 <= clock.monotonic_s() - began_s <= delay_s + 1


async def test_a_clock_that_is_set_back_and_forth_changes_no_delay(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(again(1000), clock=clock)
    ids = []
    for step_s in (-HOUR_S, HOUR_S, 5 * DAY_S, -5 * DAY_S, -DAY_S):
        ids.append((await service.submit("again")).job_id)
        await waits(service, ids[-1])
        clock.jump_wall(step_s)
        await clock.advance(100)
    began_s = clock.monotonic_s()
    for number, job_id in enumerate(ids):
        await starts_after(service, clock, job_id, 200)
        due_s = began_s + 500 + number * 100
        assert due_s - 5 <= clock.monotonic_s() <= due_s + 20


@pytest.mark.parametrize("step_s", [-HOUR_S, -400 * DAY_S])
async def test_after_a_restart_a_clock_that_was_set_back_makes_no_delay_longer(
    serve: Serve, clock: FakeClock, step_s: float
) -> None:
    service = await serve(ok, again(100), clock=clock, concurrency=1)
    job_id = (await service.submit("again")).job_id
    await waits(service, job_id)
    await time_passing(clock, service.close())
    clock.jump_wall(step_s)
    later = await serve(ok, again(100), clock=clock)
    queued = await later.submit("ok")
    await time_passing(clock, later.wait(queued.job_id), 0.01)
    assert await starts_after(later, clock, job_id, 100) <= 110


async def test_a_machine_that_begins_in_1970_loses_no_time(serve: Serve, clock: FakeClock) -> None:
    """As one without a battery for its clock, until NTP answers."""
    service = await serve(ok, again(100), clock=clock, concurrency=0)
    old = [(await service.submit(type)).job_id for type in ("ok", "again")]
    await time_passing(clock, service.close())
    today_us = clock.now_us() + DAY_S * SECOND
    clock.jump_wall(-clock.now_us() / SECOND)
    service = await serve(ok, again(100), clock=clock)
    run_at = datetime.fromtimestamp(today_us / SECOND + HOUR_S, UTC)
    later = await service.submit("ok", run_at=run_at)
    await time_passing(clock, service.wait(old[0]), 0.01)
    await waits(service, old[1])
    clock.jump_wall((today_us - clock.now_us()) / SECOND)
    assert 90 <= await starts_after(service, clock, old[1], 100) <= 110
    job = await service.submit("ok")
    assert (await time_passing(clock, service.wait(job.job_id), 0.01)).status == "completed"
    assert await recorded_of(service, later.job_id, AttemptStarted) == []
    await time_passing(clock, service.wait(later.job_id), 60)
    [started] = await recorded_of(service, later.job_id, AttemptStarted)
    assert started.at_us >= run_at.timestamp() * SECOND


async def test_run_at_follows_the_wall_clock(serve: Serve, clock: FakeClock) -> None:
    service = await serve(ok, clock=clock)
    run_at = datetime.fromtimestamp(clock.now_us() / SECOND + 60, UTC)
    job = await service.submit("ok", run_at=run_at)
    await service.views.wait_for_position(service.log.head)
    clock.jump_wall(-HOUR_S)
    for _ in range(10):
        await clock.advance(350)
        await service.submit("ok")  # another job becomes due
    assert await recorded_of(service, job.job_id, AttemptStarted) == []
    await clock.advance(200)
    await time_passing(clock, service.wait(job.job_id), 1)
    [started] = await recorded_of(service, job.job_id, AttemptStarted)
    assert started.at_us >= run_at.timestamp() * SECOND


async def test_a_worker_elsewhere_gets_what_is_queued(client: Connect, clock: FakeClock) -> None:
    api = await client(clock=clock, worker_types="far")
    before = (await api.submit("far"))["job_id"]
    clock.jump_wall(-HOUR_S)
    after = (await api.submit("far"))["job_id"]
    jobs = await elsewhere.claim(api, max=5)
    assert {each["job_id"] for each in jobs} == {after, before}


async def test_why_does_not_say_that_it_waits_for_the_clock(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(ok, clock=clock, concurrency=0)
    job_id = (await api.submit("ok"))["job_id"]
    clock.jump_wall(-HOUR_S)
    reasons = (await api.get(f"/v1/jobs/{job_id}/why")).json["reasons"]
    assert "scheduled" not in [each["code"] for each in reasons]


async def test_no_attempt_took_less_than_no_time(client: Connect, clock: FakeClock) -> None:
    gate = Gate()
    api = await client(gate.handler, clock=clock)
    job_id = (await api.submit("gate"))["job_id"]
    await job_when(api.service, job_id, lambda job: job.status == "running")
    clock.jump_wall(-HOUR_S)
    gate.opened.set()
    await api.service.wait(job_id)
    for path in ("receipt", "history"):
        body = (await api.get(f"/v1/jobs/{job_id}/{path}")).json
        assert [each["duration_s"] for each in body["attempts"]] == [0]


# --- expiry


async def end_jobs(service: Service, count: int, **spec: Any) -> list[str]:
    ids = [(await service.submit("ok", **spec)).job_id for _ in range(count)]
    for each in ids:
        await service.wait(each)
    await service.views.wait_for_position(service.log.head)
    return ids


async def hidden(service: Service, ids: list[str]) -> int:
    return sum([len(await recorded_of(service, each, JobExpired)) for each in ids])


async def test_a_clock_that_jumps_forward_hides_nothing_until_it_is_steady(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(ok, clock=clock)
    ids = await end_jobs(service, 40) + await end_jobs(service, 5, ttl_s=HOUR_S)
    brief = await end_jobs(service, 1, ttl_s=100)
    with capture_logs() as lines:
        clock.jump_wall(10 * DAY_S)
        await clock.advance(5)
        new = await end_jobs(service, 1, ttl_s=100)
        for _ in range(58):
            await clock.advance(STEADY_S / 60)
        assert await hidden(service, [*ids, *brief]) == 0
        assert await hidden(service, new) == 1, "its time passed after the jump"
    assert len([each for each in lines if "set forward" in each["event"]]) == 1

    async def all_hidden() -> None:
        for each in [*ids, *brief]:
            await job_when(service, each, lambda job: job.expired_us is not None)

    async with asyncio.timeout(20):
        await time_passing(clock, all_hidden(), 5)


async def test_a_jump_that_is_taken_back_hides_nothing(serve: Serve, clock: FakeClock) -> None:
    service = await serve(ok, clock=clock)
    ids = await end_jobs(service, 30)
    for _ in range(5):  # and each one begins the time anew
        clock.jump_wall(5 * DAY_S)
        await clock.advance(STEADY_S / 2)
    clock.jump_wall(-25 * DAY_S)
    for _ in range(100):
        await clock.advance(60)
    assert await hidden(service, ids) == 0


async def test_a_small_step_is_no_jump(serve: Serve, clock: FakeClock) -> None:
    service = await serve(ok, clock=clock)
    [job_id] = await end_jobs(service, 1, ttl_s=60)
    clock.jump_wall(JUMP_S - 1)
    gone = job_when(service, job_id, lambda job: job.expired_us is not None)
    await time_passing(clock, gone, 1)
    assert clock.monotonic_s() < 60


# --- the timeline


@given(
    st.lists(st.tuples(st.integers(-2000, 2000), st.integers(0, 900)), max_size=8),
    st.integers(1, 300),
)
@example([(-10, 5), (5, 5), (5, 5)], 30)
async def test_of_each_delay_as_much_is_left_as_time_has_not_passed(
    steps: list[tuple[int, int]], delay_s: int
) -> None:
    clock = FakeClock()
    events: list[tuple[int, float]] = []
    timeline = Timeline(clock, lambda: len(events))
    for step_s, passes_s in steps:
        events.append((clock.now_us(), clock.monotonic_s()))
        clock.jump_wall(step_s)
        timeline.now_us()
        clock.freeze(passes_s)
    events.append((clock.now_us(), clock.monotonic_s()))
    assert timeline.horizon_us() >= max(at_us for at_us, _ in events)
    for position, (at_us, began_s) in enumerate(events, 1):
        left_s = timeline.left_s(at_us, position, at_us + delay_s * SECOND)
        assert left_s == pytest.approx(began_s + delay_s - clock.monotonic_s(), abs=1e-3)


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_delay_of_before_the_start_is_never_longer_than_itself(
    step_s: int, delay_s: int, passes_s: int
) -> None:
    clock = FakeClock(10**9 * SECOND * 2)
    at_us = clock.now_us() + step_s * SECOND
    timeline = Timeline(clock, lambda: 5, at_us)
    clock.freeze(passes_s)
    left_s = timeline.left_s(at_us, 3, at_us + delay_s * SECOND)
    assert left_s <= delay_s - passes_s
    assert timeline.horizon_us() >= at_us + passes_s * SECOND


async def test_a_clock_that_is_slewed_is_straight() -> None:
    clock = FakeClock()
    timeline = Timeline(clock, lambda: 0)
    for _ in range(1000):
        clock.jump_wall(0.015)
        clock.freeze(30)
        timeline.now_us()
    assert timeline.is_straight
    clock.jump_wall(-STEP_US / SECOND)
    timeline.now_us()
    assert not timeline.is_straight

"""Limits hold at every moment, for whoever claims, and what may not run hides nobody who may."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.attempts.rate_window import RateWindow
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    JobCancelled,
    JobCompleted,
    JobSubmitted,
)
from eventjobs.domain.job import Job
from eventjobs.domain.limits import ConcurrencyLimits, Rate
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import InvalidInput, Rejected
from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.views import quick_folder
from tests.support.waiting import job_when, kinds, recorded_of, time_passing, turns


@handler("free")
async def free(context: Context, payload: Any) -> Any:
    return payload


@handler("two", concurrency=2)
async def two(context: Context, payload: Any) -> Any:
    return payload


@handler("pair", key_concurrency=2, queue="narrow")
async def pair(context: Context, payload: Any) -> Any:
    return payload


@handler("paced", rate="3/m")
async def paced(context: Context, payload: Any) -> Any:
    return payload


ALL = (free, two, pair, paced)
TYPES = [each.type for each in ALL]
QUEUES = {"narrow": 3}
ENDS = (JobCompleted, AttemptFailed, AttemptReleased, JobCancelled)


def most_at_once(events: list[Recorded]) -> Counter[tuple[str, str]]:
    """How many ran at the same time by the log: of each type, in each queue, with each key."""
    specs: dict[str, JobSpec] = {}
    running: dict[str, list[tuple[str, str]]] = {}
    now: Counter[tuple[str, str]] = Counter()
    most: Counter[tuple[str, str]] = Counter()
    for each in events:
        if isinstance(each.event, JobSubmitted):
            specs[each.job_id] = each.event.spec
        elif isinstance(each.event, AttemptStarted):
            spec = specs[each.job_id]
            places = [("type", spec.type), ("queue", spec.queue or "default")]
            places += [("key", spec.concurrency_key)] if spec.concurrency_key else []
            running[each.job_id] = places
            now.update(places)
            most |= now
        elif isinstance(each.event, ENDS):
            now.subtract(running.pop(each.job_id, []))
    return most


def most_in_a_minute(events: list[Recorded], type: str) -> int:
    ids = {
        each.job_id
        for each in events
        if isinstance(each.event, JobSubmitted) and each.event.spec.type == type
    }
    starts = [
        each.at_us
        for each in events
        if each.job_id in ids and isinstance(each.event, AttemptStarted)
    ]
    return max((sum(at <= each < at + 60 * SECOND for each in starts) for at in starts), default=0)


# --- whatever happens


class Claimers:
    """Some that claim at the same time, and do to the jobs whatever may happen to them."""

    def __init__(self, service: Service, clock: FakeClock) -> None:
        self.service = service
        self.clock = clock
        self.held: dict[str, Job] = {}

    async def do(self, what: str, who: int, number: int) -> None:
        with suppress(Rejected):  # another one was faster
            await getattr(self, what)(who, number)

    async def claim(self, who: int, number: int) -> None:
        claims = self.service.claims
        picked = await claims.select(self.clock.now_us(), [Capacity(TYPES, 1 + number)], 1 + number)
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
        found = await self.service.views.jobs(
            {"status": ["queued"]}, order="oldest", cursor=None, limit=5
        )
        if found:
            await self.service.jobs.cancel(found[number % len(found)].job.job_id, actor="ann")

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


def opened(folder: Any, clock: FakeClock) -> Service:
    made = Settings(data=folder, concurrency=0, queue_limits=QUEUES)
    return Service(handlers=ALL, settings=made, clock=clock)


@settings(max_examples=25)
@given(rounds)
async def test_there_are_never_more_than_allowed(
    rounds: list[list[tuple[str, int, int]]],
) -> None:
    """Each round's actions go on at the same time; jobs held by workers elsewhere live on."""
    clock = FakeClock()
    with quick_folder() as folder:
        service = opened(folder, clock)
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
                    service = claimers.service = opened(folder, clock)
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


@settings(max_examples=200)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 500_000), st.booleans(), st.integers(0, 3)), max_size=60),
)
def test_a_window_never_lets_more_start_than_its_rate_says(
    count: int, steps: list[tuple[int, bool, int]]
) -> None:
    window = RateWindow(Rate(count, 1))
    window.load([])
    begun: list[int] = []
    waiting, now_us = 0, 0
    for passed_us, starts, later in steps:
        now_us += passed_us
        at_us = window.opens_us(now_us)
        if at_us is not None and at_us <= now_us:
            window.reserve()
            waiting += 1
        elif at_us is not None:
            now_us = at_us
            assert window.opens_us(now_us) == now_us, "it opens when it says, and not later"
        while waiting > later:
            waiting -= 1
            if starts:
                window.record_start(now_us)
                begun.append(now_us)
            else:
                window.cancel()
    for at in begun:
        assert sum(at <= each < at + 1_000_000 for each in begun) <= count


# --- nobody is hidden


async def test_a_thousand_jobs_of_a_held_key_hide_nobody(serve: Serve) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    @handler("slow")
    async def slow(context: Context, payload: Any) -> None:
        begun.set()
        await go.wait()

    service = await serve(slow, free, concurrency=4)
    first = await service.submit("slow", concurrency_key="k")
    await begun.wait()
    await asyncio.gather(*(service.submit("slow", concurrency_key="k") for _ in range(1000)))
    other = await service.submit("free", 1)
    assert (await service.wait(other.job_id)).result == 1
    assert most_at_once(await service.log.read(0, 2000))["key", "k"] == 1
    go.set()
    await service.wait(first.job_id)


async def test_a_thousand_jobs_of_keys_that_were_free_a_moment_ago_hide_nobody(
    serve: Serve,
) -> None:
    """All come at once: the first page is of one key, and only one of it fits."""
    go = asyncio.Event()
    both = asyncio.Barrier(3)

    @handler("slow")
    async def slow(context: Context, payload: Any) -> None:
        await both.wait()
        await go.wait()

    idle = await serve(slow, free, concurrency=0)
    await asyncio.gather(*(idle.submit("slow", concurrency_key=f"k{n % 2}") for n in range(1000)))
    last = await idle.submit("free", 1)
    await idle.close()
    service = await serve(slow, free, concurrency=4)
    assert (await service.wait(last.job_id)).result == 1
    await both.wait()
    assert most_at_once(await service.log.read(0, 2000))["type", "slow"] == 2
    go.set()
    await service.close()


async def test_what_frees_a_key_starts_the_next_at_once(serve: Serve) -> None:
    order: list[int] = []

    @handler("one by one")
    async def one(context: Context, payload: int) -> None:
        order.append(payload)
        await turns(3)

    service = await serve(one)
    jobs = [await service.submit("one by one", n, concurrency_key="k") for n in range(30)]
    for job in jobs:
        await service.wait(job.job_id)
    assert order == list(range(30))
    assert most_at_once(await service.log.read(0, 1000))["key", "k"] == 1


async def test_a_job_that_is_cancelled_while_it_is_claimed_leaves_its_key(serve: Serve) -> None:
    service = await serve(free, concurrency=0)
    first, second = [await service.submit("free", concurrency_key="k") for _ in range(2)]
    await service.views.wait_for_position(service.log.head)
    claims = service.claims
    [(picked, _)] = await claims.select(service.clock.now_us(), [Capacity(["free"], 9)], 9)
    assert picked == first.job_id
    await service.jobs.cancel(picked, actor="ann")
    await service.views.wait_for_position(service.log.head)
    news = claims.waiters.subscribe()
    assert await claims.claim(picked, worker="w") is None
    assert news.is_set(), "who looked in vain has to look again"
    picks = await claims.select(service.clock.now_us(), [Capacity(["free"], 9)], 9)
    assert picks == [(second.job_id, "free")]
    await claims.claim(second.job_id, worker="w")


async def test_a_key_may_hold_more_of_one_type_than_of_another(serve: Serve) -> None:
    service = await serve(free, pair, concurrency=0)
    for type in ("free", "pair", "pair", "free"):
        await service.submit(type, concurrency_key="k")
    await service.views.wait_for_position(service.log.head)
    rooms = [Capacity(["free", "pair"], 9)]
    picked = await service.claims.select(service.clock.now_us(), rooms, 9)
    assert [type for _, type in picked] == ["free", "pair"]
    for job_id, _ in picked:
        await service.claims.claim(job_id, worker="w")


async def test_jobs_of_a_key_that_another_type_holds_hide_nobody(serve: Serve) -> None:
    """In many queues: so many lanes, and none of them may start one."""
    service = await serve(free, pair, concurrency=0)
    await service.submit("pair", concurrency_key="k")
    rooms = [Capacity(["free", "pair"], 9)]
    await service.views.wait_for_position(service.log.head)
    [(holder, _)] = await service.claims.select(service.clock.now_us(), rooms, 1)
    await service.claims.claim(holder, worker="w")
    await asyncio.gather(
        *(service.submit("free", queue=f"q{n}", concurrency_key="k") for n in range(300))
    )
    last = await service.submit("free")
    await service.views.wait_for_position(service.log.head)
    picked = await service.claims.select(service.clock.now_us(), rooms, 1)
    assert picked == [(last.job_id, "free")]
    await service.claims.claim(last.job_id, worker="w")


@pytest.mark.parametrize(
    "bound", [{"concurrency_key": "k"}, {"queue": "narrow"}, {"type": "paced"}]
)
async def test_what_is_taken_ahead_keeps_no_place_from_others(
    serve: Serve, bound: dict[str, str]
) -> None:
    """Nor does it overtake what needs one."""
    service = await serve(free, paced, concurrency=0, queue_limits="narrow=9")
    submitted = [{"type": "free"}, {"type": "free"}, {"type": "free", **bound}, {"type": "free"}]
    ids = [(await service.submit(**each)).job_id for each in submitted]
    await service.views.wait_for_position(service.log.head)

    async def taken(room: Capacity) -> list[str]:
        picked = [
            each for each, _ in await service.claims.select(service.clock.now_us(), [room], 9)
        ]
        for each in picked:
            await service.claims.claim(each, worker="w")
        await service.views.wait_for_position(service.log.head)
        return picked

    types = ["free", "paced"]
    assert await taken(Capacity(types, 1, prefetch=9)) == ids[:2]
    assert await taken(Capacity(types, 0, prefetch=9)) == []
    assert await taken(Capacity(types, 1, prefetch=9)) == ids[2:]


# --- who is woken


async def asleep(service: Service, *types: str) -> asyncio.Task[None]:
    """Somebody who waits for jobs of these types, having looked in vain."""
    claims = service.claims
    news, now_us = claims.waiters.subscribe(), service.clock.now_us()
    waiting = asyncio.create_task(claims.wait_for_work(news, now_us, [Capacity(types, 1)]))
    while not claims.waiters.is_sleeping(news):  # noqa: ASYNC110  no event is set
        await asyncio.sleep(0)
    return waiting


async def test_a_new_job_wakes_those_who_take_its_type(serve: Serve) -> None:
    service = await serve(free, two, concurrency=0)
    waiting, other = await asleep(service, "two", "pair"), await asleep(service, "paced")
    await service.submit("free")
    await service.views.wait_for_position(service.log.head)
    await turns()
    assert not waiting.done()
    await service.submit("two")
    await waiting
    assert not other.done()
    other.cancel()


async def test_whatever_else_happens_wakes_all_also_beside_a_new_job(serve: Serve) -> None:
    service = await serve(free, two, concurrency=0)
    await service.pauses.pause("type", "two", actor="ann")
    await service.views.wait_for_position(service.log.head)
    waiting = await asleep(service, "two")
    resumed = service.pauses.resume("type", "two", actor="ann")
    await asyncio.gather(resumed, service.submit("free"))
    await waiting
    waiting, job = await asleep(service, "two"), await service.submit("free")
    await asyncio.gather(service.jobs.cancel(job.job_id, actor="ann"), service.submit("free"))
    await waiting


# --- limits from outside


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
    await time_passing(clock, service.close(), 0.01)
    again = await serve(paced, free, clock=clock)
    job = await again.submit("paced")
    other = await again.submit("free")
    await again.wait(other.job_id)
    await clock.advance(59.5 - (clock.now_us() - begun_us) / SECOND)
    assert await kinds(again, job.job_id) == "JobSubmitted"
    await clock.advance(0.5)
    await again.wait(job.job_id)
    [started] = await recorded_of(again, job.job_id, AttemptStarted)
    assert started.at_us - begun_us == 60 * SECOND


async def test_a_retry_counts_as_a_start(serve: Serve, clock: FakeClock) -> None:
    @handler("paced", rate="2/m", max_attempts=4, retry_delay_s=0)
    async def fails(context: Context, payload: Any) -> None:
        raise OSError

    service = await serve(fails, clock=clock)
    job = await service.submit("paced")
    job = await time_passing(clock, service.wait(job.job_id), 1)
    assert (job.status, job.attempt) == ("failed", 4)
    assert most_in_a_minute(await service.log.read(0, 1000), "paced") == 2

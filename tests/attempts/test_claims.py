"""Jobs that may not run hide none that may, and a change wakes the claimers that it concerns."""

import asyncio
from typing import Any

import pytest

from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.limited_jobs import free, most_at_once, paced, pair, two
from tests.support.waiting import turns


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
    wake = claims.waiters.subscribe()
    assert await claims.claim(picked, worker="w") is None
    assert wake.is_set(), "who looked in vain has to look again"
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

    async def claim(room: Capacity) -> list[str]:
        picked = [
            each for each, _ in await service.claims.select(service.clock.now_us(), [room], 9)
        ]
        for each in picked:
            await service.claims.claim(each, worker="w")
        await service.views.wait_for_position(service.log.head)
        return picked

    types = ["free", "paced"]
    assert await claim(Capacity(types, 1, prefetch=9)) == ids[:2]
    assert await claim(Capacity(types, 0, prefetch=9)) == []
    assert await claim(Capacity(types, 1, prefetch=9)) == ids[2:]


async def asleep(service: Service, *types: str) -> asyncio.Task[None]:
    """A claimer that waits for jobs of these types."""
    claims = service.claims
    wake, now_us = claims.waiters.subscribe(), service.clock.now_us()
    waiting = asyncio.create_task(claims.wait_for_work(wake, now_us, [Capacity(types, 1)]))
    while not claims.waiters.is_sleeping(wake):  # noqa: ASYNC110  no event is set
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

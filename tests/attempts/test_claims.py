"""Jobs that may not run hide none that may, and a change wakes the claimers that it concerns."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.attempts.limiter import ConcurrencyLimiter
from eventjobs.attempts.waiters import ClaimWaiters
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.ids import new_id
from eventjobs.domain.limits import ConcurrencyLimits
from eventjobs.errors import DiskFull, JobUnreadable
from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.projections.fold import Written
from eventjobs.projections.queue import MovedJob, WaitingJob
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.clock import FakeClock
from tests.support.limited_jobs import free, most_at_once, paced, pair, two
from tests.support.memory_log import MemoryLog
from tests.support.searches import during_a_search
from tests.support.view_model import submit
from tests.support.views import quick_folder, running
from tests.support.waiting import time_passing, turns


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
    [(picked, _)] = await claims.select([Capacity(["free"], 9)], 9)
    assert picked == first.job_id
    await service.jobs.cancel(picked, actor="ann")
    await service.views.wait_for_position(service.log.head)
    wake = claims.waiters.subscribe()
    assert await claims.claim(picked, worker="w") is None
    assert wake.is_set(), "who looked in vain has to look again"
    picks = await claims.select([Capacity(["free"], 9)], 9)
    assert picks == [(second.job_id, "free")]
    await claims.claim(second.job_id, worker="w")


async def test_a_job_that_does_not_wait_is_not_offered_again_and_again(serve: Serve) -> None:
    """What the log says counts, should the queue ever be wrong. A retry brings the job back."""
    service = await serve(free, concurrency=0)
    claims, search = service.claims, [Capacity(["free"], 9)]
    job = await service.submit("free")
    await service.views.wait_for_position(service.log.head)
    cancelled = await service.jobs.cancel(job.job_id, actor="ann")
    await service.views.wait_for_position(service.log.head)
    for is_retried in (False, True):
        claims._on_write(Written(moved=[MovedJob(False, WaitingJob.of(job))]))
        assert await claims.select(search, 9) == [(job.job_id, "free")]
        if is_retried:
            await service.jobs.retry(cancelled.job.job_id, actor="ann")
            assert await claims.claim(job.job_id, worker="w") is not None
        else:
            assert await claims.claim(job.job_id, worker="w") is None
        await service.views.wait_for_position(service.log.head)
        assert await claims.select(search, 9) == []


async def test_a_job_that_comes_between_the_begin_of_a_search_and_its_read_is_not_lost(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is due later than the search goes, and its part of the table is not read yet."""
    before = await serve(free, two, clock=clock, concurrency=0)
    at = datetime.fromtimestamp(clock.now_us() / 1e6 + 3600, UTC)
    await before.submit("free", run_at=at)
    await before.close()
    service = await serve(free, two, clock=clock, concurrency=0)
    wait, ids = service.views.wait_for_position, list[str]()

    async def wait_late(position: int) -> None:
        if not ids:
            ids.append("")
            await clock.advance(1)
            ids[0] = (await service.submit("free")).job_id
            await wait(service.log.head)
        await wait(position)

    monkeypatch.setattr(service.views, "wait_for_position", wait_late)
    capacities = [Capacity(["two"], 9, children_only=["two"]), Capacity(["free"], 9)]
    selected = [each for _ in range(2) for each in await service.claims.select(capacities, 9)]
    assert selected == [(ids[0], "free")]
    await service.claims.claim(ids[0], worker="w")


async def test_a_search_that_is_cut_off_keeps_neither_its_jobs_nor_their_places(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(free, two, concurrency=0)
    parent = await service.submit("two")
    first, second = [
        (await service.submit("free", parent=parent.job_id, concurrency_key="k")).job_id
        for _ in range(2)
    ]
    await service.views.wait_for_position(service.log.head)
    claims, wake = service.claims, service.claims.waiters.subscribe()
    find_not_due, searches = claims.due_times.find_not_due, asyncio.Event()

    async def endless(job_ids: Iterable[str]) -> set[str]:
        if (ids := list(job_ids)) != [parent.job_id]:
            return await find_not_due(ids)
        searches.set()
        await asyncio.Event().wait()
        return set()

    async def cut_off() -> None:
        capacities = [Capacity(["free"], 9, children_only=["free"]), Capacity(["two"], 9)]
        searches.clear()
        with monkeypatch.context() as patch:
            patch.setattr(claims.due_times, "find_not_due", endless)
            search = asyncio.create_task(claims.select(capacities, 9))
            await searches.wait()
            search.cancel()
            await asyncio.wait({search})

    async def select() -> list[tuple[str, str]]:
        return await claims.select([Capacity(["free"], 9)], 9)

    await cut_off()
    assert wake.is_set(), "who looked in vain has to look again"
    assert await select() == [(first, "free")]
    await claims.claim(first, worker="w")
    await service.jobs.complete(first, 1, None, actor="w")
    await service.views.wait_for_position(service.log.head)
    await cut_off()
    await service.jobs.cancel(second, actor="ann")
    third = await service.submit("free", concurrency_key="k")
    await service.views.wait_for_position(service.log.head)
    assert await select() == [(third.job_id, "free")]
    await claims.claim(third.job_id, worker="w")


async def test_a_claim_that_is_cut_off_keeps_its_place_until_the_views_show_what_came_of_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append that has begun may still be made."""
    service = await serve(free, concurrency=0)
    first = await service.submit("free", concurrency_key="k")
    await service.submit("free", concurrency_key="k")
    appends, end = asyncio.Event(), asyncio.Event()

    async def select() -> list[tuple[str, str]]:
        await service.views.wait_for_position(service.log.head)
        return await service.claims.select([Capacity(["free"], 9)], 9)

    async def refuse_late(*arguments: Any) -> Any:
        appends.set()
        await end.wait()
        raise DiskFull

    assert await select() == [(first.job_id, "free")]
    with monkeypatch.context() as patch:
        patch.setattr(service.log, "append_many", refuse_late)
        claim = asyncio.create_task(service.claims.claim(first.job_id, worker="w"))
        await appends.wait()
        claim.cancel()
        await asyncio.wait({claim})
    assert await select() == []
    await service.pauses.pause("type", "two", actor="ann")
    assert await select() == [(first.job_id, "free")]
    end.set()
    assert await service.claims.claim(first.job_id, worker="w") is not None


@handler("rare", rate="1/m")
async def rare(context: Context, payload: Any) -> None: ...


async def select_one(service: Service, type: str) -> list[str]:
    """The id of the job that is selected, once the views show all that has happened."""
    await service.views.wait_for_position(service.log.head)
    selected = await service.claims.select([Capacity([type], 1)], 1)
    return [job_id for job_id, _ in selected]


@pytest.mark.parametrize("why", ["cancelled", "unreadable", "log full"])
async def test_a_start_that_does_not_happen_does_not_count_for_the_rate(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    service = await serve(rare, clock=clock, concurrency=0)
    ids = [(await service.submit("rare")).job_id for _ in range(3)]
    assert await select_one(service, "rare") == ids[:1]
    assert await select_one(service, "rare") == [], "the first one is about to start"
    with monkeypatch.context() as patched:
        if why == "cancelled":
            await service.jobs.cancel(ids[0], actor="ann")
        else:
            error = JobUnreadable("no") if why == "unreadable" else DiskFull()

            async def start(*_: Any, **__: Any) -> None:
                raise error

            patched.setattr(service.jobs, "start", start)
        assert await time_passing(clock, service.claims.claim(ids[0], worker="w")) is None
    left = ids if why == "log full" else ids[1:]
    assert await select_one(service, "rare") == left[:1], "at once"
    assert await service.claims.claim(left[0], worker="w") is not None
    assert await select_one(service, "rare") == [], "one has started"
    await clock.advance(60)
    assert await select_one(service, "rare") == left[1:2]
    await service.claims.claim(left[1], worker="w")


async def test_a_job_that_cannot_be_read_keeps_no_place_from_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not selected again and never ends, so it used to count for ever."""
    service = await serve(free, concurrency=0, type_limits="free=1")
    first, second = [await service.submit("free") for _ in range(2)]
    assert await select_one(service, "free") == [first.job_id]
    with monkeypatch.context() as patched:

        async def start(*_: Any, **__: Any) -> None:
            raise JobUnreadable("no")

        patched.setattr(service.jobs, "start", start)
        assert await service.claims.claim(first.job_id, worker="w") is None
    assert await select_one(service, "free") == [second.job_id]
    await service.claims.claim(second.job_id, worker="w")


async def test_a_claim_that_is_cancelled_while_it_is_appended_counts_for_the_rate(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log may have it, and then the job has started."""
    service = await serve(rare, clock=clock, concurrency=0)
    for _ in range(2):
        await service.submit("rare")
    [picked] = await select_one(service, "rare")
    start, started = service.jobs.start, asyncio.Event()

    async def start_and_hang(*args: Any, **kwargs: Any) -> None:
        await start(*args, **kwargs)
        started.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(service.jobs, "start", start_and_hang)
        claiming = asyncio.create_task(service.claims.claim(picked, worker="w"))
        await started.wait()
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
    assert await select_one(service, "rare") == []


async def test_a_search_that_fails_keeps_none_of_the_jobs_that_it_has_selected(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(rare, free, concurrency=0)
    parent = await service.submit("free")
    child = await service.submit("rare", parent=parent.job_id)
    claims, searches = service.claims, 0
    find_not_due = claims.due_times.find_not_due

    async def fail_at_the_second_search(job_ids: Iterable[str]) -> set[str]:
        nonlocal searches
        searches += 1
        if searches == 2:
            raise OSError("no")
        return await find_not_due(job_ids)

    monkeypatch.setattr(claims.due_times, "find_not_due", fail_at_the_second_search)
    capacities = [Capacity(["rare"], 1, children_only=["rare"]), Capacity(["free"], 1)]
    with pytest.raises(OSError, match="no"):
        await claims.select(capacities, 2)
    picked = await claims.select(capacities, 2)
    assert picked == [(child.job_id, "rare"), (parent.job_id, "free")]
    for job_id, _ in picked:
        await claims.claim(job_id, worker="w")


async def test_a_key_may_hold_more_of_one_type_than_of_another(serve: Serve) -> None:
    service = await serve(free, pair, concurrency=0)
    for type in ("free", "pair", "pair", "free"):
        await service.submit(type, concurrency_key="k")
    await service.views.wait_for_position(service.log.head)
    rooms = [Capacity(["free", "pair"], 9)]
    picked = await service.claims.select(rooms, 9)
    assert [type for _, type in picked] == ["free", "pair"]
    for job_id, _ in picked:
        await service.claims.claim(job_id, worker="w")


async def test_jobs_of_a_key_that_another_type_holds_hide_nobody(serve: Serve) -> None:
    """In many queues: so many lanes, and none of them may start one."""
    service = await serve(free, pair, concurrency=0)
    await service.submit("pair", concurrency_key="k")
    rooms = [Capacity(["free", "pair"], 9)]
    await service.views.wait_for_position(service.log.head)
    [(holder, _)] = await service.claims.select(rooms, 1)
    await service.claims.claim(holder, worker="w")
    await asyncio.gather(
        *(service.submit("free", queue=f"q{n}", concurrency_key="k") for n in range(300))
    )
    last = await service.submit("free")
    await service.views.wait_for_position(service.log.head)
    picked = await service.claims.select(rooms, 1)
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
        picked = [each for each, _ in await service.claims.select([room], 9)]
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
    wake = claims.waiters.subscribe()
    waiting = asyncio.create_task(claims.wait_for_work(wake, [Capacity(types, 1)]))
    while not claims.waiters.is_sleeping(wake):  # noqa: ASYNC110  no event is set
        await asyncio.sleep(0)
    return waiting


async def test_a_new_job_wakes_those_who_take_its_type(serve: Serve) -> None:
    service = await serve(free, two, concurrency=0)
    waiting, other = await asleep(service, "two", "pair"), await asleep(service, "paced")
    searching = service.claims.waiters.subscribe()  # its search may have passed the new job
    await service.submit("free")
    await service.views.wait_for_position(service.log.head)
    await turns()
    assert searching.is_set()
    assert not waiting.done()
    await service.submit("two")
    await waiting
    assert not other.done()
    other.cancel()


async def test_a_claimer_is_woken_by_what_makes_a_job_of_its_types_available(
    serve: Serve,
) -> None:
    service = await serve(free, two, concurrency=0)
    await service.pauses.pause("type", "two", actor="ann")
    await service.pauses.pause("queue", "later", actor="ann")
    await service.submit("two")
    job = await service.submit("two", queue="later")
    await service.views.wait_for_position(service.log.head)
    waiting, other = await asleep(service, "two"), await asleep(service, "free")
    for kind in ("queue", "type"):
        assert not waiting.done()
        position = await service.pauses.resume(
            kind, {"queue": "later", "type": "two"}[kind], actor="ann"
        )
        await service.views.wait_for_position(position)
        await turns()
    await waiting
    await service.jobs.cancel(job.job_id, actor="ann")
    await service.views.wait_for_position(service.log.head)
    await turns()
    assert not other.done(), "nothing of its type has happened"
    other.cancel()


async def test_what_comes_while_a_runner_searches_starts_at_once(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new job, and the end of a pause. The clock stands still, so nothing else wakes it."""
    service = await serve(free, clock=clock)

    async def search_during(change: Callable[[], Awaitable[object]]) -> None:
        done = during_a_search(service, monkeypatch, change)
        service.job_source.interrupt_wait()
        await done.wait()

    async with asyncio.timeout(20):
        job_id = new_id(clock.now_us())
        await search_during(partial(service.submit, "free", job_id=job_id))
        assert (await service.wait(job_id)).status == "completed"
        await service.pauses.pause("type", "free", actor="ann")
        paused = await service.submit("free")
        await service.views.wait_for_position(service.log.head)
        await search_during(partial(service.pauses.resume, "type", "free", actor="ann"))
        assert (await service.wait(paused.job_id)).status == "completed"


async def test_no_claimer_waits_after_the_last_one_has_woken() -> None:
    """Else the queue would set a timer again and again."""
    waiters = ClaimWaiters()
    wake = waiters.subscribe()
    sleeping = asyncio.create_task(waiters.sleep(wake, [Capacity(["csv"], 1)]))
    await turns()
    assert waiters.are_waiting
    waiters.wake_all()
    await sleeping
    assert not waiters.are_waiting


async def test_a_claimer_that_came_before_the_queue_was_loaded_gets_its_first_job(
    clock: FakeClock,
) -> None:
    """The clock stands still, so nothing but the load ends the wait."""
    log = MemoryLog(clock)
    job_id = await submit(log, 0)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            await views.wait_for_position(log.head)
            limiter = ConcurrencyLimiter(ConcurrencyLimits(), clock)
            queue = ClaimQueue(Jobs(log, clock), views, clock, limiter)
            wake, capacities = queue.waiters.subscribe(), [Capacity(["csv"], 1)]
            assert await queue.select(capacities, 1) == []
            waiting = asyncio.create_task(queue.wait_for_work(wake, capacities))
            await turns()
            await queue.load()
            async with asyncio.timeout(20):
                await waiting
            assert await queue.select(capacities, 1) == [(job_id, "csv")]

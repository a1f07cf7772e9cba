"""A job that waits for another lends its slot to children only."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import AttemptReleased
from eventjobs.execution import slots
from eventjobs.execution.slots import Slot, Slots
from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Connect, Serve
from tests.support.child_jobs import child_of, children, hold, running, square, sum_of
from tests.support.clock import FakeClock
from tests.support.process_handlers import dig_in_a_process, holds_in_a_process
from tests.support.processes import first_report
from tests.support.remote_runner import declare_remote, remote_runner
from tests.support.waiting import kinds, recorded_of, time_passing, turns

ONE: dict[str, Any] = {"concurrency": 1, "threads": 1, "processes": 1}
DEPTH = 20


class RunningCount:
    """Counts the jobs that run at once; a waiting job does not run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


@handler("dig")
async def dig(context: Context, depth: int) -> int:
    below = await context.submit("dig", depth - 1) if depth else None
    return 1 + await context.result(below) if below else 0


@handler("dig in a thread")
def dig_in_a_thread(context: ThreadContext, depth: int) -> int:
    return 1 + context.result(context.submit("dig in a thread", depth - 1)) if depth else 0


# Less deep in processes, each of which takes a while to start.
DIGGERS = [(dig, DEPTH), (dig_in_a_thread, DEPTH), (dig_in_a_process, 6)]


@pytest.mark.parametrize(("digger", "depth"), DIGGERS)
async def test_a_job_that_waits_for_one_of_its_own_kind_ends_though_one_at_once_may_run(
    serve: Serve, digger: Handler, depth: int
) -> None:
    service = await serve(digger, **ONE)
    job = await service.submit(digger.type, depth)
    job = await service.wait(job.job_id)
    assert (job.status, job.result, job.attempt) == ("completed", depth, 1), job.error


@pytest.mark.parametrize(("digger", "depth"), DIGGERS)
async def test_so_it_does_in_a_worker_elsewhere(
    client: Connect, tmp_path: Path, digger: Handler, depth: int
) -> None:
    api = await client(*declare_remote(digger))
    async with remote_runner(
        api, tmp_path / "worker", digger, concurrency=1, threads=1, processes=1
    ):
        job = await api.service.submit(digger.type, depth)
        job = await api.service.wait(job.job_id)
    assert (job.status, job.result, job.attempt) == ("completed", depth, 1), job.error


@pytest.mark.parametrize("place", ["here", "elsewhere"])
async def test_many_parents_do_not_keep_their_children_out(
    client: Connect, tmp_path: Path, place: str
) -> None:
    """All parents are older than the first child; no more of them start than there are slots."""
    branches, running_count = RunningCount(), RunningCount()

    @handler("leaf")
    def leaf(context: ThreadContext, payload: int) -> int:
        with running_count.one():
            return payload

    @handler("branch")
    def branch(context: ThreadContext, payload: int) -> int:
        with branches.one():
            ids = [context.submit("leaf", payload) for _ in range(3)]
            return sum(context.result(each) for each in ids)

    handlers = (branch, leaf)
    two: dict[str, Any] = {"concurrency": 2, "threads": 2}
    api = await client(*(handlers if place == "here" else declare_remote(*handlers)), **two)
    for type in ("branch", "leaf"):
        await api("POST", f"/v1/types/{type}/pause", {})
    jobs = [await api.service.submit("branch", number) for number in range(12)]
    async with AsyncExitStack() as stack:
        if place == "elsewhere":
            await stack.enter_async_context(
                remote_runner(api, tmp_path / "worker", *handlers, **two)
            )
        for type in ("branch", "leaf"):
            await api("POST", f"/v1/types/{type}/resume", {})
        for number, job in enumerate(jobs):
            assert (await api.service.wait(job.job_id)).result == 3 * number
    assert branches.most <= 2
    assert running_count.most <= 2


async def test_a_tree_is_gone_through_to_the_bottom_before_it_gets_broader(serve: Serve) -> None:
    """Else all branches would start, each with a thread or a process, before one ends."""
    branches = RunningCount()

    @handler("twig")
    def twig(context: ThreadContext, payload: Any) -> int:
        return 1

    @handler("branch")
    def branch(context: ThreadContext, payload: Any) -> Any:
        with branches.one():
            return context.result(context.submit("twig"))

    @handler("tree")
    async def tree(context: Context, payload: int) -> Any:
        ids = [await context.submit("branch") for _ in range(payload)]
        return sum([await context.result(each) for each in ids])

    service = await serve(tree, branch, twig, concurrency=2, threads=2)
    job = await service.submit("tree", 40)
    assert (await service.wait(job.job_id)).result == 40
    assert branches.most < 20


async def test_several_are_waited_for_at_once(serve: Serve) -> None:
    """By tasks of one handler, each of which waits for five jobs in turn."""

    @handler("crew")
    async def crew(context: Context, payload: int) -> int:
        async def one(first: int) -> int:
            done = 0
            for number in range(5):
                child = await context.submit("square", 1, name=f"{first} {number}")
                done += await context.result(child)
            return done

        return sum(await asyncio.gather(*map(one, range(payload))))

    service = await serve(crew, square, **ONE)
    job = await service.submit("crew", 3)
    assert (await service.wait(job.job_id)).result == 15


async def test_a_job_without_a_parent_waits_for_a_slot_that_is_free(
    client: Connect, clock: FakeClock
) -> None:
    @handler("patient")
    async def patient(context: Context, payload: str) -> Any:
        return await context.result(await context.submit("square", 2, run_at=at))

    at = datetime.fromtimestamp(clock.now_us() / 1e6 + 3600, UTC)
    api = await client(patient, square, clock=clock, **ONE)
    parent = await api.service.submit("patient", "")
    child = await child_of(api.service, parent.job_id)
    stranger = await api.service.submit("square", 3)
    relative = await api.service.submit("square", 4, parent=parent.job_id)
    assert (await api.service.wait(relative.job_id)).result == 16, "the slot is for children"
    assert await kinds(api.service, stranger.job_id) == "JobSubmitted"
    [why] = (await api.get(f"/v1/jobs/{stranger.job_id}/why")).json["reasons"]
    assert why["code"] == "busy"
    await time_passing(clock, api.service.wait(child), 600)
    assert (await api.service.wait(parent.job_id)).result == 4
    assert (await api.service.wait(stranger.job_id)).result == 9


# --- Slots alone


async def waits(slot: Slot, for_what: asyncio.Event, *counts: RunningCount) -> None:
    async with slot.released_while_waiting():
        await for_what.wait()
    with ExitStack() as stack:
        for each in counts:
            stack.enter_context(each.one())
        await turns(3)
    slot.release()


async def test_when_a_thousand_may_go_on_at_once_so_many_do_as_there_are_slots() -> None:
    """And of those in threads, so many as there are threads."""
    pool, ended, running_count = Slots(5, {"thread": 2}), asyncio.Event(), RunningCount()
    of_mode = {"thread": RunningCount(), "loop": RunningCount()}
    modes = ["thread" if number % 3 else "loop" for number in range(1_000)]
    tasks = [
        asyncio.create_task(waits(pool.take(mode), ended, running_count, of_mode[mode]))
        for mode in modes
    ]
    await turns()
    [capacity], limit = pool.capacities({"thread": ["t"]}, {})
    assert (capacity.free, capacity.children_only, limit) == (2, ["t"], 5)
    ended.set()
    await asyncio.gather(*tasks)
    assert (running_count.most, of_mode["thread"].most) == (5, 2)
    [capacity], limit = pool.capacities({"thread": ["t"]}, {})
    assert (capacity.free, capacity.children_only, limit) == (2, (), 5)


@pytest.mark.parametrize(("taken", "free", "ahead"), [(1, 1, 3), (2, 0, 3), (3, 0, 2), (6, 0, 0)])
def test_jobs_that_are_prefetched_count_towards_their_number(
    taken: int, free: int, ahead: int
) -> None:
    pool = Slots(10, {"process": 2})
    taken_slots = [pool.take("process") for _ in range(taken)]
    assert [each.is_prefetched for each in taken_slots] == [False, False, *[True] * 4][:taken]
    assert pool.capacities({"process": ["p"]}, {"process": 3}) == (
        [Capacity(["p"], free, ahead)],
        10 - taken,
    )


def test_no_job_is_prefetched_while_one_of_its_mode_has_lent_its_slot() -> None:
    """It could take the slot that the other waits for."""
    pool = Slots(10, {"process": 2})
    first, _ = pool.take("process"), pool.take("process")
    pool.release_while_waiting(first)
    assert pool.capacities({"process": ["p"]}, {"process": 3}) == (
        [Capacity(["p"], 1, children_only=["p"])],
        8,
    )
    assert not pool.take("process").is_prefetched, "it has the slot that is lent"


def test_no_job_is_prefetched_beside_a_free_slot_while_another_is_lent() -> None:
    pool = Slots(10, {"process": 3})
    first, _ = pool.take("process"), pool.take("process")
    pool.release_while_waiting(first)
    types = {"process": ["p"], "loop": ["x"]}
    assert pool.capacities(types, {"process": 3}) == (
        [Capacity(["p"], 1), Capacity(["x"], 10)],
        8,
    )


async def wait_for_turn(slot: Slot) -> asyncio.Task[None]:
    """A task of the slot's job that waits to get the slot back."""
    ended = asyncio.Event()
    ended.set()
    task = asyncio.create_task(waits(slot, ended))
    await turns()
    assert not task.done(), "another job has the slot"
    return task


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_told_to_stop_while_it_waits_for_its_turn_goes_at_once() -> None:
    pool = Slots(1, {})
    first, second, third = [pool.take("loop") for _ in range(3)]
    before = await wait_for_turn(first)
    await cancel(await wait_for_turn(second))
    third.release()
    await turns()
    assert not before.done(), "the one that goes on has the slot, for as long as it needs"
    assert pool.capacities({"loop": ["x"]}, {})[1] == 0
    second.release()
    await before
    assert pool.capacities({"loop": ["x"]}, {})[1] == 1


async def test_a_turn_that_is_cancelled_as_it_comes_takes_the_slot_from_no_child() -> None:
    """Another task of the same handler waits for a child, which needs the slot that is lent."""
    pool = Slots(1, {})
    parent, other = pool.take("loop"), pool.take("loop")
    waiting = await wait_for_turn(parent)
    async with parent.released_while_waiting():
        await cancel(waiting)
        other.release()
        [capacity], limit = pool.capacities({"loop": ["x"]}, {})
        assert (capacity.free, capacity.children_only, limit) == (1, ["x"], 1)
    parent.release()
    assert pool.capacities({"loop": ["x"]}, {})[1] == 1


async def test_waits_that_are_cut_short_lend_the_slot_until_the_last_of_them() -> None:
    """A handler may go on after that: its wait was in a timeout, say."""
    pool, child = Slots(1, {}), asyncio.Event()
    parent = pool.take("loop")
    waiting = [asyncio.create_task(waits(parent, child)) for _ in range(2)]
    await turns()
    for task, limit in zip(waiting, (1, 0), strict=True):
        assert pool.capacities({"loop": ["x"]}, {})[1] == 1
        await cancel(task)
        assert pool.capacities({"loop": ["x"]}, {})[1] == limit


@pytest.mark.parametrize("mode", ["loop", "thread"])
async def test_what_a_handler_has_left_behind_lends_no_slot(mode: str) -> None:
    """Nothing runs in that slot but the recording of the outcome."""
    pool = Slots(1, {"thread": 1})
    slot = pool.take(mode)
    slot.free_mode()
    async with slot.released_while_waiting():
        assert pool.capacities({mode: ["x"]}, {})[1] == 0
        slot.release()
        assert pool.capacities({mode: ["x"]}, {})[1] == 1
    async with slot.released_while_waiting():
        assert pool.capacities({mode: ["x"]}, {})[1] == 1


async def test_an_error_of_what_is_waited_for_is_raised_and_the_slot_is_taken_again() -> None:
    pool = Slots(1, {})
    slot = pool.take("loop")
    with pytest.raises(ValueError, match="its own"):
        async with slot.released_while_waiting():
            raise ValueError("its own")
    assert not slot.is_lent
    assert pool.capacities({"loop": ["x"]}, {}) == ([Capacity(["x"], 0, children_only=["x"])], 0)


def test_a_thread_is_free_for_the_next_job_before_the_slot_is() -> None:
    pool = Slots(3, {"thread": 1})

    def free_threads_and_slots() -> tuple[int, int]:
        [capacity], free = pool.capacities({"thread": ["t"]}, {})
        return capacity.free, free

    for _ in range(2):
        slot = pool.take("thread")
        assert free_threads_and_slots() == (0, 2)
        assert slot.free_mode()
        assert free_threads_and_slots() == (1, 2)
        slot.release()
        assert free_threads_and_slots() == (1, 3)
    assert not pool.take("loop").free_mode(), "its mode has no limit"


async def test_a_task_that_a_handler_leaves_behind_lends_no_slot() -> None:
    pool = Slots(2, {"thread": 1})
    slot = pool.take("thread")
    slot.free_mode()
    async with slot.released_while_waiting():
        assert not slot.is_lent
    assert pool.capacities({"thread": ["t"]}, {}) == ([Capacity(["t"], 1)], 1)


# --- how a parent that waits may end


async def nothing_is_amiss(service: Any) -> None:
    """There is exactly one free slot."""
    job = await service.submit("sum", [1, 2, 3])
    assert (await service.wait(job.job_id)).result == 14
    while service.runner.running:  # noqa: ASYNC110  no event is set
        await asyncio.sleep(0)
    assert service.runner._slots.capacities({"loop": ["x"]}, {})[1] == 1


@handler("waits")
async def waits_for(context: Context, payload: str) -> Any:
    return await context.result(payload or await context.submit("hold"))


@handler("waits in a thread")
def waits_in_a_thread(context: ThreadContext, payload: str) -> Any:
    return context.result(payload or context.submit("hold"))


PARENTS = [waits_for, waits_in_a_thread, holds_in_a_process]


@pytest.mark.parametrize("parent", PARENTS)
async def test_a_parent_that_is_cancelled_while_it_waits(serve: Serve, parent: Handler) -> None:
    service = await serve(parent, hold, square, sum_of, **ONE)
    job = await service.submit(parent.type)
    child = await child_of(service, job.job_id)
    await running(service, child)
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).status == "cancelled"
    assert (await service.wait(child)).status == "cancelled"
    await nothing_is_amiss(service)


@pytest.mark.parametrize("parent", [waits_for, waits_in_a_thread])
async def test_a_parent_that_runs_out_of_time_while_it_waits(
    serve: Serve, clock: FakeClock, parent: Handler
) -> None:
    service = await serve(parent, hold, square, sum_of, clock=clock, **ONE)
    job = await service.submit(parent.type, timeout_s=60, max_attempts=1)
    child = await child_of(service, job.job_id)
    await running(service, child)
    ended = await time_passing(clock, service.wait(job.job_id))
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == ("failed", "timeout")
    await service.jobs.cancel(child, actor="test")
    await service.wait(child)
    await nothing_is_amiss(service)


@pytest.mark.parametrize("parent", PARENTS)
async def test_a_parent_that_waits_at_a_shutdown_is_given_back_and_goes_on_after_it(
    serve: Serve, parent: Handler
) -> None:
    service = await serve(parent, hold, drain_s=0.0, grace_s=0.0, **ONE)
    job = await service.submit(parent.type)
    child = await child_of(service, job.job_id)
    await running(service, child)
    await service.close()
    for each in (job.job_id, child):
        assert len(await recorded_of(service, each, AttemptReleased)) == 1

    @handler("hold")
    async def lets_go(context: Context, payload: Any) -> str:
        return "at last"

    service = await serve(parent, lets_go, **ONE)
    ended = await service.wait(job.job_id)
    assert (ended.status, ended.result) == ("completed", "at last")


async def test_a_parent_whose_process_dies_while_it_waits(serve: Serve) -> None:
    service = await serve(holds_in_a_process, hold, square, sum_of, **ONE)
    job = await service.submit(holds_in_a_process.type, max_attempts=1)
    child = await child_of(service, job.job_id)
    await running(service, child)
    os.kill((await first_report(service, job.job_id))["pid"], signal.SIGKILL)
    ended = await service.wait(job.job_id)
    assert ended.error is not None
    assert ended.error["code"] == "worker_crashed"
    await turns()
    assert "reply" not in [each.get_name() for each in asyncio.all_tasks()]
    await service.jobs.cancel(child, actor="test")
    await service.wait(child)
    await nothing_is_amiss(service)


@pytest.mark.parametrize(("digger", "most"), [(dig, 3), (dig_in_a_process, 1)])
async def test_more_than_may_wait_is_an_error_and_not_a_standstill(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, digger: Handler, most: int
) -> None:
    monkeypatch.setitem(slots.WAITING_MAX, digger.mode, most)
    service = await serve(replace(digger, max_attempts=1), **ONE)
    job = await service.submit(digger.type, most + 1)
    ended = await service.wait(job.job_id)
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == ("failed", "child_failed")
    assert f"too_many_waiting: {most} jobs here wait" in await deepest(service, job.job_id)
    job = await service.submit(digger.type, most)
    assert (await service.wait(job.job_id)).result == most


async def deepest(service: Any, job_id: str) -> str:
    """The error of the first failure in a chain of children."""
    errors: list[str] = []
    while below := await children(service, job_id):
        [job_id] = below
        if (error := (await service.jobs.load(job_id)).error) is not None:
            errors.append(f"{error['code']}: {error['message']}")
    return errors[-1]


def test_a_slot_that_is_lent_when_its_handler_ends_is_lent_no_more() -> None:
    """A task that the handler has left behind may still wait for a job."""
    used, unused = Slots(2, {"thread": 1}), Slots(2, {"thread": 1})
    slot = used.take("thread")
    used.release_while_waiting(slot)
    assert slot.free_mode()
    slot.release()
    for slots_ in (used, unused):
        slots_.take("thread")
    types = {"thread": ["wait"]}
    assert used.capacities(types, {}) == unused.capacities(types, {})

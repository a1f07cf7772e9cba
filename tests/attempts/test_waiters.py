"""Which of the claimers that wait for a job are woken, and that none sleeps beside a job."""

import asyncio
import random
from collections import Counter
from collections.abc import Collection

import pytest

from eventjobs.attempts.waiters import ClaimWaiters
from eventjobs.execution.source import Capacity
from tests.support.waiting import turns


class Claimers:
    """Claimers of the jobs in *available*, each of which takes one job and leaves."""

    def __init__(self) -> None:
        self.waiters = ClaimWaiters()
        self.available = Counter[str]()
        self.tasks = dict[asyncio.Task[str], frozenset[str]]()
        self.searches = 0

    def begin(self, *types: str) -> "asyncio.Task[str]":
        task = asyncio.create_task(self._claim(types))
        self.tasks[task] = frozenset(types)
        return task

    async def _claim(self, types: Collection[str]) -> str:
        wake = self.waiters.subscribe()
        try:
            while True:
                wake.clear()
                self.searches += 1
                await asyncio.sleep(0)  # as a search that reads
                for type in types:
                    if self.available[type]:
                        self.available[type] -= 1
                        self.waiters.pass_turn(wake)
                        return type
                await self.waiters.sleep(wake, [Capacity(types, 1)])
        finally:
            self.waiters.unsubscribe(wake)

    def add(self, type: str, count: int = 1) -> None:
        self.available[type] += count
        self.waiters.wake_for({type})

    @property
    def waiting(self) -> list["asyncio.Task[str]"]:
        return [task for task in self.tasks if not task.done()]


async def test_a_job_wakes_one_of_many_that_wait_alike() -> None:
    claimers = Claimers()
    tasks = [claimers.begin("a") for _ in range(50)]
    await turns()
    claimers.searches = 0
    for number in range(3):
        claimers.add("a")
        await turns()
        assert [task.done() for task in tasks].count(True) == number + 1
    # Each job wakes one, and then the next, which finds nothing.
    assert claimers.searches <= 6
    for task in claimers.waiting:
        task.cancel()


async def test_jobs_that_come_together_wake_as_many() -> None:
    claimers = Claimers()
    tasks = [claimers.begin("a") for _ in range(5)]
    await turns()
    claimers.add("a", 4)
    await turns()
    assert [task.done() for task in tasks] == [True] * 4 + [False]
    tasks[-1].cancel()


async def test_each_kind_is_woken() -> None:
    claimers = Claimers()
    one, both, other = claimers.begin("a"), claimers.begin("b", "a"), claimers.begin("c")
    await turns()
    claimers.add("a", 2)
    await turns()
    assert (one.done(), both.done(), other.done()) == (True, True, False)
    other.cancel()


async def test_the_turn_of_one_that_leaves_passes_to_the_next() -> None:
    claimers = Claimers()
    first, second = claimers.begin("a"), claimers.begin("a")
    await turns()
    claimers.add("a")
    first.cancel()  # it was woken, and has not searched
    assert await second == "a"


@pytest.mark.parametrize("seed", range(40))
async def test_no_claimer_sleeps_beside_a_job(seed: int) -> None:
    """Claimers of several kinds come and leave, and jobs come, in a random order."""
    draw = random.Random(seed)
    claimers = Claimers()
    for _ in range(200):
        step = draw.random()
        if step < 0.4:
            claimers.begin(*draw.sample("abc", draw.randint(1, 3)))
        elif step < 0.7:
            claimers.add(draw.choice("abc"), draw.randint(1, 3))
        elif claimers.waiting:
            draw.choice(claimers.waiting).cancel()
        await turns(draw.randint(0, 3))
    await turns(100)
    left = {type for type, count in claimers.available.items() if count}
    for task in claimers.waiting:
        assert not left & claimers.tasks[task]
        task.cancel()
    await turns()
    assert not claimers.waiters.are_waiting


async def test_a_claimer_that_prefetches_alone_would_claim_no_job_at_once() -> None:
    """The reasons of a job say "busy" then: a process has to end its job first."""
    waiters = ClaimWaiters()
    for free in (0, 1):
        waiting = waiters.sleep(waiters.subscribe(), [Capacity({"csv"}, free, prefetch=1)])
        sleeping = asyncio.create_task(waiting)
        await turns(1)
        assert waiters.has_capacity_for("csv", child=False) is (free > 0)
        sleeping.cancel()

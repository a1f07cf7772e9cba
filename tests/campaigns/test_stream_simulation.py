"""Streams in random orders: one callback at a time, drawn by a seed, as is the network.

All above the socket is real, HTTP and its flow control included. Below is a transport that moves
a drawn number of bytes at drawn moments. A seed that fails can be run again by its number.
"""

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from eventjobs.http.streams import catch_up, frames, streams
from eventjobs.http.streams.job_filter import JobFilter
from tests.support.histories import job_id
from tests.support.simulated_loop import SimulatedLoop
from tests.support.stream_watcher import Watcher
from tests.support.stream_world import World

#: Seconds after which a message that has not arrived is lost.
LONG_S = 600.0


FILTERS = [
    JobFilter(),
    JobFilter(ids=frozenset({job_id(0)})),
    JobFilter(ids=frozenset({job_id(1)})),
    JobFilter(ids=frozenset({job_id(0), job_id(1), job_id(2)})),
    JobFilter(type=frozenset({"a"})),
    JobFilter(tag="t"),
    JobFilter(ids=frozenset({job_id(1), job_id(2)}), type=frozenset({"a"})),
]


COMPLETED_OR_FAILED = JobFilter(status=frozenset({"completed", "failed"}))


def simulate(seed: int, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    rng = random.Random(seed)
    random.seed(seed)
    loop = SimulatedLoop(rng)

    async def run() -> None:
        world = World(rng)
        views = asyncio.create_task(world.views.run())
        try:
            async with asyncio.timeout(LONG_S):
                await scenario(world)
                await world.streams.close()
        finally:
            views.cancel()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            _, late = await asyncio.wait(left, timeout=1)
            for each in late:
                each.cancel()
            if late:
                await asyncio.wait(late)
        assert not late, "a task is left"
        assert not world.errors

    try:
        loop.run_until_complete(run())
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    finally:
        loop.close()


async def watch_all(world: World, selections: list[JobFilter], *, snapshots: bool) -> None:
    rng = world.rng
    watchers = [
        Watcher(world, rng.choice(selections), snapshots=snapshots)
        for _ in range(rng.randint(2, 5))
    ]
    try:
        async with asyncio.timeout(LONG_S / 2), asyncio.TaskGroup() as group:
            for each in watchers:
                group.create_task(each.run())
            await asyncio.gather(world.write(25), world.write(25))
            await world.submit_all()
            await world.views.wait_for_position(world.log.head)
            world.is_written = True
    except TimeoutError as error:
        raise AssertionError([(each.job_filter, each.missing()) for each in watchers]) from error


async def watch_events(world: World) -> None:
    await watch_all(world, FILTERS, snapshots=False)


async def watch_snapshots(world: World) -> None:
    await watch_all(world, [*FILTERS, COMPLETED_OR_FAILED], snapshots=True)


async def close_while_watching(world: World) -> None:
    """The service stops while every watcher reads."""
    rng, loop = world.rng, asyncio.get_running_loop()
    world.slowest_s = 0.1
    await world.submit_all()
    watchers = [Watcher(world, rng.choice(FILTERS), snapshots=rng.random() < 0.5) for _ in range(4)]
    async with asyncio.timeout(LONG_S / 2), asyncio.TaskGroup() as group:
        for each in watchers:
            group.create_task(each.run())
        writing = group.create_task(world.write(50))
        await asyncio.sleep(rng.random() * 0.7)
        world.is_closing = True
        began_s = loop.time()
        await world.streams.close()
        assert loop.time() - began_s < streams.GOODBYE_S, "a stream did not end in time"
        assert len(world.streams) == 0
        writing.cancel()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "PAGE_MAX", 4)
    monkeypatch.setattr(catch_up, "WRITE_BYTES", 2000)
    monkeypatch.setattr(frames, "WRITE_BYTES", 2000)


#: For a longer look: SIMULATIONS=10000 pytest tests/campaigns/test_stream_simulation.py
SEEDS = range(int(os.environ.get("SIMULATIONS", "150")))


def test_facts_are_neither_missed_nor_repeated_whatever_happens_first() -> None:
    for seed in SEEDS:
        simulate(seed, watch_events)


def test_the_newest_state_of_each_job_arrives_whatever_happens_first() -> None:
    for seed in SEEDS:
        simulate(seed, watch_snapshots)


def test_every_stream_is_told_goodbye_whatever_it_is_doing() -> None:
    for seed in SEEDS:
        simulate(seed, close_while_watching)

"""The ready queue offers what may start, in order, against a sorted list in plain Python."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.attempts.ready_feed import ReadyFeed
from eventjobs.attempts.ready_queue import ReadyQueue
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import Views
from eventjobs.projections.queue import PRIORITY_MAX, WaitingJob
from tests.support.clock import SECOND, FakeClock
from tests.support.histories import START_US, job_id
from tests.support.memory_log import MemoryLog
from tests.support.ready_world import TYPES, WINDOW, World, in_memory, world
from tests.support.view_model import submit
from tests.support.views import quick_folder, running

MINUTE = 60
QUEUES = ["default", "q"]
KEYS = ["k", "l"]

specs = st.builds(
    lambda type, queue, key, priority, late_s, after, any_end, parent: JobSpec(
        type,
        queue=queue,
        concurrency_key=key,
        priority=priority,
        run_at_us=None if late_s is None else START_US + late_s * SECOND,
        after=tuple(map(job_id, after)),
        after_failure="run" if any_end else None,
        parent=None if parent is None else job_id(parent),
        max_attempts=3,
    ),
    st.sampled_from(TYPES),
    st.sampled_from([None, None, "q"]),
    st.sampled_from([None, None, *KEYS]),
    st.integers(-2, 2),
    st.none() | st.sampled_from([0, 30, 60, 90]),
    st.just([]) | st.lists(st.integers(0, 9), max_size=2, unique=True),
    st.booleans(),
    st.none() | st.integers(0, 9),
)
types = st.sampled_from([["csv"], ["render"], TYPES, ["render", "csv", "mail"]])
places = st.sampled_from([("type", TYPES[0]), *(("queue", each) for each in QUEUES)])
limits = st.sampled_from(
    [("type", TYPES[1]), ("queue", "q"), *(("key", each) for each in KEYS), ("csv", "k")]
)
changes = st.sampled_from(
    ["start", "start it", "fail", "complete", "release", "cancel", "stopped", "retry", "expire"]
)
ACTIONS: dict[str, st.SearchStrategy[Any]] = {
    "submit": specs,
    "change": changes,
    "pass": st.none(),
    "pause": places,
    "resume": places,
    "fill": limits,
    "free": limits,
    "take": types,
    "take_children": types,
    "put_back": st.none(),
    "take_meanwhile": types,
    "restart": st.none(),
}
OFTEN = ["submit"] * 4 + ["change"] * 3 + ["take"] * 2


def actions(names: list[str]) -> st.SearchStrategy[tuple[str, int, Any]]:
    one_of = [st.tuples(st.just(name), st.integers(0, 40), ACTIONS[name]) for name in names]
    return st.one_of(*one_of)


@settings(max_examples=80)
@given(st.lists(specs, max_size=30), st.lists(actions([*OFTEN, *ACTIONS]), min_size=1, max_size=50))
async def test_the_same_jobs_come_in_the_same_order_as_from_a_sorted_list(
    backlog: list[JobSpec], history: list[tuple[str, int, Any]]
) -> None:
    async with world(FakeClock()) as each:
        for spec in backlog:
            await each.do_submit(0, spec)
        for name, number, argument in history:
            await getattr(each, f"do_{name}")(number, argument)
        await each.do_take(9, TYPES)
        each.full.clear()
        for kind, names in (("key", KEYS), ("queue", QUEUES), ("type", TYPES)):
            for name in names:
                each.queue.free(kind, name)
        while each.reference(TYPES, 9):
            await each.do_take(8, TYPES)


# --- order


async def due_of(log: MemoryLog, clock: FakeClock) -> list[str]:
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            await views.wait_for_position(log.head)
            after_restart = World(log, views, clock)
            await after_restart.start()
            return await after_restart.take(["csv"], 99)


async def test_a_higher_priority_goes_first_and_among_equals_the_older(clock: FakeClock) -> None:
    log = MemoryLog(clock)
    for number, priority in enumerate([0, 5, 0, 5, -5]):
        await submit(log, number, priority=priority)
    assert await due_of(log, clock) == [job_id(number) for number in (1, 3, 0, 2, 4)]


async def test_a_job_that_has_waited_long_goes_before_a_new_one_of_higher_priority(
    clock: FakeClock,
) -> None:
    """One step of priority is worth a minute: nothing starves."""
    log = MemoryLog(clock)
    await submit(log, 0, priority=0)
    await clock.advance(8 * MINUTE)
    await submit(log, 1, priority=9)
    assert await due_of(log, clock) == [job_id(1), job_id(0)]
    await clock.advance(2 * MINUTE)
    await submit(log, 2, priority=9)
    assert await due_of(log, clock) == [job_id(1), job_id(0), job_id(2)]


async def test_the_highest_priority_there_is_does_not_make_a_job_due_early(
    clock: FakeClock,
) -> None:
    log = MemoryLog(clock)
    late_us = clock.now_us() + 60 * SECOND
    await submit(log, 0, priority=PRIORITY_MAX, run_at_us=late_us)
    await submit(log, 1, priority=-PRIORITY_MAX)
    assert await due_of(log, clock) == [job_id(1)]
    await clock.advance(MINUTE)
    assert await due_of(log, clock) == [job_id(0), job_id(1)]


async def test_many_jobs_that_become_due_at_once_come_in_order(clock: FakeClock) -> None:
    """Also the best of them, which is not due first."""
    log = MemoryLog(clock)
    for number in range(20):
        late_us = clock.now_us() + (1 + number) * SECOND
        await submit(log, number, priority=number, run_at_us=late_us)
    clock.freeze(60)
    assert await due_of(log, clock) == [job_id(number) for number in reversed(range(20))]


async def test_the_queue_knows_when_the_first_of_the_later_jobs_is_due(clock: FakeClock) -> None:
    async with world(clock) as each:
        for late_s in (90, 60):
            await each.do_submit(0, JobSpec("csv", run_at_us=START_US + late_s * SECOND))
        await each.follow()
        assert await each.take(["csv"], 9) == []
        assert each.queue.next_due_us() == START_US + 60 * SECOND
        clock.freeze(60)
        assert await each.take(["csv"], 9) == [job_id(1)]
        assert each.queue.next_due_us() == START_US + 90 * SECOND
        clock.freeze(30)
        assert await each.take(["csv"], 9) == [job_id(0)]
        assert each.queue.next_due_us() is None


async def test_more_children_of_an_unknown_parent_than_are_in_memory_all_come(
    clock: FakeClock,
) -> None:
    count = 3 * WINDOW
    async with world(clock) as each:
        for _ in range(count):
            await each.do_submit(0, JobSpec("csv", parent=job_id(99)))
        await each.follow()
        children = await each.take(["csv"], 99, children=True)
        assert children == [job_id(number) for number in range(count)]


class LostViews:
    """Views whose file was lost: they read nothing until they are back where they were."""

    def __init__(self, views: Views) -> None:
        self.present_position = views.present_position
        self._views = views
        self._is_lost = True

    async def wait_for_position(self, position: int) -> None:
        await self._views.wait_for_position(position)
        self._is_lost = position < self.present_position

    async def query(self, query: str, *parameters: Any) -> list[Any]:
        return [] if self._is_lost else await self._views.query(query, *parameters)


async def test_a_job_is_found_though_the_file_of_the_views_is_lost_at_the_start(
    clock: FakeClock,
) -> None:
    async with world(clock) as each:
        await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        each.queue = ReadyQueue(WINDOW)
        each.feed = ReadyFeed(each.queue, cast(Views, LostViews(each.views)))
        await each.feed.load()
        assert await each.take(["csv"], 9) == [job_id(0)]


async def test_a_deferred_job_waits_until_it_is_admitted(clock: FakeClock) -> None:
    async with world(clock) as each:
        for _ in range(2):
            await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        assert await each.take(["csv"], 1) == [job_id(0)]
        each.queue.defer(job_id(0))
        each.queue.admit_deferred({job_id(0)})
        assert await each.take(["csv"], 9) == [job_id(1)]
        each.queue.admit_deferred(set())
        assert await each.take(["csv"], 9) == [job_id(0)]


# --- a backlog

BACKLOGS: dict[str, dict[str, Any]] = {
    "a full key": {"concurrency_key": "k"},
    "a full queue": {"queue": "q"},
    "a full type": {"type": "render"},
    "a paused queue": {"queue": "paused"},
    "a paused type": {"type": "paused"},
    "a time to come": {"run_at_us": START_US + 3600 * SECOND},
    "another job": {"after": (job_id(10**6),)},
    "nothing": {},
}


@pytest.mark.parametrize("reason", BACKLOGS)
async def test_a_backlog_takes_bounded_memory_and_costs_a_search_nothing(
    clock: FakeClock, reason: str
) -> None:
    offers = []
    for size in (40, 200):
        async with world(clock) as each:
            each.full = {("key", "k"), ("queue", "q"), ("type", "render")}
            for place in (("type", "paused"), ("queue", "paused")):
                await each.do_pause(0, place)
            for _ in range(size):
                await each.do_submit(0, JobSpec(**{"type": "csv", **BACKLOGS[reason]}))
            await each.do_submit(0, JobSpec("mail"))
            await each.follow()
            wanted = ["csv", "render", "paused", "mail"]
            for _ in range(2):
                each.offered = 0
                [first] = await each.take(wanted, 1)
                assert first == (job_id(0) if reason == "nothing" else job_id(size))
                each.queue.put_back(first)
            offers.append(each.offered)
            assert in_memory(each.queue) <= 3 * WINDOW + 1
    assert offers[0] == offers[1]
    if reason == "a full key":
        assert offers[0] == 1, "it is not asked again before it is free"


async def test_many_lines_share_the_memory(clock: FakeClock) -> None:
    lines = 40
    async with world(clock) as each:
        for number in range(5 * lines):
            await each.do_submit(0, JobSpec("csv", queue=f"q{number % lines}"))
        await each.follow()
        assert in_memory(each.queue) <= 2 * lines
        assert await each.take(["csv"], 999) == [job_id(number) for number in range(5 * lines)]
        assert await each.take(["csv"], 1) == []
        for _ in range(2 * WINDOW):
            await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        assert in_memory(each.queue) == 2 * WINDOW, "there is one line again"


async def test_a_taken_job_is_not_read_again_from_the_table(clock: FakeClock) -> None:
    async with world(clock) as each:
        await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        assert await each.take(["csv"], 1) == [job_id(0)]
        for _ in range(3 * WINDOW):  # so that it would be behind the horizon
            await each.do_submit(0, JobSpec("csv", priority=5))
        await each.follow()
        assert await each.take(["csv"], 99) == [job_id(1 + n) for n in range(3 * WINDOW)]
        each.queue.put_back(job_id(0))
        assert await each.take(["csv"], 99) == [job_id(0)]


async def test_what_changes_during_a_read_of_the_table_is_not_lost(clock: FakeClock) -> None:
    """Neither a job that begins to wait, nor the end of the wait of one that was read."""
    async with world(clock) as each:
        for _ in range(9):
            await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        assert len(await each.take(["csv"], 6)) == 6
        line = each.queue._lines["csv"]["default"].window
        reading = line.begin_read()
        page = [WaitingJob.of(each.jobs[job_id(number)]) for number in (6, 7, 8)]
        await each.do_change(7, "cancel")
        await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        line.end_read(reading, page, 4, set())
        assert await each.take(["csv"], 9) == [job_id(6), job_id(8), job_id(9)]


async def test_a_job_that_was_due_is_read_again_after_the_clock_was_set_back(
    clock: FakeClock,
) -> None:
    """It is in the window of later jobs no more. The claimer says whether it is due."""
    async with world(clock) as each:
        await each.do_submit(0, JobSpec("csv", priority=-5, run_at_us=START_US + 60 * SECOND))
        await each.follow()
        clock.freeze(60)
        assert await each.take(["csv"], 9) == [job_id(0)]
        each.queue.put_back(job_id(0))
        for _ in range(3 * WINDOW):  # so that it is left to the table
            await each.do_submit(0, JobSpec("csv", priority=5))
        await each.follow()
        clock.jump_wall(-3600)
        assert await each.take(["csv"], 99) == [*(job_id(1 + n) for n in range(9)), job_id(0)]


async def test_claimers_that_read_at_once_read_once(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(clock) as each:
        for _ in range(9):
            await each.do_submit(0, JobSpec("csv"))
        await each.follow()
        await each.start()
        queries = 0
        query: Callable[..., Any] = each.views.query

        async def count(*given: Any) -> Any:
            nonlocal queries
            queries += 1
            return await query(*given)

        await each.take(["other"], 1)  # reads what is due later
        monkeypatch.setattr(each.views, "query", count)
        first, second = await asyncio.gather(each.take(["csv"], 2), each.take(["csv"], 1))
        assert sorted([*first, *second]) == [job_id(number) for number in range(3)]
        assert queries == 1


# --- what changes while a job is kept aside or read


async def test_a_child_that_its_key_has_held_comes_when_the_key_is_free(clock: FakeClock) -> None:
    async with world(clock) as each:
        await each.do_submit(0, JobSpec("render"))
        await each.do_submit(0, JobSpec("csv", parent=job_id(0), concurrency_key="k"))
        await each.follow()
        each.full = {("key", "k")}
        assert await each.take(["csv"], 9, children=True) == []
        await each.do_free(0, ("key", "k"))
        assert await each.take(["csv"], 9, children=True) == [job_id(1)]


async def test_a_job_that_became_due_and_is_put_back_may_start_at_once(clock: FakeClock) -> None:
    """It does not wait for its due time a second time."""
    async with world(clock) as each:
        await each.do_submit(0, JobSpec("csv", run_at_us=clock.now_us() + 60 * SECOND))
        await each.follow()
        clock.freeze(60)
        assert await each.take(["csv"], 1) == [job_id(0)]
        each.queue.take_available()
        each.queue.put_back(job_id(0))
        assert each.queue.take_available() == {"csv"}


def test_no_due_time_is_awaited_while_the_next_ones_are_read() -> None:
    """The read ends by itself; a timer that is due at once would fire until then."""
    queue = ReadyQueue()
    assert queue.next_due_us() is not None
    reading = queue.later.begin_read()
    assert queue.next_due_us() is None
    queue.later.end_read(reading, None, 1, set())
    assert queue.next_due_us() is not None

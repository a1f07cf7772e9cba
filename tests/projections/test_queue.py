"""What is due, against a model in plain Python; and what a backlog costs."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventjobs.domain.events import Paused
from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import queue
from eventjobs.projections.queue import FullLimits
from eventjobs.projections.store import Store
from tests.support.clock import SECOND, FakeClock
from tests.support.histories import START_US, histories, job_id, play, record
from tests.support.memory_log import MemoryLog
from tests.support.view_model import count_steps, jobs_of, some_types, submit, unmet
from tests.support.views import quick_folder, running, views_of

MINUTE = 60


def rank(job: Job) -> int:
    return job.due_us - job.spec.priority * queue.AGEING_US


some_held = st.builds(
    FullLimits,
    st.lists(st.sampled_from(["default", "q"]), max_size=1),
    st.lists(st.sampled_from(["k", "l"]), max_size=1),
    st.lists(st.sampled_from([("csv", "k"), ("mail", "l")]), max_size=1),
)


@settings(max_examples=60)
@given(
    histories(jobs_max=9, steps_max=60),
    st.integers(-100, 1000),
    some_types,
    st.lists(st.integers(0, 8).map(job_id), max_size=3),
    some_held,
    st.integers(1, 9),
    st.integers(1, 3),
)
@example(
    play([JobSpec("csv")], [(0, "submit", 0, 0)]), 0, ["csv", "csv"], [], queue.NO_FULL_LIMITS, 2, 1
)
async def test_what_is_due_comes_by_priority_and_age(
    history: list[Recorded],
    seconds: int,
    types: list[str],
    taken: list[str],
    held: FullLimits,
    limit: int,
    key_max: int,
) -> None:
    """And of jobs with one key no more than may start at once, if it is the first of its lane."""
    now_us = START_US + seconds * SECOND
    jobs = jobs_of(history)
    due = []
    lanes = Counter[tuple[str, str, str]]()
    for job in sorted(jobs, key=lambda job: (rank(job), job.born)):
        if not job.waits or unmet(job, jobs) or not may_start(job, types, held):
            continue
        key = job.spec.concurrency_key
        if key is not None and job.due_us <= history[-1].at_us:
            lanes[job.spec.type, job.queue, key] += 1
            if lanes[job.spec.type, job.queue, key] > key_max:
                continue
        if job.due_us <= now_us and job.job_id not in taken:
            due.append((job.job_id, job.spec.type, job.queue, key))
    async with views_of(history) as views:
        result = await views.due(now_us, types, taken, limit, held=held, key_max=key_max)
        assert result == due[:limit]


def may_start(job: Job, types: list[str], held: FullLimits) -> bool:
    type, key = job.spec.type, job.spec.concurrency_key
    return (
        type in types
        and job.queue not in held.queues
        and key not in held.keys
        and (type, key) not in held.keys_of_types
    )


@settings(max_examples=40)
@given(histories(jobs_max=9, steps_max=60), st.integers(-100, 1000), some_types, st.integers(1, 9))
async def test_of_children_those_are_due_first_whose_parent_is_the_newest(
    history: list[Recorded], seconds: int, types: list[str], limit: int
) -> None:
    jobs = jobs_of(history)
    now_us = START_US + seconds * SECOND
    born = {job.job_id: job.born for job in jobs}

    def place(job: Job) -> tuple[int, int]:
        parent = born.get(job.spec.parent or "", 0)
        return (-parent if parent < job.born else 0, job.born)  # older than it, as parents are

    due = [
        job
        for job in jobs
        if job.status == Status.QUEUED and job.due_us <= now_us and job.spec.type in types
        if job.spec.parent is not None and not unmet(job, jobs)
    ]
    expected = [job.job_id for job in sorted(due, key=place)]
    async with views_of(history) as views:
        result = await views.due(now_us, types, [], limit, children_only=True)
        assert [each.job_id for each in result] == expected[:limit]
        taken = expected[:limit]
        more = await views.due(now_us, types, taken, 99, children_only=True)
        assert [each.job_id for each in more] == expected[limit:]


@settings(max_examples=30)
@given(histories(jobs_max=9, steps_max=60))
async def test_the_next_job_to_be_due_is_known(history: list[Recorded]) -> None:
    now_us = history[-1].at_us
    later = [
        job.due_us
        for job in jobs_of(history)
        if job.status == Status.QUEUED and job.due_us > now_us
    ]
    async with views_of(history) as views:
        assert await views.next_due_us(now_us) == min(later, default=None)


async def due_of(log: MemoryLog, clock: FakeClock) -> list[str]:
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            await views.wait_for_position(log.head)
            return [each.job_id for each in await views.due(clock.now_us(), ["csv"], [], 99)]


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
    await submit(log, 0, priority=queue.PRIORITY_MAX, run_at_us=late_us)
    await submit(log, 1, priority=-queue.PRIORITY_MAX)
    assert await due_of(log, clock) == [job_id(1)]
    await clock.advance(MINUTE)
    assert await due_of(log, clock) == [job_id(0), job_id(1)]


async def test_the_newest_time_stays_when_the_clock_is_set_back(clock: FakeClock) -> None:
    """Whether the events of before and after the step are of one batch or not."""
    log, newest_us = MemoryLog(clock), clock.now_us()
    for number in range(2):
        await submit(log, number)
        clock.jump_wall(-60 * MINUTE)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            for number in range(2, 4):
                await views.wait_for_position(log.head)
                assert await views.newest_us() == newest_us
                await submit(log, number)


# --- a backlog


BACKLOGS: dict[str, tuple[dict[str, Any], FullLimits]] = {
    "a held key": ({"concurrency_key": "k"}, FullLimits(keys=["k"])),
    "a key that is held for their type": (
        {"concurrency_key": "k"},
        FullLimits(keys_of_types=[("csv", "k")]),
    ),
    "one of them with the same key": ({"concurrency_key": "k"}, queue.NO_FULL_LIMITS),
    "a full queue": ({"queue": "q"}, FullLimits(queues=["q"])),
    "a paused queue": ({"queue": "paused"}, queue.NO_FULL_LIMITS),
    "a paused type": ({"type": "paused"}, queue.NO_FULL_LIMITS),
    "nobody who has room for their type": ({"type": "mail"}, queue.NO_FULL_LIMITS),
    "a time to come": ({"run_at_us": START_US + 3600 * SECOND}, queue.NO_FULL_LIMITS),
    "another job": ({"after": (job_id(10**6),)}, queue.NO_FULL_LIMITS),
    "nothing": ({}, queue.NO_FULL_LIMITS),
}


async def backlog(path: Path, size: int, fields: dict[str, Any]) -> list[Recorded]:
    """Views of *size* jobs that wait, and behind them one that may start."""
    specs = [*[JobSpec(**{"type": "csv", **fields}) for _ in range(size)], JobSpec("render")]
    log = play(specs, [(number, "submit", 0, 0) for number in range(size + 1)])
    for kind in ("type", "queue"):
        pause = Paused(kind, "paused", None)
        log.append(record(pause, job_id(10**7 + len(log)), None, len(log) + 1, START_US))
    store = await Store.open(path, "0" * 32, 10**9)
    await store.apply(log)
    await store.close()
    return log


@pytest.mark.parametrize("why", BACKLOGS)
async def test_a_look_costs_the_same_however_many_jobs_wait_for_(why: str) -> None:
    fields, held = BACKLOGS[why]
    with quick_folder() as folder:
        costs = []
        for size in (20, 500):
            await backlog(path := folder / f"{size}.db", size, fields)
            bound = queue.due_parameters(
                START_US + SECOND, ["csv", "render", "paused"], [], held, 2, 1
            )
            result, steps = count_steps(path, queue.SELECT_DUE, bound)
            expected = {
                "nothing": [job_id(0), job_id(1)],
                "one of them with the same key": [job_id(0), job_id(size)],
            }
            assert [row[0] for row in result] == expected.get(why, [job_id(size)])
            costs.append(steps)
    assert costs[0] == costs[1], "SQLite went over what waits"


@pytest.mark.parametrize(
    "why",
    [why for why in BACKLOGS if why not in ("a time to come", "one of them with the same key")],
)
async def test_a_job_whose_time_has_come_since_the_newest_event_still_waits_for_(why: str) -> None:
    fields, held = BACKLOGS[why]
    with quick_folder() as folder:
        await backlog(path := folder / "views.db", 1, {**fields, "run_at_us": START_US + 1})
        bound = queue.due_parameters(START_US + SECOND, ["csv", "render", "paused"], [], held, 2, 1)
        result, _ = count_steps(path, queue.SELECT_DUE, bound)
    due = [job_id(1), job_id(0)] if why == "nothing" else [job_id(1)]
    assert [row[0] for row in result] == due

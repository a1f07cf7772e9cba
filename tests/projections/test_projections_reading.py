"""What the views answer, against a model in plain Python; and that no answer looks at every job."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventjobs.domain.events import JobSubmitted, Paused
from eventjobs.domain.job import Job, Status, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import Views, queue, status
from eventjobs.projections import dependencies as ties
from eventjobs.projections.queue import FullLimits
from eventjobs.projections.store import Store
from tests.support.clock import SECOND, FakeClock
from tests.support.histories import START_US, histories, job_id, play, record
from tests.support.memory_log import MemoryLog
from tests.support.views import quick_folder, running, views_of

MINUTE = 60


def jobs_of(history: list[Recorded]) -> list[Job]:
    """The jobs there are, oldest first."""
    jobs: dict[str, Job] = {}
    for each in history:
        jobs[each.job_id] = evolve(jobs.get(each.job_id), each)
    return sorted(jobs.values(), key=lambda job: job.born)


async def page(
    views: Views,
    order: str = "newest",
    cursor: int | None = None,
    limit: int = 99,
    **filters: Any,
) -> list[Job]:
    result = await views.jobs(filters, order=order, cursor=cursor, limit=limit)
    return [each.job for each in result]


# --- listing

some_statuses = st.lists(st.sampled_from([str(each) for each in Status]), min_size=1, max_size=3)
some_types = st.lists(st.sampled_from(["csv", "render", "mail", "other"]), min_size=1, max_size=2)
times = st.integers(-60, 900).map(lambda seconds: START_US + seconds * SECOND)
filters = st.fixed_dictionaries(
    {},
    optional={
        "status": some_statuses,
        "type": some_types,
        "owner": st.sampled_from(["ann", "bob", "nobody"]),
        "tag": st.sampled_from(["a", "b", "ü", 'q"', "none"]),
        "parent": st.integers(0, 5).map(job_id),
        "since_us": times,
        "until_us": times,
        "job_id": st.lists(st.integers(0, 9).map(job_id), min_size=1, max_size=4),
    },
)


def fits(job: Job, wanted: dict[str, Any]) -> bool:
    return (
        job.expired_us is None
        and job.status in wanted.get("status", [job.status])
        and job.spec.type in wanted.get("type", [job.spec.type])
        and job.spec.owner == wanted.get("owner", job.spec.owner)
        and job.spec.parent == wanted.get("parent", job.spec.parent)
        and ("tag" not in wanted or wanted["tag"] in job.spec.tags)
        and job.created_us >= wanted.get("since_us", 0)
        and job.created_us < wanted.get("until_us", 2**62)
        and job.job_id in wanted.get("job_id", [job.job_id])
    )


@settings(max_examples=30)
@given(histories(jobs_max=9, steps_max=80), st.lists(filters, min_size=1, max_size=12))
async def test_a_page_lists_what_fits_in_order(
    history: list[Recorded], wanted: list[dict[str, Any]]
) -> None:
    jobs = jobs_of(history)
    async with views_of(history) as views:
        for each in wanted:
            fitting = [job for job in jobs if fits(job, each)]
            assert await page(views, "oldest", **each) == fitting
            assert await page(views, "newest", **each) == fitting[::-1]
            assert await page(views, "oldest", limit=2, **each) == fitting[:2]
            for cursor in (fitting or jobs)[:3]:
                after = [job for job in fitting if job.born > cursor.born]
                assert await page(views, "oldest", cursor.born, 2, **each) == after[:2]
                before = [job for job in fitting if job.born < cursor.born][::-1]
                assert await page(views, "newest", cursor.born, 2, **each) == before[:2]


@settings(max_examples=30)
@given(histories(jobs_max=9, steps_max=80))
async def test_counts_are_what_counting_gives(history: list[Recorded]) -> None:
    count_steps = Counter(
        (job.spec.type, str(job.status)) for job in jobs_of(history) if job.expired_us is None
    )
    async with views_of(history) as views:
        result = await views.counts()
        assert {
            (type, status): jobs
            for type, statuses in result.items()
            for status, jobs in statuses.items()
        } == count_steps
        assert sorted(await views.running()) == sorted(
            job.job_id for job in jobs_of(history) if job.status == Status.RUNNING
        )


async def submit(log: MemoryLog, number: int, **fields: Any) -> str:
    spec = JobSpec(**{"type": "csv", "max_attempts": 3, **fields})
    await log.append(job_id(number), 0, JobSubmitted(spec), actor="ann")
    return job_id(number)


async def test_pages_are_stable_while_jobs_arrive(clock: FakeClock) -> None:
    """Nothing is listed twice and nothing left out of what was there at the first page."""
    log = MemoryLog(clock)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            for number in range(30):
                await submit(log, number)
            await views.wait_for_position(log.head)
            for order in ("newest", "oldest"):
                there = await page(views, order)
                seen = await page(views, order, None, 7)
                while len(seen) < len(there):
                    await submit(log, 100 + log.head)
                    await views.wait_for_position(log.head)
                    seen += await page(views, order, seen[-1].born, 7)
                assert seen[: len(there)] == there


async def test_a_listing_that_takes_long_keeps_nobody_waiting(clock: FakeClock) -> None:
    """A claim used to wait until a list over a million jobs was read."""
    history = play([JobSpec("csv")], [(0, "submit", 0, 0)])
    async with views_of(history, clock) as views:
        go = threading.Event()
        async with views._current.reading() as store:
            slow = asyncio.create_task(store._list_reader._execute(go.wait))  # type: ignore[no-untyped-call]
        listing = asyncio.create_task(page(views))
        due = await views.due(clock.now_us(), ["csv"], [], 9)
        assert [each.job_id for each in due] == [job_id(0)]
        assert await views.counts() == {"csv": {"queued": 1}}
        assert not listing.done()
        go.set()
        assert [job.job_id for job in await listing] == [job_id(0)]
        await slow


# --- the queue


def unmet(job: Job, jobs: list[Job]) -> list[tuple[str, str | None]]:
    """The jobs that *job* waits for, and how they are."""
    there = {each.job_id: each for each in jobs}
    waiting = []
    for other_id in job.spec.after if job.status == Status.QUEUED else ():
        other = there.get(other_id)
        any_end = job.spec.after_failure == "run" and other is not None and other.finished
        if not any_end and (other is None or other.status != Status.COMPLETED):
            waiting.append((other_id, None if other is None else str(other.status)))
    return sorted(waiting)


def doomed_by(job: Job, jobs: list[Job]) -> list[tuple[str, str, str, str]]:
    """Why *job* is to be cancelled, if it is."""
    dooms = []
    for other in jobs:
        failed = other.finished and other.status != Status.COMPLETED
        asked = other.status == Status.CANCELLED or (
            other.cancel_requested_us is not None and not other.finished
        )
        outcome = str(other.status) if other.finished else "stopping"
        spec, why = job.spec, (other.job_id, outcome)
        if job.status == Status.QUEUED and other.job_id in spec.after and failed:
            dooms += [(job.job_id, "after", *why)] if spec.after_failure is None else []
        if other.job_id == spec.parent and asked and not job.finished:
            dooms += [(job.job_id, "child", *why)] if job.cancel_requested_us is None else []
    return dooms


@settings(max_examples=60)
@given(histories(jobs_max=6, steps_max=80))
async def test_what_waits_for_others_and_what_waits_in_vain_is_known(
    history: list[Recorded],
) -> None:
    jobs = jobs_of(history)
    async with views_of(history) as views:
        for job in jobs:
            assert sorted(await views.unmet_dependencies(job.job_id)) == unmet(job, jobs)
        dooms = [doom for job in jobs for doom in doomed_by(job, jobs)]
        assert sorted(await views.jobs_to_cancel(99)) == sorted(dooms)


@settings(max_examples=30)
@given(histories(jobs_max=9, steps_max=80), st.integers(-10, 900), st.integers(-10, 900))
async def test_what_expires_is_what_ended_long_enough_ago(
    history: list[Recorded], now_s: int, ended_s: int
) -> None:
    now_us, ended_us = START_US + now_s * SECOND, START_US + ended_s * SECOND
    expiring = []
    for job in jobs_of(history):
        if job.finished_us is not None and job.expired_us is None:
            own = job.spec.ttl_s
            at_us = job.finished_us + (0 if own is None else int(own * SECOND))
            if at_us <= (ended_us if own is None else now_us):
                expiring.append(job.job_id)
    async with views_of(history) as views:
        assert sorted(await views.expiring(now_us, ended_us, 99)) == sorted(expiring)
        assert len(await views.expiring(now_us, ended_us, 1)) <= 2, "one of each kind"


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
        if job.status != Status.QUEUED or unmet(job, jobs) or not may_start(job, types, held):
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


def count_steps(path: Path, sql: str, bound: dict[str, Any]) -> tuple[Any, int]:
    """What *sql* answers, and how many steps of SQLite's machine that took."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(step, 1)
        [[result]] = connection.execute(sql, bound).fetchall()
    return orjson.loads(result), steps


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


# --- no answer looks at every job


LISTINGS: list[tuple[dict[str, Any], str]] = [
    ({"status": ["failed"]}, "jobs_status (status=? AND born"),
    ({"status": ["failed"], "type": ["csv"]}, "=? AND born"),
    ({"type": ["csv"]}, "jobs_type (type=? AND born"),
    ({"owner": "ann"}, "jobs_owner (owner=? AND born"),
    ({"parent": job_id(0)}, "jobs_parent (parent=? AND born"),
    ({"tag": "a"}, "tags USING PRIMARY KEY (tag=?)"),
    ({"since_us": 0, "until_us": 2**62}, "jobs_listed (born"),
    ({"queue": "default"}, "jobs_listed (born"),
    ({}, "jobs_listed (born"),
]
BOUND = {
    "cursor": 10**9,
    "limit": 50,
    "now_us": START_US,
    "types": '["csv"]',
    "taken": "[]",
    "ended_us": START_US,
    "after_us": -1,
    "ended_after_us": -1,
    "keys": "[]",
    "queues": "[]",
    "keys_of_types": "[]",
    "key_max": 1,
    "1": "[]",
    "2": "[]",
}
READS = {
    "due": queue.SELECT_DUE,
    "due children": queue.SELECT_DUE_CHILDREN,
    "next due": queue.SELECT_NEXT_DUE_TIME,
    "jobs": status.SELECT_JOBS,
    "running": status.SELECT_RUNNING,
    "expiring": status.SELECT_EXPIRING,
    "newest tagged": status.SELECT_NEWEST_TAGGED,
    "unmet": ties.SELECT_UNMET,
    "move": ties.MARK_CHANGED,
    "hold": ties.UPDATE_WAITS,
    "doom": ties.MARK_TO_CANCEL,
    "doomed": ties.SELECT_TO_CANCEL,
}


async def plan(sql: str, bound: dict[str, Any]) -> list[str]:
    """How SQLite would run it on a file with many jobs."""
    steps = [(n % 50, c, 3, 5) for c in ("submit", "start", "fail", "cancel") for n in range(50)]
    history = play([JobSpec("csv", owner="ann", tags=("a",))] * 50, steps)
    with quick_folder() as folder:
        store = await Store.open(folder / "views.db", "0" * 32, 10**9)
        await store.apply(history)
        await store.close()
        with closing(sqlite3.connect(folder / "views.db")) as connection:
            result = connection.execute("EXPLAIN QUERY PLAN " + sql, BOUND | bound).fetchall()
    return [row[3] for row in result]


def looks_at_everything(steps: Iterable[str]) -> list[str]:
    ours = ("jobs", "specs", "tags", "queue", "progress", "ties")
    return [
        each
        for each in steps
        if each.startswith(tuple(f"SCAN {name}" for name in ours)) or "TEMP B-TREE" in each
    ]


@pytest.mark.parametrize("name", READS)
async def test_no_read_looks_at_every_job(name: str) -> None:
    steps = await plan(READS[name], {})
    assert not looks_at_everything(steps), steps


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(("filters", "index"), LISTINGS, ids=[str(each) for each, _ in LISTINGS])
async def test_a_usual_listing_neither_looks_at_every_job_nor_sorts(
    filters: dict[str, Any], index: str, order: str
) -> None:
    steps = await plan(*status.list_statement(filters, order))
    assert any(index in each for each in steps), steps
    assert not looks_at_everything(steps), steps


@pytest.mark.parametrize("filters", [{}, {"type": ["csv"]}, {"owner": "ann"}, {"since_us": 0}])
async def test_a_listing_costs_the_same_however_many_jobs_are_hidden(
    filters: dict[str, Any],
) -> None:
    costs = []
    for size in (20, 500):
        kinds = ("submit", "start", "complete", "expire")
        gone = [(n, kind, 1, 0) for kind in kinds for n in range(size)]
        specs = [JobSpec("csv", owner="ann")] * (size + 1)
        history = play(specs, [(size, "submit", 0, 0), *gone])
        sql, bound = status.list_statement(filters, "oldest")
        bound |= {"cursor": 0, "limit": 9}
        with quick_folder() as folder:
            store = await Store.open(folder / "views.db", "0" * 32, 10**9)
            await store.apply(history[: 2 * size])
            await store.apply(history[2 * size :])
            await store.close()
            result, steps = count_steps(folder / "views.db", sql, bound)
        assert [row[0] for row in result] == [job_id(size)]
        costs.append(steps)
    assert costs[0] == costs[1], "SQLite went over what is hidden"


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize(
    ("others", "index"), [(("png", "failed"), "jobs_type"), (("csv", "completed"), "jobs_status")]
)
async def test_a_listing_by_type_and_status_goes_over_the_fewer_jobs(
    others: tuple[str, str], index: str, order: str
) -> None:
    """Which those are, the counts say: a few that failed were looked for among a million."""
    counts = [["csv", "failed", 3], [*others, 1000]]
    filters = {"status": ["failed"], "type": ["csv"]}
    steps = await plan(*status.list_statement(filters, order, counts))
    assert any(f"{index} " in each for each in steps), steps
    assert not looks_at_everything(steps), steps

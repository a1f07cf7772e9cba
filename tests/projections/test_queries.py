"""What the views answer, against a model in plain Python; and that no answer looks at every job."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.job import Job, Status
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import Views, queue, status
from eventjobs.projections import dependencies as ties
from eventjobs.projections.store import Store
from tests.support.clock import SECOND, FakeClock
from tests.support.histories import START_US, histories, job_id, play
from tests.support.memory_log import MemoryLog
from tests.support.view_model import count_steps, jobs_of, some_types, submit, unmet
from tests.support.views import quick_folder, running, views_of

MINUTE = 60


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
        due = await views.query(queue.SELECT_LINE, "csv", "default", 0, 0, clock.now_us(), 9)
        assert [row[1] for row in due] == [job_id(0)]
        assert await views.counts() == {"csv": {"queued": 1}}
        assert not listing.done()
        go.set()
        assert [job.job_id for job in await listing] == [job_id(0)]
        await slow


# --- dependencies and expiry


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
    "ended_us": START_US,
    "after_us": -1,
    "ended_after_us": -1,
    "1": "[]",
    "2": "[]",
}
READS = {
    "moved": queue.SELECT_MOVED,
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

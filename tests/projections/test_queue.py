"""The table of waiting jobs, against a model in plain Python; and what a page of it costs."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import queue
from eventjobs.projections.queue import WaitingJob
from eventjobs.projections.store import Store
from tests.support.clock import SECOND, FakeClock
from tests.support.histories import START_US, histories, job_id, play
from tests.support.memory_log import MemoryLog
from tests.support.view_model import count_steps, jobs_of, submit, unmet
from tests.support.view_rows import HEAD, LOG_ID, cut
from tests.support.views import quick_folder, running, views_of

Place = tuple[int, int]
FIRST: Place = (-(2**63), 0)


def queued_jobs(history: list[Recorded]) -> list[WaitingJob]:
    """The jobs that wait to start, and for no other job, with their branches."""
    jobs = jobs_of(history)
    born = {job.job_id: job.born for job in jobs}

    def branch(job: Job) -> int | None:
        if job.spec.parent is None:
            return None
        parent = born.get(job.spec.parent, 0)
        return -parent if parent < job.born else 0  # older than it, as parents are

    waiting = [job for job in jobs if job.waits and not unmet(job, jobs)]
    return [WaitingJob.of(job)._replace(branch=branch(job)) for job in waiting]


@settings(max_examples=60)
@given(
    histories(jobs_max=9, steps_max=60),
    st.integers(-100, 1000),
    st.integers(0, 9),
    st.integers(1, 9),
)
async def test_pages_have_the_next_jobs_of_each_order(
    history: list[Recorded], seconds: int, behind: int, limit: int
) -> None:
    jobs = queued_jobs(history)
    until_us = START_US + seconds * SECOND
    orders: list[tuple[str, tuple[str, ...], list[tuple[Place, WaitingJob]]]] = []
    for type in ("csv", "render"):
        due = [job for job in jobs if not job.later or job.due_us <= until_us]
        of_type = [job for job in due if job.type == type]
        by_branch = [((job.branch, job.born), job) for job in of_type if job.branch is not None]
        orders.append((queue.SELECT_CHILDREN, (type,), by_branch))
        for name in ("default", "q"):
            line = [((job.rank, job.born), job) for job in of_type if job.queue == name]
            orders.append((queue.SELECT_LINE, (type, name), line))
            lane = [(place, job) for place, job in line if job.key == "k"]
            orders.append((queue.SELECT_LANE, (type, name, "k"), lane))
    later = [((job.due_us, job.born), job) for job in jobs if job.later]
    async with views_of(history) as views:
        lines = await views.query(queue.SELECT_LINES)
        assert lines == [list(each) for each in sorted({(job.type, job.queue) for job in jobs})]
        for sql, names, placed in [*orders, (queue.SELECT_LATER, (), later)]:
            placed.sort()
            place = placed[behind][0] if behind < len(placed) else FIRST
            until = () if sql is queue.SELECT_LATER else (until_us,)
            rows = await views.query(sql, *names, *place, *until, limit)
            expected = [job for each, job in placed if each > place]
            assert [WaitingJob(*row) for row in rows] == expected[:limit]


@settings(max_examples=60)
@given(histories(jobs_max=9, steps_max=60), st.lists(st.integers(1, 6), max_size=20))
async def test_a_batch_names_each_job_with_relatives_that_it_changes(
    history: list[Recorded], sizes: list[int]
) -> None:
    """After each batch the named ones are as they are: so nothing else need be looked up."""
    with quick_folder() as folder:
        store = await Store.open(folder / "views.db", LOG_ID, HEAD)
        free: dict[str, WaitingJob] = {}
        seen = 0
        for batch in cut(history, sizes):
            applied = await store.apply(batch)
            seen += len(batch)
            for change in applied.changes:
                free.pop(change.after.job_id, None)
                if change.after.waits and not queue.has_relatives(change.after):
                    free[change.after.job_id] = WaitingJob.of(change.after)
            for waits, job in applied.moved:
                free.pop(job.job_id, None)
                if not waits:
                    free[job.job_id] = job
            assert sorted(free.values()) == queued_jobs(history[:seen])
        await store.close()


async def test_the_newest_time_stays_when_the_clock_is_set_back(clock: FakeClock) -> None:
    """Whether the events of before and after the step are of one batch or not."""
    log, newest_us = MemoryLog(clock), clock.now_us()
    for number in range(2):
        await submit(log, number)
        clock.jump_wall(-3600)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            for number in range(2, 4):
                await views.wait_for_position(log.head)
                assert await views.newest_us() == newest_us
                await submit(log, number)


# --- a backlog

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a line": (queue.SELECT_LINE, ("render", "default")),
    "a lane": (queue.SELECT_LANE, ("render", "default", "k")),
    "children": (queue.SELECT_CHILDREN, ("render",)),
    "later": (queue.SELECT_LATER, ()),
}


async def backlog(path: Path, size: int) -> None:
    """Views of *size* jobs of another type, and behind them some that the pages have."""
    specs = [JobSpec("csv", concurrency_key="k", parent=job_id(10**6))] * size
    specs += [JobSpec("render", concurrency_key="k", parent=job_id(10**6))] * 2
    specs += [JobSpec("mail", run_at_us=START_US + SECOND)] * 2
    log = play(specs, [(number, "submit", 0, 0) for number in range(len(specs))])
    store = await Store.open(path, LOG_ID, HEAD)
    await store.apply(log)
    await store.close()


@pytest.mark.parametrize("what", [*PAGES, "lines"])
async def test_a_page_costs_the_same_however_many_other_jobs_wait(what: str) -> None:
    with quick_folder() as folder:
        costs = []
        for size in (20, 500):
            await backlog(path := folder / f"{size}.db", size)
            sql, names = PAGES.get(what, (queue.SELECT_LINES, ()))
            until = () if what == "later" else (START_US + SECOND,)
            bound: Any = () if what == "lines" else (*names, *FIRST, *until, 9)
            result, steps = count_steps(path, sql, bound)
            assert len(result) == (3 if what == "lines" else 2), orjson.dumps(result)
            costs.append(steps)
    assert costs[0] == costs[1], "SQLite went over what others wait for"

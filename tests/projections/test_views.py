"""The views are a function of the log: however they were made, they are the same."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import Views, progress, queue, status
from eventjobs.projections.attempt_progress import Progress, advance
from eventjobs.projections.store import Store
from eventjobs.projections.store_errors import StaleViews
from tests.support.busy_log import busy_log
from tests.support.clock import FakeClock
from tests.support.histories import COMMANDS, histories, job_id, log_of, play
from tests.support.memory_log import MemoryLog
from tests.support.view_rows import HEAD, LOG_ID, apply, cut, dump
from tests.support.views import quick_folder, running, views_of
from tests.support.waiting import time_passing, turns

# --- rebuilt equals live


@settings(max_examples=60)
@given(histories(), st.lists(st.integers(1, 9), max_size=15))
async def test_views_are_the_same_however_the_log_was_cut(
    history: list[Recorded], sizes: list[int]
) -> None:
    with quick_folder() as folder:
        await apply(folder / "whole", [history])
        await apply(folder / "cut", cut(history, sizes))
        assert dump(folder / "cut") == dump(folder / "whole")


@settings(max_examples=15)
@given(histories(), st.integers(1, 60), st.integers(1, 60))
async def test_views_are_the_same_when_nothing_is_left_in_memory(
    history: list[Recorded], first: int, second: int
) -> None:
    with quick_folder() as folder:
        await apply(folder / "whole", [history])
        await apply(folder / "cut", cut(history, [first, second]), reopen=True)
        assert dump(folder / "cut") == dump(folder / "whole")


@settings(max_examples=8)
@given(histories(steps_max=40))
async def test_views_rebuilt_at_any_moment_are_what_they_were_live(
    history: list[Recorded],
) -> None:
    with quick_folder() as folder:
        live = await Store.open(folder / "live", LOG_ID, HEAD)
        for number, each in enumerate(history, start=1):
            await live.apply([each])
            rebuilt = folder / f"rebuilt {number}"
            await apply(rebuilt, [history[:number]])
            assert dump(rebuilt) == dump(live.path)
        await live.close()


@pytest.mark.parametrize("seed", range(2))
async def test_views_of_a_busy_service_are_the_same_however_the_log_was_cut(
    tmp_path: Path, seed: int
) -> None:
    """One batch has many events of each job, webhook, pause, key, hook and breaker."""
    history = busy_log(seed)
    sizes = [Random(seed).randrange(1, 99) for _ in range(99)]
    await apply(tmp_path / "whole", [history])
    await apply(tmp_path / "single", [[each] for each in history])
    await apply(tmp_path / "cut", cut(history, sizes))
    whole = dump(tmp_path / "whole")
    assert {name for name, rows in whole.items() if not rows} <= {"moved", "parked"}
    assert dump(tmp_path / "single") == whole
    assert dump(tmp_path / "cut") == whole


async def test_stage_times_are_the_same_when_more_jobs_end_than_are_remembered(
    tmp_path: Path,
) -> None:
    """Jobs that end in another order than they began, 50 of them in one batch and in many."""
    specs = [spec(number) for number in range(50)]
    steps = [(n, "start", 0, 1) for n in range(50) for _ in range(2)]
    steps += [(n, "progress", 1 + n % 3, n % 7) for n in range(50)]
    steps += [(n * 7 % 50, "complete", 0, 1) for n in range(50)]
    history = play(specs, steps)
    await apply(tmp_path / "whole", [history])
    await apply(tmp_path / "single", [[each] for each in history])
    await apply(tmp_path / "cut", cut(history, [70, 50, 33, 20]))
    whole = dump(tmp_path / "whole")
    assert len(whole["stage_times"]) > 32
    assert dump(tmp_path / "single") == whole
    assert dump(tmp_path / "cut") == whole


def spec(number: int) -> JobSpec:
    return JobSpec("render", {"n": number}, max_attempts=3)


@settings(max_examples=40)
@given(histories())
async def test_what_the_views_hold_is_what_the_events_add_up_to(history: list[Recorded]) -> None:
    jobs: dict[str, Job] = {}
    progress_of: dict[str, Progress | None] = {}
    for each in history:
        jobs[each.job_id] = evolve(jobs.get(each.job_id), each)
        progress_of[each.job_id] = advance(progress_of.get(each.job_id), each)
    async with views_of(history) as views:
        for id, job in jobs.items():
            for _ in range(2):  # from memory, then from the file
                view = await views.job(id)
                assert view is not None
                assert view.job == job
                assert view.progress == progress_of[id]
                views._current.store._present._cache.drop(id)
        assert await views.job(job_id(99)) is None


# --- opening


#: Twelve jobs, of which each has come one step further than the one before.
HISTORY = play(
    [spec(number) for number in range(12)],
    [
        (job, command, 3, 5)
        for job in range(12)
        for command in ["submit", "start", "progress", "fail", *COMMANDS, "retry"][: job + 1]
    ],
)


async def answers(views: Views) -> Any:
    listed = await views.jobs({}, order="newest", cursor=None, limit=99)
    assert listed
    return listed, await views.counts(), await views.running(), await views.newest_us()


async def test_views_that_are_deleted_give_the_same_answers(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = await log_of(HISTORY, clock)
    view = []
    for _ in range(2):
        async with running(tmp_path / "views.db", log, clock) as views:
            await views.wait_for_position(log.head)
            view.append(await answers(views))
        for each in tmp_path.iterdir():
            each.unlink()
    assert view[0] == view[1]


def other_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "VERSION", progress.VERSION + 1)


def other_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_meta(path, "log_id", "f" * 32)


def from_the_future(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the log was put back from a copy."""
    set_meta(path, "position", str(10**6))


def newer_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def garbage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"garbage" * 1000)


def somebody_elses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (id)")


def cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def half_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM meta")


def set_meta(path: Path, name: str, value: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


@pytest.mark.parametrize(
    "spoil",
    [
        other_version,
        other_log,
        from_the_future,
        newer_schema,
        garbage,
        somebody_elses,
        cut_off,
        half_made,
    ],
)
async def test_views_that_do_not_fit_are_made_anew(
    tmp_path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        before = await answers(views)
    spoil(path, monkeypatch)
    with pytest.raises(StaleViews):
        await Store.open(path, log.log_id, log.head)
    async with running(path, log, clock) as views:
        assert views.position == 0
        await views.wait_for_position(log.head)
        assert await answers(views) == before


async def test_views_go_on_where_they_were(tmp_path: Path, clock: FakeClock) -> None:
    log = await log_of(HISTORY, clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        await views.wait_for_position(log.head)
    async with running(tmp_path / "views.db", log, clock) as views:
        assert views.position == log.head


# --- rebuilding beside the live ones


async def add(log: MemoryLog, number: int) -> None:
    """One more job."""
    await log.append(job_id(1000 + number), 0, JobSubmitted(spec(number)), actor="ann")


async def test_a_rebuild_of_idle_views_ends(tmp_path: Path, clock: FakeClock) -> None:
    """It used to wait for the next event."""
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        before = dump(path), await answers(views)
        steps: list[tuple[int, int]] = []
        position = await time_passing(clock, views.rebuild(lambda *step: steps.append(step)))
        assert position == log.head
        assert (dump(path), await answers(views)) == before
        assert steps[-1] == (log.head, log.head)
        await add(log, 0)
        await views.wait_for_position(log.head)
        assert (await views.job(job_id(1000))) is not None
    assert [each.name for each in tmp_path.iterdir()] == ["views.db"]


async def test_reads_and_writes_go_on_during_a_rebuild(tmp_path: Path, clock: FakeClock) -> None:
    """Every read returns, every job is there once, and every listener gets every change."""
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    heard: list[str] = []
    reads = 0
    over = asyncio.Event()

    async def read(read_once: Callable[[], Awaitable[object]]) -> None:
        nonlocal reads
        while not over.is_set():
            await read_once()
            await asyncio.sleep(0)  # what is in memory is answered at once
            reads += 1

    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        views.listen(lambda touched: heard.extend(each.after.job_id for each in touched))
        readers = [
            lambda: views.jobs({"status": ["queued"]}, order="newest", cursor=None, limit=20),
            lambda: views.job(job_id(0)),
            views.counts,
            lambda: views.query(queue.SELECT_LINE, "render", "default", 0, 0, 2**62, 10),
            views.newest_us,
        ]
        reading = [asyncio.create_task(read(each)) for each in readers for _ in range(2)]
        for number in range(300):
            if number % 60 == 0:
                rebuilding = asyncio.create_task(time_passing(clock, views.rebuild()))
            await add(log, number)
            await turns(3)
            if number % 60 == 59:
                await rebuilding
        await views.wait_for_position(log.head)
        over.set()
        await asyncio.gather(*reading)
        assert reads > 100
        assert sorted(heard) == sorted(job_id(1000 + number) for number in range(300))
    fresh = tmp_path / "fresh.db"
    async with running(fresh, log, clock) as views:
        await views.wait_for_position(log.head)
    assert dump(path) == dump(fresh)


async def test_a_rebuild_goes_on_when_its_caller_is_gone(tmp_path: Path, clock: FakeClock) -> None:
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        before = await answers(views)
        for number in range(8):
            rebuilding = asyncio.create_task(views.rebuild())
            for _ in range(number * 3):
                await asyncio.to_thread(str)
            rebuilding.cancel()
            await asyncio.wait({rebuilding})
            assert await answers(views) == before
        assert await views.rebuild() == log.head
        await add(log, 0)
        await views.wait_for_position(log.head)
    assert [each.name for each in tmp_path.iterdir()] == ["views.db"]


async def test_views_can_be_closed_during_a_rebuild(tmp_path: Path, clock: FakeClock) -> None:
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    for number in range(8):
        async with running(path, log, clock) as views:
            await views.wait_for_position(log.head)
            rebuilding = asyncio.create_task(views.rebuild())
            for _ in range(number * 3):
                await asyncio.to_thread(str)
        await turns()
        assert rebuilding.done(), "closing waits for it"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        assert len(await views.jobs({}, order="newest", cursor=None, limit=99)) == 12


async def test_views_that_cannot_write_are_late_and_then_catch_up(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Another program holds the file: what is read is of an earlier position, and true."""
    log = await log_of(HISTORY, clock)
    path = tmp_path / "views.db"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        await views._current.store._writer.execute_fetchall("PRAGMA busy_timeout = 0")
        before = await answers(views)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await add(log, 0)
            for _ in range(5):
                await clock.advance(0.5)
            assert views.position == log.head - 1
            assert await answers(views) == before
            other.execute("ROLLBACK")
        await time_passing(clock, views.wait_for_position(log.head))
        assert (await views.job(job_id(1000))) is not None


def test_every_projection_has_a_name_and_a_version_of_its_own() -> None:
    assert {each.NAME for each in (status, progress)} == {"status", "progress"}


async def test_views_that_are_spoilt_while_they_run_are_made_anew(
    tmp_path: Path, clock: FakeClock
) -> None:
    """A disk that wrote rubbish used to leave the views behind, and with them the queue."""
    log = await log_of(HISTORY, clock)
    for number in range(300):
        await add(log, number)
    path = tmp_path / "views.db"
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        for connection in (views._current.store._writer, views._current.store._reader):
            await connection.execute_fetchall("PRAGMA cache_size = 0")
        await views._current.store._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"rubbish!" * 4096)
        await add(log, 300)
        await time_passing(clock, views.wait_for_position(log.head))
        assert len(await views.jobs({}, order="newest", cursor=None, limit=999)) == 313
    fresh = tmp_path / "fresh.db"
    async with running(fresh, log, clock) as views:
        await views.wait_for_position(log.head)
    assert dump(path) == dump(fresh)

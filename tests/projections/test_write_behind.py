"""The present is ahead of the views file, which is written behind it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.events import AttemptStarted, JobCancelled, JobCompleted
from eventjobs.domain.job import Status
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import LogUnavailable
from eventjobs.projections import JobChange, Views, present, read_ahead, status
from eventjobs.projections.fold import Written
from eventjobs.projections.store import Store
from eventjobs.projections.write_behind import INTERVAL_S
from tests.support.clock import FakeClock
from tests.support.histories import histories, job_id
from tests.support.memory_log import MemoryLog
from tests.support.view_model import submit
from tests.support.view_rows import HEAD, LOG_ID, apply, cut, dump
from tests.support.views import quick_folder, running
from tests.support.waiting import time_passing, turns, until


async def start(log: MemoryLog, number: int) -> None:
    await log.append(job_id(number), 1, AttemptStarted(1, "w"), actor="w")


async def complete(log: MemoryLog, number: int) -> None:
    [*_, last] = await log.read_job(job_id(number))
    event = JobCompleted(1, None)
    await log.append(job_id(number), last.version, event, actor="w")


def changes_of(views: Views) -> list[list[int]]:
    """The positions of each batch of changes that listeners get."""
    notified: list[list[int]] = []

    def note(changes: list[JobChange]) -> None:
        notified.append([each.position for change in changes for each in change.events])

    views.listen(note)
    return notified


def writes_of(views: Views) -> list[Written]:
    written: list[Written] = []
    views.listen_to_writes(written.append)
    return written


def hold_writes(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let writes of the file begin only once the event is set."""
    write, may_write = Store.write, asyncio.Event()

    async def write_late(store: Store) -> Written:
        await may_write.wait()
        return await write(store)

    monkeypatch.setattr(Store, "write", write_late)
    return may_write


async def test_a_change_is_in_the_present_at_once_and_in_the_file_within_the_interval(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        await submit(log, 0)
        await views.wait_for_present(1)
        assert (views.present_position, views.position) == (1, 0)
        view = await views.job(job_id(0))
        assert view is not None
        assert view.job.status == Status.QUEUED
        assert views.cached_job(job_id(0)) is view.job
        await clock.advance(INTERVAL_S)
        assert views.position == 1


async def test_a_job_that_ends_within_the_interval_is_written_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        notified, writes = changes_of(views), writes_of(views)
        await submit(log, 0)
        await views.wait_for_present(1)
        await start(log, 0)
        await views.wait_for_present(2)
        await complete(log, 0)
        await views.wait_for_present(3)
        assert (notified, writes) == ([[1], [2], [3]], [])
        await clock.advance(INTERVAL_S)
        [written] = writes
        [change] = written.changes
        assert (change.before, change.after.status) == (None, Status.COMPLETED)
        assert [each.position for each in change.events] == [1, 2, 3]


async def test_the_file_is_written_at_once_when_something_waits_for_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Also when it waits for what is not in the log yet."""
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        waiting = asyncio.create_task(views.wait_for_position(2))
        for number in range(2):
            await submit(log, number)
            await views.wait_for_present(1 + number)
        await waiting
        assert len(await views.jobs({}, order="newest", cursor=None, limit=9)) == 2


async def test_a_job_that_others_wait_for_is_written_at_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        writes = writes_of(views)
        await submit(log, 0)
        await views.wait_for_present(1)
        await turns()
        assert not writes
        await submit(log, 1, after=(job_id(0),))
        await until(lambda: views.position == 2)
        await start(log, 0)
        await views.wait_for_present(3)
        await turns()
        assert views.position == 2, "a start lets no other job start"
        await complete(log, 0)
        await until(lambda: views.position == 4)
        assert [(moved.waits, moved.job.job_id) for moved in writes[-1].moved] == [(0, job_id(1))]
        await start(log, 1)
        await complete(log, 1)
        await until(lambda: views.position == 6)
        await submit(log, 2)
        await start(log, 2)
        await complete(log, 2)
        await views.wait_for_present(9)
        await turns()
        assert views.position == 6, "no job waits for another any more"


async def test_a_moved_job_that_has_changed_since_comes_with_the_next_write(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be put into the queue after its end."""
    log = MemoryLog(clock)
    write, may_write = Store.write, asyncio.Event()

    async def write_late(store: Store) -> Written:
        writing = asyncio.ensure_future(write(store))
        await may_write.wait()
        return await writing

    async with running(tmp_path / "views.db", log, clock) as views:
        writes = writes_of(views)
        monkeypatch.setattr(Store, "write", write_late)
        await submit(log, 0, after=(job_id(1),))
        await views.wait_for_present(1)
        await log.append(job_id(0), 1, JobCancelled(), actor="ann")
        await views.wait_for_present(2)
        may_write.set()
        await views.wait_for_position(2)
        assert [moved.job.job_id for each in writes for moved in each.moved] == []


@settings(max_examples=25)
@given(histories(), st.lists(st.integers(1, 9), max_size=20), st.lists(st.integers(1, 9)))
async def test_the_file_is_the_same_however_folds_and_writes_are_cut(
    history: list[Recorded], folds: list[int], writes: list[int]
) -> None:
    """With a present that keeps hardly any job beside those that are not written."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(present, "JOBS_MAX", 1)
    try:
        with quick_folder() as folder:
            await apply(folder / "single", [[each] for each in history])
            store = await Store.open(folder / "behind", LOG_ID, HEAD)
            pauses = iter(writes)
            left = next(pauses, 1)
            for batch in cut(history, folds):
                await store.fold(batch)
                left -= 1
                if not left:
                    await store.write()
                    left = next(pauses, 3)
            if store.present_position > store.position:
                await store.write()
            await store.close()
            assert dump(folder / "behind") == dump(folder / "single")
    finally:
        monkeypatch.undo()


# --- failures


class Disk:
    """Lets writes of the views fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.failures = 0
        write = Store.write

        async def write_or_fail(store: Store) -> Written:
            if self.error is not None:
                self.failures += 1
                store._present.begin_write()  # as far as a failing one comes
                raise self.error
            return await write(store)

        monkeypatch.setattr(Store, "write", write_or_fail)


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("a damaged file")])
async def test_what_a_failed_write_had_is_written_later_and_notified_once(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    log = MemoryLog(clock)
    disk = Disk(monkeypatch)
    async with running(tmp_path / "views.db", log, clock) as views:
        notified = changes_of(views)
        await submit(log, 0)
        await views.wait_for_position(1)
        disk.error = error
        await start(log, 0)
        await submit(log, 1)
        waiting = asyncio.create_task(views.wait_for_position(3))
        await time_passing(clock, views.failure_event.wait())
        assert (views.position, views.present_position) == (1, 1)
        await complete(log, 0)
        disk.error = None
        await time_passing(clock, asyncio.wait_for(waiting, None))
        await views.wait_for_position(4)
        assert [position for batch in notified for position in batch] == [1, 2, 3, 4]
        assert views.failing is None
        view = await views.job(job_id(0))
        assert view is not None
        assert view.job.status == Status.COMPLETED
    await apply(tmp_path / "single", [[each] for each in await log.read(0)])
    expected = dump(tmp_path / "single")
    written = dump(tmp_path / "views.db")
    assert {name: rows for name, rows in written.items() if name != "meta"} == {
        name: rows for name, rows in expected.items() if name != "meta"
    }


async def test_a_rebuild_keeps_what_was_not_written_yet(tmp_path: Path, clock: FakeClock) -> None:
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        notified = changes_of(views)
        await submit(log, 0)
        await views.wait_for_position(1)
        await start(log, 0)
        await views.wait_for_present(2)
        await views.rebuild()
        await views.wait_for_present(2)
        view = await views.job(job_id(0))
        assert view is not None
        assert view.job.status == Status.RUNNING
        await views.wait_for_position(2)
        assert await views.running() == [job_id(0)]
        await complete(log, 0)
        await views.wait_for_position(3)
        assert await views.running() == []
        assert notified == [[1], [2], [3]]


async def test_a_rebuild_waits_for_those_who_read_the_file_that_it_replaces(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = MemoryLog(clock)
    async with running(tmp_path / "views.db", log, clock) as views:
        await submit(log, 0)
        await views.wait_for_position(1)
        async with views._current.reading() as store:
            rebuilding = asyncio.create_task(views.rebuild())
            await until(lambda: not views._current.is_available)
            for _ in range(9):
                await asyncio.to_thread(str)  # as long as it takes to close the file
            assert (await store.read(status.SELECT_RUNNING)) == []
            assert not rebuilding.done()
        await rebuilding


async def test_the_present_does_not_outgrow_its_memory_while_a_write_takes_long(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "WINDOW", 10)
    log = MemoryLog(clock)
    may_write = hold_writes(monkeypatch)
    async with running(tmp_path / "views.db", log, clock) as views:
        for number in range(50):
            await submit(log, number)
        await views.wait_for_present(10)
        await turns()
        assert views.present_position <= 20
        may_write.set()
        await views.wait_for_position(50)


async def test_closing_ends_after_a_write_and_ends_all_waits(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog(clock)
    may_write = hold_writes(monkeypatch)
    async with running(tmp_path / "views.db", log, clock) as views:
        await submit(log, 0)
        waits: list[Any] = [
            asyncio.create_task(views.wait_for_position(9)),
            asyncio.create_task(views.wait_for_present(9)),
        ]
        await views.wait_for_present(1)
        await turns()
        closing = asyncio.create_task(views.close())
        for each in waits:
            with pytest.raises(LogUnavailable):
                await each
        assert not closing.done()
        may_write.set()
        await closing
    store = await Store.open(tmp_path / "views.db", log.log_id, log.head)
    assert store.position == 1
    await store.close()

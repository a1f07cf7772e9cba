"""Views that catch up in windows are those that were kept current event by event."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.projections import read_ahead, store
from eventjobs.projections.fold import Fold, Written
from eventjobs.projections.store import Store
from tests.support.clock import FakeClock
from tests.support.histories import histories, log_of, play
from tests.support.memory_log import MemoryLog
from tests.support.view_rows import HEAD, LOG_ID, apply, dump
from tests.support.views import quick_folder, running
from tests.support.waiting import time_passing


def set_sizes(window: int, page: int, folded_at_once: int, window_bytes: int) -> pytest.MonkeyPatch:
    """Set the sizes of windows; undone by the caller."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(read_ahead, "WINDOW", window)
    monkeypatch.setattr(read_ahead, "PAGE", page)
    monkeypatch.setattr(read_ahead, "FIRST_PAGE", min(page, 3))
    monkeypatch.setattr(read_ahead, "WINDOW_BYTES", window_bytes)
    monkeypatch.setattr(store, "FOLDED_AT_ONCE", folded_at_once)
    return monkeypatch


async def rows_of_rebuilt(path: Path, log: MemoryLog) -> tuple[Any, Any]:
    """The rows of views that caught up from nothing, and of the same views once rebuilt."""
    clock = FakeClock()
    async with running(path, log, clock) as views:
        await views.wait_for_position(log.head)
        caught_up = dump(path)
        await time_passing(clock, views.rebuild())
    return caught_up, dump(path)


def without_meta(rows: dict[str, Any]) -> dict[str, Any]:
    """*rows* without those that name the log."""
    return {name: of_table for name, of_table in rows.items() if name != "meta"}


@settings(max_examples=25)
@given(
    histories(), st.integers(1, 30), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40_000)
)
async def test_a_window_may_end_anywhere(
    history: list[Recorded], window: int, page: int, folded_at_once: int, window_bytes: int
) -> None:
    """Also inside jobs, and with more unfinished jobs than it holds."""
    log = await log_of(history, FakeClock())
    sizes = set_sizes(window, page, folded_at_once, window_bytes)
    try:
        with quick_folder() as folder:
            await apply(folder / "single", [[each] for each in history])
            live = without_meta(dump(folder / "single"))
            for rebuilt in await rows_of_rebuilt(folder / "views.db", log):
                assert without_meta(rebuilt) == live
    finally:
        sizes.undo()


#: Fifty jobs in three rounds: no job is within a window of fewer than a hundred events.
ROUNDS = play(
    [JobSpec("render", {"n": number}, max_attempts=3) for number in range(50)],
    [(n, command, 1, 1) for command in ("start", "start", "complete") for n in range(50)],
)


async def test_more_jobs_are_unfinished_than_a_window_has_events(tmp_path: Path) -> None:
    log = await log_of(ROUNDS, FakeClock())
    sizes = set_sizes(20, 7, 3, 10**6)
    try:
        await apply(tmp_path / "single", [[each] for each in ROUNDS])
        live = without_meta(dump(tmp_path / "single"))
        for rebuilt in await rows_of_rebuilt(tmp_path / "views.db", log):
            assert without_meta(rebuilt) == live
    finally:
        sizes.undo()
    assert len(ROUNDS) == 150


async def test_a_job_is_written_once_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[int]] = []
    whole = Store.write

    async def noting(self: Store) -> Written:
        changes = await whole(self)
        written.append([len(change.events) for change in changes.changes])
        return changes

    monkeypatch.setattr(Store, "write", noting)
    log = await log_of(ROUNDS, clock := FakeClock())
    async with running(tmp_path / "views.db", log, clock) as views:
        await views.wait_for_position(log.head)
    assert written == [[3] * 50]


@pytest.mark.parametrize("turns", range(12))
async def test_an_interrupted_window_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(store, "FOLDED_AT_ONCE", 20)
    views = await Store.open(tmp_path / "views.db", LOG_ID, HEAD)
    await views.apply(ROUNDS[:70])
    applying = asyncio.create_task(views.apply(ROUNDS[70:]))
    for _ in range(turns):
        await asyncio.sleep(0)
    applying.cancel()
    await asyncio.wait({applying})
    await views.close()
    views = await Store.open(tmp_path / "views.db", LOG_ID, HEAD)
    position = views.position
    await views.close()
    assert position in (70, 150)
    await apply(tmp_path / "whole", [ROUNDS[:position]])
    assert dump(tmp_path / "views.db") == dump(tmp_path / "whole")


async def test_others_run_while_a_window_is_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FOLDED_AT_ONCE", 10)
    views = await Store.open(tmp_path / "views.db", LOG_ID, HEAD)
    seen: list[int] = []
    fold = Fold.add

    def noting(self: Fold, events: Any, refused: str | None = None) -> None:
        seen.append(turn)
        fold(self, events, refused)

    monkeypatch.setattr(Fold, "add", noting)
    turn = 0
    applying = asyncio.create_task(views.apply(ROUNDS))
    while not applying.done():
        turn += 1
        await asyncio.sleep(0)
    await views.close()
    assert len(seen) == len(set(seen)) == 15

"""One views file: what it keeps in memory, and how it is opened; and waits for views."""

import asyncio
import sqlite3
from contextlib import suppress

import pytest

from eventjobs.domain.codec import encode
from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import LogUnavailable
from eventjobs.projections import Views, present
from eventjobs.projections.store import Store
from tests.support.clock import FakeClock
from tests.support.histories import START_US, job_id
from tests.support.memory_log import MemoryLog
from tests.support.reachable import reachable
from tests.support.view_rows import HEAD, LOG_ID
from tests.support.views import quick_folder, running
from tests.support.waiting import turns


def submission(position: int, payload: str = "") -> Recorded:
    event = JobSubmitted(JobSpec("echo", payload))
    return Recorded(position, job_id(position), 1, START_US, "x", event, *encode(event))


async def test_jobs_in_memory_have_a_bound_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(present, "BYTES_MAX", 20_000)
    with quick_folder() as folder:
        views = await Store.open(folder / "views.db", LOG_ID, HEAD)
        await views.apply([submission(n, "x" * 2000) for n in range(1, 21)])
        kept = [n for n in range(1, 21) if views.get_cached(job_id(n)) is not None]
        assert kept == [17, 18, 19, 20]
        assert await views.get(job_id(1)) is not None, "it is read from the file"
        await views.close()


async def test_after_a_checkpoint_a_write_waits_for_other_programs_as_before() -> None:
    with quick_folder() as folder:
        views = await Store.open(folder / "views.db", LOG_ID, HEAD)
        pragma = "PRAGMA busy_timeout"
        [before] = await views._writer.execute_fetchall(pragma)
        assert await views.truncate_wal()
        assert [before] == await views._writer.execute_fetchall(pragma)
        await views.close()


async def test_a_start_that_is_cancelled_is_no_sign_of_damage() -> None:
    """Views that were called stale for it would be made anew."""
    for steps in range(12):
        with quick_folder() as folder:
            opening = asyncio.create_task(Store.open(folder / "views.db", LOG_ID, HEAD))
            for _ in range(steps):
                await asyncio.to_thread(str)
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await (await opening).close()


async def test_a_file_that_cannot_be_opened_now_is_no_sign_of_damage() -> None:
    with quick_folder() as folder:
        await (await Store.open(folder / "views.db", LOG_ID, HEAD)).close()
        (folder / "views.db-wal").mkdir()
        with pytest.raises(sqlite3.OperationalError):
            await Store.open(folder / "views.db", LOG_ID, HEAD)


async def test_nothing_is_left_of_a_wait_for_views(clock: FakeClock) -> None:
    log = MemoryLog(clock)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            before = waits_of(views)
            waiting = [asyncio.create_task(views.wait_for_position(1)) for _ in range(5)]
            given_up = asyncio.create_task(views.wait_for_position(2))
            await turns()
            assert waits_of(views) == before + 6
            await log.append(job_id(1), 0, JobSubmitted(JobSpec("echo")), actor="tester")
            await asyncio.gather(*waiting)
            given_up.cancel()
            await turns()
            assert waits_of(views) == before
            last = asyncio.create_task(views.wait_for_position(9))
            await turns()
        with pytest.raises(LogUnavailable):
            await last


def waits_of(views: Views) -> int:
    return reachable(views._waits._futures)["Future"]

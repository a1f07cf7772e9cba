"""A log that loses its name while it is open takes no writes: what it took would be lost."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import LogError, LogUnavailable
from eventjobs.log.sqlite import SQLiteLog
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.log_lines import capture_logs
from tests.support.waiting import time_passing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "log.db"


@pytest.fixture
async def log(path: Path, clock: FakeClock) -> AsyncIterator[SQLiteLog]:
    log = await SQLiteLog.open(path, clock)
    await add(log, 1)
    yield log
    await time_passing(clock, log.close())


async def add(log: SQLiteLog, number: int) -> Recorded:
    return await log.append(job_id(number), 0, JobSubmitted(JobSpec("test")), actor="tester")


def unlink_file(path: Path) -> None:
    path.unlink()


def replace_file(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)


def wal_unlinked(path: Path) -> None:
    path.with_name("log.db-wal").unlink()


def wal_replaced(path: Path) -> None:
    path.with_name("log.db-wal").rename(path.with_name("old-wal"))
    path.with_name("log.db-wal").write_bytes(b"")


def moved_with_its_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


GONE = [unlink_file, replace_file, wal_unlinked, wal_replaced, moved_with_its_directory]


@pytest.mark.parametrize("gone", GONE)
async def test_nothing_is_acknowledged_any_more_and_reads_go_on(
    log: SQLiteLog, path: Path, gone: Callable[[Path], None]
) -> None:
    gone(path)
    with pytest.raises(LogUnavailable, match="removed or replaced"):
        await add(log, 2)
    with pytest.raises(LogUnavailable, match="removed or replaced"):
        await add(log, 3)
    why = await log.unwritable()
    assert why is not None
    assert "backup" in why
    assert log.head == 1
    assert [each.job_id for each in await log.read(0)] == [job_id(1)]


async def test_it_is_noticed_without_a_write(log: SQLiteLog, path: Path) -> None:
    assert await log.unwritable() is None
    path.unlink()
    assert await log.unwritable() is not None


async def test_what_takes_its_place_is_not_written_to(
    log: SQLiteLog, path: Path, clock: FakeClock
) -> None:
    """Not even by the attempts to open it again, nor at the end."""
    replace_file(path)
    path.with_name("log.db-wal").unlink()
    path.with_name("log.db-wal").write_bytes(b"of another program")
    content = path.read_bytes()
    with pytest.raises(LogError):
        await add(log, 2)
    for _ in range(3):
        await clock.advance(1.0)
    await time_passing(clock, log.close())
    assert path.read_bytes() == content
    assert path.with_name("log.db-wal").read_bytes() == b"of another program"


async def test_a_wal_of_another_program_is_not_removed_at_the_end(
    log: SQLiteLog, path: Path
) -> None:
    """SQLite removes it by its name, when the last connection that writes is closed last."""
    wal_replaced(path)
    path.with_name("log.db-wal").write_bytes(b"of another program")
    await log.close()
    assert path.with_name("log.db-wal").read_bytes() == b"of another program"


async def test_it_goes_on_when_the_file_is_back(
    log: SQLiteLog, path: Path, clock: FakeClock
) -> None:
    path.rename(path.with_name("aside"))
    with pytest.raises(LogUnavailable):
        await add(log, 2)
    path.with_name("aside").rename(path)
    while await log.unwritable() is not None:
        await clock.advance(1.0)
        await asyncio.to_thread(str)
    assert (await add(log, 3)).position == 2


async def test_it_tries_to_open_the_file_once_a_second(
    log: SQLiteLog, path: Path, clock: FakeClock
) -> None:
    path.rename(path.with_name("aside"))
    with capture_logs() as lines:
        with pytest.raises(LogUnavailable):
            await add(log, 2)
        for attempts in range(1, 4):
            await clock.advance(0.5)
            assert [each["event"] for each in lines].count("cannot reopen") == attempts
            await clock.advance(0.5)
    path.with_name("aside").rename(path)


async def test_refused_appends_take_no_place_of_later_ones(path: Path, clock: FakeClock) -> None:
    """Those that wait while the file cannot be opened again are refused, and wait no more."""
    log = await SQLiteLog.open(path, clock, waiting_bytes_max=12_000, waiting_max=9, batch_max=1)
    event = JobSubmitted(JobSpec("test", "x" * 400))
    for attempt in range(3):
        path.rename(path.with_name("aside"))
        outcomes = await asyncio.gather(
            *(log.append(job_id(n), 0, event, actor="tester") for n in range(3)),
            return_exceptions=True,
        )
        assert {type(each) for each in outcomes} == {LogUnavailable}
        path.with_name("aside").rename(path)
        while await log.unwritable() is not None:
            await clock.advance(1.0)
            await asyncio.to_thread(str)
        # As many as may wait. One more would be refused as Overloaded.
        appending = [add(log, 10 * (attempt + 1) + number) for number in range(9)]
        await asyncio.gather(*appending)
        assert log.head == 9 * (attempt + 1), "a refused one was written after all"
    await log.close()


async def test_a_service_says_so_and_answers_reads(client: Connect) -> None:
    api = await client()
    data = api.service.settings.data
    submitted = await api.service.log.append(
        job_id(1), 0, JobSubmitted(JobSpec("test")), actor="tester"
    )
    (data / "log.db").rename(data / "gone")
    readiness = (await api.get("/readyz")).json
    assert (readiness["ready"], readiness["writable"]) == (True, False)
    assert "removed or replaced" in readiness["unwritable"]
    reply = await api("POST", f"/v1/jobs/{job_id(1)}/cancel")
    assert (reply.status, reply.code) == (503, "log_unavailable")
    assert reply.headers["Retry-After"]
    assert (await api.get(f"/v1/jobs/{submitted.job_id}")).json["status"] == "queued"
    assert len((await api.get("/v1/jobs")).json["jobs"]) == 1
    (data / "gone").rename(data / "log.db")

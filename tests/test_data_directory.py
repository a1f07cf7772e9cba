"""A data directory whose files do not belong together, or are unusable, is refused in one line."""

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eventjobs.attempts.claims import ClaimQueue
from eventjobs.cli import app
from eventjobs.domain.events import Unreadable
from eventjobs.errors import (
    DataDirectoryError,
    ForeignDatabase,
    JobUnreadable,
    LogDamaged,
    LogMissing,
    LogReplaced,
    SecretKeyMissing,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from eventjobs.storage.data_directory import explain_errors
from tests.conftest import Serve


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


async def make_data(data: Path, jobs: int = 1) -> Path:
    """*data*, after a service has run *jobs* jobs in it."""
    async with Service(data, [echo]) as service:
        for number in range(jobs):
            await service.wait((await service.submit("echo", number)).job_id)
        await service.views.wait_for_position(service.log.head)
    return data


async def start_refused(data: Path, kind: type[DataDirectoryError]) -> str:
    """The error message of a service started on *data*: one line with the path."""
    service = Service(data, [echo])
    with pytest.raises(kind) as error:
        await service.start()
    assert "\n" not in error.value.message
    assert str(data) in error.value.message
    return error.value.message


def remove_log(data: Path) -> None:
    for each in data.glob("log.db*"):
        each.unlink()


def take_log(data: Path, other: Path) -> None:
    """Put the log of *other* into *data*."""
    remove_log(data)
    for each in other.glob("log.db*"):
        shutil.copy(each, data)


# --- what belongs together


@pytest.mark.parametrize("left", ["views.db", "secret.key", "artifacts", "log.db-wal"])
async def test_a_log_that_is_missing_beside_what_belongs_to_it_is_not_made_anew(
    tmp_path: Path, left: str
) -> None:
    data = await make_data(tmp_path / "data")
    (data / "artifacts" / "ab").mkdir()
    remove_log(data)
    (data / "log.db-wal").write_bytes(b"what was acknowledged last")
    for name in {"views.db", "secret.key", "artifacts", "log.db-wal"} - {left}:
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    names = sorted(each.name for each in data.iterdir())
    message = await start_refused(data, LogMissing)
    assert left in message
    assert "backup" in message
    assert sorted(each.name for each in data.iterdir()) == names


async def test_a_log_that_was_emptied_counts_as_missing(tmp_path: Path) -> None:
    data = await make_data(tmp_path / "data")
    remove_log(data)
    (data / "log.db").touch()
    await start_refused(data, LogMissing)


async def test_a_new_log_is_begun_on_purpose_once_the_rest_is_moved_away(tmp_path: Path) -> None:
    data = await make_data(tmp_path / "data")
    remove_log(data)
    for name in ("views.db", "secret.key"):
        (data / name).rename(tmp_path / name)
    async with Service(data, [echo]) as service:
        assert service.log.head == 0


async def test_the_log_of_another_directory_is_refused(tmp_path: Path) -> None:
    """Beside the views, and without them beside the key; with a new key it is taken."""
    data, other = await make_data(tmp_path / "data"), await make_data(tmp_path / "other", jobs=2)
    take_log(data, other)
    assert "views.db" in await start_refused(data, LogReplaced)
    (data / "views.db").unlink()
    assert "secret.key" in await start_refused(data, LogReplaced)
    run = await asyncio.to_thread(CliRunner().invoke, app, ["new-key", "--data", str(data)])
    assert (run.exit_code, run.output.strip()) == (0, str(data / "secret.key"))
    async with Service(data, [echo]) as service:
        assert len(await service.views.jobs({}, order="newest", cursor=None, limit=9)) == 2


async def test_a_log_from_an_older_backup_is_taken(tmp_path: Path, serve: Serve) -> None:
    """The views have seen more than it holds: they are made anew."""
    data = await make_data(tmp_path / "data")
    shutil.copytree(data, tmp_path / "backup")
    await make_data(data)
    take_log(data, tmp_path / "backup")
    service = await serve(echo, data=data)
    await service.wait((await service.submit("echo", 1)).job_id)
    await service.views.wait_for_position(service.log.head)
    assert await service.views.counts() == {"echo": {"completed": 2}}


async def test_a_key_that_is_gone_is_not_made_anew_beside_events(tmp_path: Path) -> None:
    data = await make_data(tmp_path / "data")
    before = (data / "secret.key").read_bytes()
    (data / "secret.key").unlink()
    assert "eventjobs new-key" in await start_refused(data, SecretKeyMissing)
    assert not (data / "secret.key").exists()
    run = await asyncio.to_thread(CliRunner().invoke, app, ["new-key", "--data", str(data)])
    assert run.exit_code == 0
    assert (data / "secret.key").read_bytes() != before
    assert stat.S_IMODE((data / "secret.key").stat().st_mode) == 0o600
    async with Service(data, [echo]):
        pass


async def test_the_key_of_another_log_is_refused(tmp_path: Path) -> None:
    data, other = await make_data(tmp_path / "data"), await make_data(tmp_path / "other")
    shutil.copy(other / "secret.key", data)
    await start_refused(data, LogReplaced)


async def test_a_start_that_was_cut_off_before_the_key_was_made_is_no_loss(tmp_path: Path) -> None:
    async with Service(tmp_path / "data", [echo]):
        pass
    (tmp_path / "data" / "secret.key").unlink()
    async with Service(tmp_path / "data", [echo]):
        pass


def test_no_key_is_made_for_a_log_that_is_not_there(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["new-key", "--data", str(tmp_path)])
    assert (run.exit_code, run.output.startswith("error: log_missing: ")) == (1, True)
    run = CliRunner().invoke(app, ["new-key", "--data", str(tmp_path / "nowhere")])
    assert (run.exit_code, run.output.startswith("error: no_log: ")) == (1, True)


async def test_what_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = await make_data(tmp_path / "data")
    assert "open to other users" not in caplog.text
    for path in (data, data / "log.db", data / "secret.key"):
        path.chmod(0o755)
    async with Service(data, [echo]):
        pass
    assert caplog.text.count("open to other users") == 3
    assert str(data / "secret.key") in caplog.text


# --- damage


def first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(4096))


def after_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(3900))


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 7)


def one_page(path: Path) -> None:
    os.truncate(path, 4096)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(first_page, ForeignDatabase), (after_the_header, LogDamaged), (one_page, LogDamaged)],
)
async def test_a_damaged_log_is_told_with_its_path_and_what_to_do(
    tmp_path: Path, damage: Callable[[Path], None], kind: type[DataDirectoryError]
) -> None:
    data = await make_data(tmp_path / "data")
    damage(data / "log.db")
    content = (data / "log.db").read_bytes()
    message = await start_refused(data, kind)
    assert str(data / "log.db") in message
    assert (data / "log.db").read_bytes() == content


@pytest.mark.parametrize("damage", [first_page, after_the_header, half, one_page])
async def test_damaged_views_are_made_anew(
    tmp_path: Path, serve: Serve, damage: Callable[[Path], None]
) -> None:
    data = await make_data(tmp_path / "data", jobs=3)
    damage(data / "views.db")
    service = await serve(echo, data=data)
    await service.views.wait_for_position(service.log.head)
    assert await service.views.counts() == {"echo": {"completed": 3}}


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE jobs",
        "DROP TABLE queue_time",
        "DELETE FROM meta",
        "UPDATE meta SET value = 'x' WHERE name = 'position'",
        "UPDATE jobs SET state = '{nope'",
        "UPDATE meta SET value = '1' WHERE name = 'position'",
    ],
)
async def test_views_that_somebody_changed_are_made_anew_once_they_fail(
    tmp_path: Path, serve: Serve, sql: str
) -> None:
    """An error with the sqlite3 shell: the service goes on after any of them."""
    data = await make_data(tmp_path / "data", jobs=3)
    with closing(sqlite3.connect(data / "views.db")) as connection, connection:
        connection.execute(sql)
    service = await serve(echo, data=data)
    job = await service.submit("echo", 1)
    assert (await service.wait(job.job_id)).status == "completed"
    await service.views.wait_for_position(service.log.head)
    assert len(await service.views.jobs({}, order="newest", cursor=None, limit=9)) == 4


# --- what cannot be used


async def test_a_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    assert "move away" in await start_refused(tmp_path / "data", DataDirectoryError)
    service = Service(tmp_path / "data" / "below", [echo])
    with pytest.raises(DataDirectoryError, match=f"{tmp_path / 'data'}: .*; move away"):
        await service.start()


async def test_a_directory_in_the_place_of_the_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "data" / "log.db" / "x").mkdir(parents=True)
    assert str(tmp_path / "data" / "log.db") in await start_refused(
        tmp_path / "data", DataDirectoryError
    )


@pytest.mark.parametrize("number", ["EACCES", "ENOSPC", "EROFS", "EIO"])
def test_what_the_system_refuses_is_told_with_the_next_step(tmp_path: Path, number: str) -> None:
    code = getattr(errno, number)
    with pytest.raises(DataDirectoryError, match=r"lock: .*; ") as error, explain_errors(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "lock"))
    assert "\n" not in error.value.message


def test_a_directory_that_may_not_be_read_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the parser of options, with how it is used."""
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    (tmp_path / "data").write_text("mine")
    run = CliRunner().invoke(app, ["serve", "--data", str(tmp_path / "data"), "--port", "0"])
    assert (run.exit_code, run.output.count("\n")) == (1, 1)
    assert run.output.startswith("error: data_directory: ")


def damage_a_page(log: Path) -> None:
    """With events on it, and not the last."""
    with log.open("r+b") as file:
        content = file.read()
        pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
        leaves = [n for n, page in enumerate(pages) if page[:1] == b"\r" and b"JobSub" in page]
        file.seek(leaves[len(leaves) // 2] * 4096)
        file.write(b"rubbish!" * 512)


@pytest.mark.parametrize("views", ["old views", "no views"])
async def test_a_damaged_page_of_the_log_costs_its_own_jobs_alone(
    tmp_path: Path, serve: Serve, views: str
) -> None:
    """They are parked, others run, and the log is read to its end."""
    data = await make_data(tmp_path / "data", jobs=20)
    await asyncio.to_thread(damage_a_page, data / "log.db")
    if views == "no views":
        (data / "views.db").unlink()
    service = await serve(echo, data=data)
    job = await service.submit("echo", 1)
    assert (await service.wait(job.job_id)).status == "completed"
    events = await service.log.read(0)
    assert [each.position for each in events] == list(range(1, service.log.head + 1))
    lost = [each for each in events if isinstance(each.event, Unreadable)]
    assert lost
    with pytest.raises(JobUnreadable, match="damaged"):
        await service.jobs.load(lost[-1].job_id)
    await service.views.wait_for_position(service.log.head)
    count, _ = await service.views.parked_events(9)
    assert count == (len(lost) if views == "no views" else 0)


async def test_jobs_that_were_queued_on_a_damaged_page_do_not_keep_the_runner_busy(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The views are of before, and offer them."""
    first = await serve(echo, concurrency=0)
    for number in range(40):
        await first.submit("echo", "x" * number * 20)
    parent = await first.submit("echo", "parent")
    await first.submit("echo", "child", parent=parent.job_id)
    await first.views.wait_for_position(first.log.head)
    await first.close()
    await asyncio.to_thread(damage_a_page, tmp_path / "data" / "log.db")
    selects = 0
    select = ClaimQueue.select

    async def count_and_select(claims: ClaimQueue, *arguments: Any) -> Any:
        nonlocal selects
        selects += 1
        return await select(claims, *arguments)

    monkeypatch.setattr(ClaimQueue, "select", count_and_select)
    service = await serve(echo)
    lost = {e.job_id for e in await service.log.read(0) if isinstance(e.event, Unreadable)}
    assert lost
    for each in await service.log.read(0):
        if each.job_id not in lost:
            assert (await service.wait(each.job_id)).status == "completed"
    await service.views.wait_for_position(service.log.head)
    begun = selects
    for _ in range(50):
        await asyncio.to_thread(str)
    assert selects - begun < 5

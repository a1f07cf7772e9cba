"""What a power cut may take: the order in which files and names are changed and synced."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from eventjobs.auth.master_key import MasterKey
from eventjobs.durability import make_directory, replace, replacement
from eventjobs.errors import LogUnavailable
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.projections import Views
from eventjobs.projections.store import Store
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.tools.replay import replay
from tests.support.clock import FakeClock
from tests.support.memory_log import MemoryLog
from tests.support.views import running
from tests.support.waiting import turns


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What Python changes and syncs under tmp_path, in order; SQLite's own calls are not in it."""
    trace: list[str] = []

    def name_of(path: Any) -> str:
        return str(Path(path).relative_to(tmp_path)) if Path(path).is_relative_to(tmp_path) else ""

    def tell(name: str, paths: Callable[..., list[Any]]) -> None:
        really = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            where = [name_of(each) for each in paths(*arguments)]
            answer = really(*arguments, **more)
            if any(where):
                trace.append(" ".join([name, *where]))
            return answer

        monkeypatch.setattr(os, name, call)

    tell("fsync", lambda descriptor: [Path(f"/proc/self/fd/{descriptor}").readlink()])
    tell("mkdir", lambda path, *_: [path])
    tell("unlink", lambda path: [path])
    tell("replace", lambda one, other: [one, other])
    return trace


def about(calls: list[str], what: str) -> list[str]:
    return [each for each in calls if what in each]


def test_the_names_of_new_folders_are_synced_before_anything_is_made_in_them(
    tmp_path: Path, calls: list[str]
) -> None:
    (tmp_path / "x").mkdir()
    calls.clear()
    make_directory(tmp_path / "x" / "a" / "b")
    assert calls == ["fsync .", "mkdir x/a", "fsync x", "mkdir x/a/b", "fsync x/a"]


def test_a_folder_that_is_found_may_have_been_made_by_a_killed_process(
    tmp_path: Path, calls: list[str]
) -> None:
    (tmp_path / "x" / "a").mkdir(parents=True)
    calls.clear()
    make_directory(tmp_path / "x" / "a")
    assert calls == ["fsync x"]


def test_a_folder_behind_a_link_is_synced_where_it_is(tmp_path: Path, calls: list[str]) -> None:
    (tmp_path / "real" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/data")
    calls.clear()
    make_directory(tmp_path / "link")
    assert calls == ["fsync real"]


def test_a_file_is_whole_on_the_disk_before_it_takes_a_name(
    tmp_path: Path, calls: list[str]
) -> None:
    (tmp_path / "new").write_bytes(b"content")
    replace(tmp_path / "new", tmp_path / "it")
    assert calls == ["fsync new", "replace new it", "fsync ."]


def test_what_could_not_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"old")
    (tmp_path / "it.new").write_bytes(b"left by a killed process")
    with suppress(RuntimeError), replacement(tmp_path / "it") as file:
        file.write(b"half")
        raise RuntimeError
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"it": b"old"}
    with replacement(tmp_path / "it") as file:
        file.write(b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"it": b"new"}


def test_a_key_that_is_found_is_on_the_disk_before_it_is_used(
    tmp_path: Path, calls: list[str]
) -> None:
    """Killed between the rename and the sync: its tokens were handed out by the next process."""
    (tmp_path / "secret.key").write_bytes(bytes(32))
    MasterKey.open(tmp_path / "secret.key")
    assert calls == ["fsync secret.key", "fsync ."]


async def test_what_a_log_holds_is_on_the_disk_before_it_is_read(
    tmp_path: Path, calls: list[str]
) -> None:
    await (await SQLiteLog.open(tmp_path / "log.db")).close()
    (tmp_path / "log.db-wal").touch()
    calls.clear()
    log = await SQLiteLog.open(tmp_path / "log.db")
    await log.close()
    assert calls == ["fsync log.db", "fsync log.db-wal", "fsync ."]


async def test_a_service_syncs_the_names_of_what_it_makes(tmp_path: Path, calls: list[str]) -> None:
    async with Service(tmp_path / "new" / "data", settings=Settings(drain_s=0)):
        pass
    begun = calls.index("mkdir new/data")
    assert calls[begun - 1 : begun + 2] == ["fsync .", "mkdir new/data", "fsync new"]
    begun = calls.index("mkdir new/data/artifacts")
    assert calls[begun + 1] == "fsync new/data"


@pytest.mark.parametrize("name", ["log.db", "log.db-wal", "."])
async def test_a_log_that_cannot_be_put_on_the_disk_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    await (await SQLiteLog.open(tmp_path / "log.db")).close()
    (tmp_path / "log.db-wal").touch()
    failing_at(tmp_path / name, errno.EIO, monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        await SQLiteLog.open(tmp_path / "log.db")


def failing_at(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == path:
            raise OSError(number, os.strerror(number))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


async def test_a_file_system_that_cannot_sync_folders_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_at(tmp_path, errno.EINVAL, monkeypatch)
    async with Service(tmp_path, settings=Settings(drain_s=0)):
        pass
    failing_at(tmp_path / "log.db", errno.EINVAL, monkeypatch)
    with pytest.raises(OSError, match="Invalid argument"):
        await SQLiteLog.open(tmp_path / "log.db")


# --- views


@asynccontextmanager
async def empty_views(folder: Path) -> AsyncIterator[Views]:
    clock = FakeClock()
    async with running(folder / "views.db", MemoryLog(clock), clock) as views:
        yield views


def is_in_order(calls: list[str], new: str) -> bool:
    """No -wal is left, on the disk, when another file takes the name of the views."""
    taken = calls.index(f"replace {new} views.db")
    before = about(calls[:taken], "unlink views.db")
    return calls[taken - 1] == f"fsync {new}" and not any(
        about(calls[index:taken], "fsync .") == []
        for index, each in enumerate(calls[:taken])
        if each in before and not each.endswith("-shm")
    )


async def test_old_views_are_gone_for_good_before_rebuilt_ones_take_their_place(
    tmp_path: Path, calls: list[str]
) -> None:
    """The -wal of the old ones was played over them at a power cut: jobs went back in time."""
    async with empty_views(tmp_path) as views:
        calls.clear()
        await views.rebuild()
    assert is_in_order(calls, "views.db.new"), calls


async def test_views_that_are_not_of_this_log_are_gone_for_good_before_new_ones_are_made(
    tmp_path: Path, calls: list[str]
) -> None:
    store = await Store.open(tmp_path / "views.db", "one log", 0)
    await store.close()
    async with empty_views(tmp_path):
        pass
    first = calls.index("unlink views.db")
    assert calls[first : first + 2] == ["unlink views.db", "fsync ."]


async def test_who_waits_for_views_that_are_closed_is_told(tmp_path: Path) -> None:
    """A last event of a service that closed was never applied: its watchers waited for ever."""
    async with empty_views(tmp_path) as views:
        waiting = asyncio.create_task(views.wait_for_position(1))
        await turns()
    with pytest.raises(LogUnavailable):
        await waiting
    with pytest.raises(LogUnavailable):
        await views.wait_for_position(1)


async def test_what_a_rebuild_that_was_cut_off_has_left_is_removed(tmp_path: Path) -> None:
    """It is as large as the views, and was there until the next rebuild."""
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"views.db.new{suffix}").write_bytes(b"half")
    async with empty_views(tmp_path):
        assert [*tmp_path.glob("*.new*")] == []


async def test_a_wal_without_its_views_is_gone_for_good_before_new_ones_are_made(
    tmp_path: Path, calls: list[str]
) -> None:
    (tmp_path / "views.db-wal").write_bytes(b"of views that a cut has taken")
    await (await Store.open(tmp_path / "views.db", "log", 0)).close()
    assert calls == ["unlink views.db-wal", "fsync ."]


async def test_views_that_could_not_be_checkpointed_take_no_place(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a closed file may have what is in its -wal alone. The live views go on."""
    async with empty_views(tmp_path) as views:
        really_close = Store.close

        async def close(store: Store) -> None:
            await really_close(store)
            if store.path.name == "views.db.new":
                await asyncio.to_thread((tmp_path / "views.db.new-wal").write_bytes, b"left")

        monkeypatch.setattr(Store, "close", close)
        calls.clear()
        with pytest.raises(OSError, match="checkpointed"):
            await views.rebuild()
        assert about(calls, " views.db") == ["unlink views.db.new", "unlink views.db.new-wal"]
        assert await views.counts() == {}


async def test_a_replay_puts_new_views_in_place_in_the_same_order(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Service(tmp_path, settings=Settings(drain_s=0)):
        pass
    (tmp_path / "views.db-wal").touch()
    calls.clear()
    await asyncio.to_thread(replay, tmp_path, lambda position, until: None)
    assert is_in_order(calls, "views.db.new"), calls

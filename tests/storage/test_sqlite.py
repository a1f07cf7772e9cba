"""SQLite files are opened one way: ours alone, private, all or nothing."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventjobs.errors import DatabaseTooNew, DataDirectoryError, DirectoryLocked, ForeignDatabase
from eventjobs.storage.sqlite import (
    APPLICATION_ID,
    connect,
    create_private_file,
    fetch_value,
    initialize,
    lock_directory,
    transaction,
)

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
CREATE TABLE numbers (number INTEGER PRIMARY KEY) STRICT;
"""
ADD = "INSERT INTO numbers VALUES (?1)"
COUNT = "SELECT count(*) FROM numbers"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "test.db"
    create_private_file(path)
    return path


# --- claiming


async def test_an_empty_file_becomes_ours_and_stays_it(path: Path) -> None:
    connection = await connect(path)
    assert await initialize(connection, SCHEMA, 1)
    assert not await initialize(connection, SCHEMA, 1)
    await connection.close()
    connection = await connect(path)
    assert not await initialize(connection, SCHEMA, 1)
    await connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (name)")
    connection.close()


def foreign_wal(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE photos (name)")
    connection.close()


def foreign_crashed(path: Path) -> None:
    """Its newest commit is in the WAL alone, as when its program was killed."""
    code = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE photos (name)")
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size > 0


def foreign_and_empty(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 42")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA + "PRAGMA user_version = 2;")
    connection.close()


REFUSED: list[tuple[Callable[[Path], object], type[DataDirectoryError]]] = [
    (foreign, ForeignDatabase),
    (foreign_wal, ForeignDatabase),
    (foreign_crashed, ForeignDatabase),
    (foreign_and_empty, ForeignDatabase),
    (newer, DatabaseTooNew),
    (lambda path: path.write_bytes(os.urandom(5000)), ForeignDatabase),
    (lambda path: path.write_bytes(b"SQLite format 3\0" + os.urandom(5000)), ForeignDatabase),
    (lambda path: path.write_text("a letter"), ForeignDatabase),
]
IDS = [
    "foreign",
    "foreign WAL",
    "foreign, crashed",
    "foreign, no tables",
    "newer",
    "random",
    "random after the magic",
    "text",
]


@pytest.mark.parametrize(("make", "error"), REFUSED, ids=IDS)
async def test_what_is_not_ours_is_refused_and_left_as_it_was(
    path: Path, make: Callable[[Path], object], error: type[DataDirectoryError]
) -> None:
    make(path)
    before = contents(path.parent)
    with pytest.raises(error):
        await open_as_ours(path)
    assert contents(path.parent) == before


async def open_as_ours(path: Path) -> None:
    create_private_file(path)
    connection = await connect(path)
    try:
        await initialize(connection, SCHEMA, 1)
    finally:
        await connection.close()


def contents(directory: Path) -> dict[str, bytes]:
    """What is in each file; the -shm file holds nothing but locks and an index of the WAL."""
    files = (each for each in directory.iterdir() if not each.name.endswith("-shm"))
    return {each.name: each.read_bytes() for each in files}


async def test_a_claim_is_all_or_nothing(path: Path) -> None:
    connection = await connect(path)
    with pytest.raises(sqlite3.OperationalError):
        await initialize(connection, SCHEMA + "CREATE NONSENSE;", 1)
    await connection.close()
    connection = await connect(path)
    assert await initialize(connection, SCHEMA, 1)
    await connection.close()


# --- connections


async def test_every_connection_guards_against_replace_and_strangers_schemas(path: Path) -> None:
    for read_only in (False, True):
        connection = await connect(path, read_only=read_only)
        assert await fetch_value(connection, "PRAGMA recursive_triggers") == 1
        assert await fetch_value(connection, "PRAGMA trusted_schema") == 0
        assert await fetch_value(connection, "PRAGMA busy_timeout") == 5000
        await connection.close()


async def test_a_read_only_connection_neither_writes_nor_checkpoints(path: Path) -> None:
    writer = await connect(path)
    await initialize(writer, SCHEMA, 1)
    reader = await connect(path, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await reader.execute_fetchall(ADD, (1,))
    assert await fetch_value(reader, "PRAGMA wal_autocheckpoint") == 0
    await reader.close()
    await writer.close()


async def test_a_missing_file_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await connect(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


async def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "50% #1? ü.db"
    create_private_file(path)
    connection = await connect(path)
    assert await initialize(connection, SCHEMA, 1)
    await connection.close()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_forgotten_connection_does_not_keep_the_interpreter_from_exiting(path: Path) -> None:
    code = f"""
import asyncio, pathlib
from eventjobs.storage.sqlite import connect
asyncio.run(connect(pathlib.Path({str(path)!r})))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


# --- transactions


async def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    connection = await connect(path)
    await initialize(connection, SCHEMA, 1)
    with pytest.raises(sqlite3.IntegrityError):
        await transaction(connection, [(ADD, (1,)), (ADD, (1,))])
    assert await fetch_value(connection, COUNT) == 0
    await transaction(connection, [(ADD, (1,)), (ADD, (2,))])
    assert await fetch_value(connection, COUNT) == 2
    await connection.close()


async def test_a_cancelled_transaction_leaves_none_open(path: Path) -> None:
    connection = await connect(path)
    await initialize(connection, SCHEMA, 1)
    for number in range(0, 60, 2):
        adding = asyncio.create_task(
            transaction(connection, [(ADD, (number,)), (ADD, (number + 1,))])
        )
        for _ in range(number % 5):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.wait({adding})
        # The connection's thread answers when it is done with what was cancelled.
        assert await fetch_value(connection, COUNT) % 2 == 0, "half a transaction"
        assert not connection.in_transaction
    await connection.close()


# --- files


def test_a_private_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_private_file(tmp_path / "a.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o600


def test_a_private_file_that_is_there_keeps_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("held")
    create_private_file(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_text() == "held"


# --- the lock

LOCK = """
import os, pathlib, sys
from eventjobs.storage.sqlite import lock_directory
from eventjobs.errors import DirectoryLocked
try:
    lock_directory(pathlib.Path(sys.argv[1]))
except DirectoryLocked as error:
    sys.exit(error.message)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def locker(directory: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", LOCK, str(directory)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_second_process_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    descriptor = lock_directory(tmp_path / "data")
    with locker(tmp_path / "data") as second:
        _, errors = second.communicate()
    assert second.returncode == 1
    assert f"process {os.getpid()} is writing" in errors
    os.close(descriptor)


def test_a_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    with locker(tmp_path) as holder:
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        with pytest.raises(DirectoryLocked, match=f"process {pid} is writing"):
            lock_directory(tmp_path)
        holder.kill()
    os.close(lock_directory(tmp_path))


def test_a_directory_is_locked_within_one_process_too(tmp_path: Path) -> None:
    descriptor = lock_directory(tmp_path)
    with pytest.raises(DirectoryLocked):
        lock_directory(tmp_path)
    os.close(descriptor)
    os.close(lock_directory(tmp_path))


def test_a_data_directory_is_made_private(tmp_path: Path) -> None:
    os.close(lock_directory(tmp_path / "a" / "data"))
    assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "data" / "lock").stat().st_mode) == 0o600

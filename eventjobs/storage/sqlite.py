"""Opening SQLite files the one way this project does: ours, private, one writer."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite

from eventjobs.concurrency import forks
from eventjobs.durability import sync
from eventjobs.errors import DatabaseTooNew, DirectoryLocked, ForeignDatabase

#: "ejob": says in the file's header that it is ours.
APPLICATION_ID = 0x656A6F62

#: For the only connection there is: the index of its -wal is in memory, and needs no file.
EXCLUSIVE = ("PRAGMA locking_mode = EXCLUSIVE",)
#: With less than this, next to nothing can be written.
FREE_BYTES_MIN = 131_072

_COMMON = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
)


async def connect(path: Path, *pragmas: str, read_only: bool = False) -> aiosqlite.Connection:
    """A connection with its own thread, in autocommit mode: each statement is a transaction.

    A read-only one never checkpoints: with one connection that both commits and checkpoints,
    the WAL-reset bug of SQLite up to 3.51.2 has no second party.
    """
    mode = "?mode=ro" if read_only else "?mode=rw"
    connection = aiosqlite.connect(
        _uri(path) + mode, uri=True, isolation_level=None, cached_statements=64
    )
    # A connection somebody forgot must not keep the interpreter from exiting.
    connection._thread.daemon = True
    try:
        await connection
    except BaseException:
        # Its thread answers the loop once more: a loop that ends now would make it raise.
        await asyncio.to_thread(connection._thread.join)
        raise
    try:
        only = ("PRAGMA query_only = ON", "PRAGMA wal_autocheckpoint = 0") if read_only else ()
        for pragma in (*_COMMON, *only, *pragmas):
            await connection.execute_fetchall(pragma)
    except BaseException:
        await connection.close()
        raise
    return connection


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


async def initialize(connection: aiosqlite.Connection, schema: str, version: int) -> bool:
    """Make an empty database ours; True when it was empty. Refuses one that is not.

    *schema* sets application_id and user_version itself, so that they come with the tables.
    Raises NotOurs, TooNew, sqlite3.Error; nothing is written to a file that is refused.
    """
    try:
        ours = await fetch_value(connection, "PRAGMA application_id")
        found = await fetch_value(connection, "PRAGMA user_version")
        tables = await fetch_value(connection, "SELECT count(*) FROM sqlite_schema")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ForeignDatabase(f"this is not a database: {error}") from error
        raise  # a disk that fails, and a page that is spoilt, say nothing about whose it is
    if ours != APPLICATION_ID and (tables or ours):
        raise ForeignDatabase
    if found > version:
        raise DatabaseTooNew(f"the database has schema {found}; this eventjobs knows {version}")
    if tables:
        return False
    await connection.executescript("BEGIN IMMEDIATE;" + schema + "COMMIT;")
    return True


async def fetch_value(connection: aiosqlite.Connection, sql: str, *parameters: Any) -> Any:
    """The first column of the only row."""
    [row] = await connection.execute_fetchall(sql, parameters)
    return row[0]


async def transaction(
    connection: aiosqlite.Connection, statements: Sequence[tuple[str, tuple[Any, ...]]]
) -> None:
    """Run *statements* as one transaction, all or nothing.

    One trip to the connection's thread: a task cancelled between two of them could otherwise
    leave a transaction open, and every trip costs some 70 µs.
    """

    def run() -> None:
        connection._conn.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in statements:
                connection._conn.execute(sql, parameters)
            connection._conn.execute("COMMIT")
        except BaseException:
            if connection._conn.in_transaction:
                connection._conn.execute("ROLLBACK")
            raise

    await connection._execute(run)  # type: ignore[no-untyped-call]


def may_be_disk_full(error: sqlite3.Error) -> bool:
    """Whether *error* may be because the disk is full: SQLite has several for it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
    )


def is_full(directory: Path) -> bool:
    """Whether its disk has hardly any room. Blocks."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize < FREE_BYTES_MIN


def create_private_file(path: Path) -> None:
    """Create *path* readable by its owner alone; SQLite gives -wal and -shm the same mode.

    Raises NotOurs for somebody else's database. SQLite is not asked, because closing it would
    checkpoint it. Nothing of this process may have *path* open: closing a file drops its locks.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    header = os.pread(descriptor, 72, 0)
    os.close(descriptor)
    if header.startswith(b"SQLite format 3\0") and header[68:] != APPLICATION_ID.to_bytes(4):
        raise ForeignDatabase(
            f"{path}: this database was not made by eventjobs; use another directory"
        )


def sync_database(path: Path) -> None:
    """Put on the disk what the database *path* holds, before anything is read from it. Blocks.

    A process that was killed between the write and the sync of a commit has left it in the page
    cache: SQLite reads it back, and syncs it with the next commit only. This needs no room on the
    disk. Nothing of this process may have *path* open. Raises OSError.
    """
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            sync(each)
    sync(path.parent)


def lock_directory(directory: Path) -> int:
    """Hold *directory* for this process until the descriptor is closed. Raises DirectoryLocked.

    A process that is forked from this one does not hold it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise DirectoryLocked(
            f"process {holder or 'unknown'} is writing to {directory}; "
            "stop it, or use another data directory"
        ) from error
    # The lock belongs to the open file, which a forked child would share.
    forks.close_in_children(descriptor)
    with suppress(OSError):  # a full disk: who holds it is of use to people only
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return descriptor

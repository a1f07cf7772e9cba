"""Opens SQLite files: marked as those of eventjobs, private, with one writer."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite

from eventjobs.concurrency import forks
from eventjobs.durability import sync
from eventjobs.errors import DatabaseTooNew, DirectoryLocked, ForeignDatabase

#: "ejob": marks the file as one of eventjobs.
APPLICATION_ID = 0x656A6F62

#: For an only connection: the index of its -wal is in memory, not in a file.
EXCLUSIVE = ("PRAGMA locking_mode = EXCLUSIVE",)
#: A disk with less free space counts as full.
FREE_BYTES_MIN = 131_072

_COMMON = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
)


async def connect(path: Path, *pragmas: str, read_only: bool = False) -> aiosqlite.Connection:
    """A connection with its own thread, in autocommit mode: each statement is a transaction.

    A read-only one never checkpoints. The WAL-reset bug of SQLite up to 3.51.2 needs a checkpoint
    by a connection other than the one that commits.
    """
    mode = "?mode=ro" if read_only else "?mode=rw"
    connection = aiosqlite.connect(
        _uri(path) + mode, uri=True, isolation_level=None, cached_statements=64
    )
    # A connection that was not closed must not keep the interpreter from exiting.
    connection._thread.daemon = True
    try:
        await connection
    except BaseException:
        # The thread calls into the loop once more, and would raise if the loop had ended.
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
    """Create the tables of an empty database. Whether it was empty.

    *schema* sets application_id and user_version, in the transaction that creates the tables.
    Raises ForeignDatabase, DatabaseTooNew, sqlite3.Error. A refused file is not written to.
    """
    try:
        application_id = await fetch_value(connection, "PRAGMA application_id")
        schema_version = await fetch_value(connection, "PRAGMA user_version")
        tables = await fetch_value(connection, "SELECT count(*) FROM sqlite_schema")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ForeignDatabase(f"this is not a database: {error}") from error
        raise  # a failing disk or a damaged page does not show whose file it is
    if application_id != APPLICATION_ID and (tables or application_id):
        raise ForeignDatabase
    if schema_version > version:
        raise DatabaseTooNew(
            f"the database has schema {schema_version}; this eventjobs knows {version}"
        )
    if tables:
        return False
    await connection.executescript("BEGIN IMMEDIATE;" + schema + "COMMIT;")
    return True


async def fetch_value(connection: aiosqlite.Connection, sql: str, *parameters: Any) -> Any:
    """The first column of the only row."""
    [row] = await connection.execute_fetchall(sql, parameters)
    return row[0]


async def transaction(
    connection: aiosqlite.Connection, statements: Iterable[tuple[str, tuple[Any, ...]]]
) -> list[Any]:
    """Run *statements* as one transaction, in one call of the connection's thread. Returns the
    values of those that return a row of one column.

    With a call for each, a cancelled task could leave the transaction open. A call costs 70 µs.
    """

    def run() -> list[Any]:
        values = []
        connection._conn.execute("BEGIN IMMEDIATE")
        try:
            for sql, parameters in statements:
                if (row := connection._conn.execute(sql, parameters).fetchone()) is not None:
                    values.append(row[0])
            connection._conn.execute("COMMIT")
        except BaseException:
            if connection._conn.in_transaction:
                connection._conn.execute("ROLLBACK")
            raise
        return values

    result: list[Any] = await connection._execute(run)  # type: ignore[no-untyped-call]
    return result


def may_be_disk_full(error: sqlite3.Error) -> bool:
    """Whether a full disk may be the cause of *error*: SQLite has several codes for that."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
    )


def is_full(directory: Path) -> bool:
    """Whether the disk of *directory* has less than FREE_BYTES_MIN. Blocks."""
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize < FREE_BYTES_MIN


def create_private_file(path: Path) -> None:
    """Create *path* readable by its owner alone; SQLite gives -wal and -shm the same mode.

    Raises ForeignDatabase for a database of another program. It is not opened by SQLite, which
    would checkpoint it. This process must not have *path* open: closing a file drops its locks.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    header = os.pread(descriptor, 72, 0)
    os.close(descriptor)
    if header.startswith(b"SQLite format 3\0") and header[68:] != APPLICATION_ID.to_bytes(4):
        raise ForeignDatabase(
            f"{path}: this database was not made by eventjobs; use another directory"
        )


def sync_database(path: Path) -> None:
    """Sync the database *path*, before anything is read from it. Blocks. Raises OSError.

    A process that was killed between the write and the sync of a commit has left it in the page
    cache. SQLite reads it back, and syncs it only with the next commit. A sync needs no free space
    on the disk. This process must not have *path* open.
    """
    for file in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            sync(file)
    sync(path.parent)


def lock_directory(directory: Path) -> int:
    """Lock *directory* for this process. Closing the returned descriptor unlocks it.

    A forked child does not hold the lock. Raises DirectoryLocked.
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
    # A forked child shares the open file, and with it the lock.
    forks.close_in_children(descriptor)
    with suppress(OSError):  # on a full disk: only the error message above needs the number
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return descriptor

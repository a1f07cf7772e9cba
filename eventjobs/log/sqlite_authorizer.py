"""The log's writing connection, and what it may do once it is open."""

import sqlite3
from pathlib import Path

import aiosqlite

from eventjobs.errors import DatabaseTooNew, ForeignDatabase
from eventjobs.storage.sqlite import ALONE, claim, connect

#: All that the writer does once it is open: no schema, no pragma, nothing temporary or attached.
_ALLOWED = {
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_TRANSACTION,
}
_WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE}
# SQLite asks for sqlite_master when it declares json_each; it writes there for nobody unless the
# pragma writable_schema is on.
_WRITTEN = {"events", "meta", "sqlite_master"}


def authorize(
    action: int, one: str | None, two: str | None, base: str | None, trigger: str | None
) -> int:
    """The triggers guard the rows; this guards the triggers, and recursive_triggers with them."""
    if action in _ALLOWED or (action in _WRITES and one in _WRITTEN):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


async def connect_writer(
    path: Path, schema: str, version: int, *, alone: bool = False
) -> aiosqlite.Connection:
    """The connection that commits and checkpoints; *alone* it is the only one that there may be.

    Raises NotOurs, TooNew, sqlite3.Error.
    """
    connection = await connect(path, *(ALONE if alone else ()))
    try:
        try:
            await claim(connection, schema, version)
        except (ForeignDatabase, DatabaseTooNew) as error:
            raise type(error)(f"{path}: {error.message}") from error
        for pragma in (
            "PRAGMA journal_mode = WAL",
            # NORMAL would lose acknowledged events at a power cut; group commit pays for FULL.
            "PRAGMA synchronous = FULL",
            "PRAGMA wal_autocheckpoint = 4000",
            "PRAGMA journal_size_limit = 67108864",
        ):
            await connection.execute_fetchall(pragma)
        await connection.set_authorizer(authorize)
    except BaseException:
        await connection.close()
        raise
    return connection

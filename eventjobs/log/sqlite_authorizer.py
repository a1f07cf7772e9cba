"""The log's writing connection, which an authorizer limits to appends."""

import sqlite3
from importlib.resources import files
from pathlib import Path

import aiosqlite

from eventjobs.errors import DatabaseTooNew, ForeignDatabase
from eventjobs.storage.sqlite import EXCLUSIVE, connect, initialize

SCHEMA_VERSION = 1
SCHEMA = files("eventjobs.log").joinpath("sqlite.sql").read_text()

#: No change of schema, no pragma, nothing temporary or attached.
_ALLOWED_ACTIONS = {
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_TRANSACTION,
}
_WRITE_ACTIONS = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE}
# SQLite checks an update of sqlite_master when it declares json_each. A real one needs the pragma
# writable_schema, which is refused.
_WRITABLE_TABLES = {"events", "meta", "sqlite_master"}


def authorize(
    action: int, table: str | None, column: str | None, base: str | None, trigger: str | None
) -> int:
    """Whether SQLite may do *action*. Protects the triggers, which protect the rows."""
    if action in _ALLOWED_ACTIONS or (action in _WRITE_ACTIONS and table in _WRITABLE_TABLES):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


async def connect_writer(path: Path, *, alone: bool = False) -> aiosqlite.Connection:
    """A connection that commits and checkpoints. With *alone* no other one can be opened.

    Raises ForeignDatabase, DatabaseTooNew, sqlite3.Error.
    """
    connection = await connect(path, *(EXCLUSIVE if alone else ()))
    try:
        try:
            await initialize(connection, SCHEMA, SCHEMA_VERSION)
        except (ForeignDatabase, DatabaseTooNew) as error:
            raise type(error)(f"{path}: {error.message}") from error
        for pragma in (
            "PRAGMA journal_mode = WAL",
            # NORMAL loses acknowledged events at a power cut. Group commit makes FULL affordable.
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

"""What the log's writing connection may do once it is open."""

import sqlite3

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

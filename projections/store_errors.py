"""Errors of a views file: transient, caused by an event, or cured by a rebuild."""

import sqlite3

#: Errors of SQLite that end by themselves, or when the disk has space again.
_TRANSIENT_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


class StaleViews(Exception):
    """The file was made from another log, or by other versions of the projections."""


def is_transient(error: Exception) -> bool:
    """Whether the same operation on the same file may succeed later."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError | MemoryError) or (
        code is not None and code & 0xFF in _TRANSIENT_CODES
    )


def blames_event(error: Exception) -> bool:
    """Whether *error*, raised while a sound file was written, is caused by an event."""
    if not isinstance(error, sqlite3.Error):
        return not is_transient(error)
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_ERROR and "no such" not in str(error)
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)

"""The data directory: the names of its files, its lock and its permissions."""

import asyncio
import errno
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventjobs.durability import make_directory
from eventjobs.errors import DataDirectoryError, LogDamaged, LogMissing
from eventjobs.storage.sqlite import is_full, lock_directory, may_be_disk_full

#: The log, the views, the secret key, the files of jobs, who uploaded them, and temporary files of
#: handlers.
LOG, VIEWS, KEY = "log.db", "views.db", "secret.key"
ARTIFACTS, UPLOADS, SCRATCH = "artifacts", "uploads", "scratch"
#: When API keys were last used. It may be missing.
LAST_USES = "last_uses.json"


async def lock(data: Path) -> int:
    """Lock the directory *data*, made when missing, until the returned descriptor is closed.

    Raises DataDirectoryError, and DirectoryLocked when another process has locked it.
    """
    with explain_errors(data):
        await asyncio.to_thread(make_directory, data)
        return lock_directory(data)


def check_log_exists(data: Path) -> None:
    """Raises LogMissing when *data* has no log but files that belong to one. Blocks."""
    log = data / LOG
    if has_content(log):
        return
    belonging = (f"{LOG}-wal", VIEWS, KEY, ARTIFACTS, UPLOADS)
    if present := [name for name in belonging if has_content(data / name)]:
        raise LogMissing(
            f"{log} is missing beside {', '.join(present)}: put it back from a backup; "
            "to begin a new log, move them away, or use another data directory"
        )


def has_content(path: Path) -> bool:
    """Whether *path* is a file with content, or a directory with files. Blocks."""
    if path.is_dir():
        return any(each.name != "incoming" for each in path.iterdir())
    return path.exists() and path.stat().st_size > 0


def paths_open_to_others(data: Path) -> list[str]:
    """The paths that users other than the owner can read or write. Blocks."""
    others = stat.S_IRWXG | stat.S_IRWXO
    paths = (data, data / LOG, data / KEY)
    return [str(path) for path in paths if path.exists() and path.stat().st_mode & others]


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turns OSError and sqlite3.Error into a DataDirectoryError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unusable_database(path, error) from error
    except OSError as error:
        name = error.filename or path
        raise DataDirectoryError(f"{name}: {error.strerror or error}; {_advice(error)}") from error


def _unusable_database(path: Path, error: sqlite3.Error) -> DataDirectoryError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LogDamaged(
            f"{path} is damaged ({error}): put it back from a backup; what can still be read of "
            f"it, `sqlite3 {path} .recover` shows"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DataDirectoryError(f"another program holds {path}; end it, and start again")
    with suppress(OSError):
        if may_be_disk_full(error) and is_full(path.parent):
            return DataDirectoryError(f"the disk of {path} is full; make room, and start again")
    return DataDirectoryError(f"{path} cannot be used: {error}; look at its disk and permissions")


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return "make room on the disk, and start again"
        case errno.EACCES | errno.EPERM:
            return "give this user the right to read and write it, or use another data directory"
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            return "move away the file of that name, or use another data directory"
        case errno.EROFS:
            return "mount it for writing, or use another data directory"
        case _:
            return "look at the disk, or use another data directory"

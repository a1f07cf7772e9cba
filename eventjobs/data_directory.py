"""The data directory: its files belong together, and to their owner alone."""

import asyncio
import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import Clock
from eventjobs.durability import make_directory
from eventjobs.errors import (
    DataDirectoryError,
    LogDamaged,
    LogMissing,
    LogReplaced,
    SecretKeyMissing,
)
from eventjobs.log.sqlite import LOG_ID, SQLiteLog
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.settings import Settings
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.sqlite import connect, fetch_value, is_full, lock_directory, may_be_disk_full

LOG, VIEWS, KEY, ARTIFACTS = "log.db", "views.db", "secret.key", "artifacts"

#: The name under which the log keeps which secret key is its own.
KEY_MARK = "secret_key"


@contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Tell what keeps *path*, or what is in it, from being used, and what to do about it.

    Raises DataDirectoryError in the place of OSError and sqlite3.Error.
    """
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
            return "move away what is there, or use another data directory"
        case errno.EROFS:
            return "mount it for writing, or use another data directory"
        case _:
            return "look at the disk, or use another data directory"


def check_log_exists(data: Path) -> None:
    """Raises LogMissing where there is no log, but what belonged to one. Blocks."""
    log = data / LOG
    if _has_content(log):
        return
    others = (f"{LOG}-wal", VIEWS, KEY, ARTIFACTS)
    if there := [name for name in others if _has_content(data / name)]:
        raise LogMissing(
            f"{log} is not there, but {', '.join(there)} beside it: put it back from a backup; "
            "to begin a new log, move them away, or use another data directory"
        )


def _has_content(path: Path) -> bool:
    if path.is_dir():
        return any(each.name != "incoming" for each in path.iterdir())
    return path.exists() and path.stat().st_size > 0


async def check_views(data: Path, log: SQLiteLog) -> None:
    """Raises LogReplaced where the views were made from another log."""
    path = data / VIEWS
    if not await asyncio.to_thread(path.is_file):
        return
    try:
        connection = await connect(path, read_only=True)
        try:
            log_id = await fetch_value(connection, LOG_ID)
        finally:
            await connection.close()
    except (sqlite3.Error, ValueError):
        return  # of no use, and made anew
    if log_id != log.log_id:
        raise LogReplaced(
            f"{data / LOG} is not the log that {VIEWS} was made from: put the right one back from "
            f"a backup; if this one is right, delete {path}, which is made anew"
        )


async def open_keys(data: Path, log: SQLiteLog) -> MasterKey:
    """The secret key of *log*, made with an empty one.

    Raises SecretKeyMissing, LogReplaced, SecretKeyUnusable, OSError, sqlite3.Error.
    """
    path = data / KEY
    lost = f"if it is lost, `eventjobs new-key --data {data}` makes another"
    if log.head and not await asyncio.to_thread(path.exists):
        raise SecretKeyMissing(
            f"{path} is not there, but the log has events: put it back from a backup; {lost}"
        )
    keys = await asyncio.to_thread(MasterKey.open, path)
    mark = keys.fingerprint
    known = await log.meta(KEY_MARK)
    if log.head and known not in (None, mark):
        raise LogReplaced(
            f"{path} is the key of another log: put the right key, or the right log, back; {lost}"
        )
    if known != mark:
        with suppress(sqlite3.Error):  # a full disk; the next start does it
            await log.set_meta(KEY_MARK, mark)
    return keys


async def renew_key(data: Path) -> Path:
    """Give the log in *data*, which no service has open, a new secret key; the path of its file.

    What was derived from the old one is worth nothing any more. Raises DataDirectoryError.
    """
    held = await lock(data)
    try:
        with explain_errors(data):
            if not await asyncio.to_thread(_has_content, data / LOG):
                raise LogMissing(f"there is no log in {data}; a service makes both")
            log = await SQLiteLog.open(data / LOG)
            try:
                await asyncio.to_thread((data / KEY).unlink, missing_ok=True)
                keys = await asyncio.to_thread(MasterKey.open, data / KEY)
                await log.set_meta(KEY_MARK, keys.fingerprint)
            finally:
                await log.close()
    finally:
        os.close(held)
    return data / KEY


async def lock(data: Path) -> int:
    """Hold *data*, which is made when it is not there. Raises DataDirectoryError."""
    with explain_errors(data):
        await asyncio.to_thread(make_directory, data)
        return lock_directory(data)


class OpenFiles(NamedTuple):
    """What a service has open in its data directory."""

    log: SQLiteLog
    keys: MasterKey
    artifacts: Artifacts
    views: Views


async def open_files(settings: Settings, clock: Clock) -> OpenFiles:
    """Open what is in the data directory, which is locked. Raises DataDirectoryError.

    The log is made before anything else: where anything is, a log must be.
    """
    data = settings.data
    with explain_errors(data):
        await asyncio.to_thread(check_log_exists, data)
    with explain_errors(data / LOG):
        log = await SQLiteLog.open(data / LOG, clock, waiting_max=settings.log_waiting_max)
    try:
        with explain_errors(data):
            await check_views(data, log)
            keys = await open_keys(data, log)
            artifacts = Artifacts(data / ARTIFACTS, settings.artifact_bytes_max)
            await asyncio.to_thread(artifacts.prepare)
            # What the processes of a service that was killed have left.
            await asyncio.to_thread(shutil.rmtree, data / "scratch", ignore_errors=True)
            for path in await asyncio.to_thread(paths_open_to_others, data):
                get_logger("eventjobs").warning("open to other users", path=path)
        return OpenFiles(log, keys, artifacts, await Views.open(data / VIEWS, log, clock))
    except BaseException:
        await log.close()
        raise


def paths_open_to_others(data: Path) -> list[str]:
    """What users other than the owner can read or write. Blocks."""
    others = stat.S_IRWXG | stat.S_IRWXO
    paths = (data, data / LOG, data / KEY)
    return [str(path) for path in paths if path.exists() and path.stat().st_mode & others]

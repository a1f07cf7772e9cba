"""Opens the files of a service: the log, and the secret key and the views that belong to it."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.master_key import MasterKey
from eventjobs.clock import Clock, SystemClock
from eventjobs.commands.api_keys import APIKeys
from eventjobs.commands.jobs import Jobs
from eventjobs.errors import LogMissing, LogReplaced, SecretKeyMissing
from eventjobs.log.sqlite import LOG_ID, SQLiteLog
from eventjobs.observability.logging import get_logger
from eventjobs.projections import Views
from eventjobs.settings import Settings
from eventjobs.storage.artifacts import Artifacts
from eventjobs.storage.data_directory import (
    ARTIFACTS,
    KEY,
    LAST_USES,
    LOG,
    SCRATCH,
    VIEWS,
    check_log_exists,
    explain_errors,
    has_content,
    lock,
    paths_open_to_others,
)
from eventjobs.storage.last_uses import LastUses
from eventjobs.storage.sqlite import connect, fetch_value

#: The name under which the log stores the mark of its secret key.
KEY_MARK = "secret_key"


class OpenFiles(NamedTuple):
    """The open files of a service."""

    log: SQLiteLog
    master_key: MasterKey
    artifacts: Artifacts
    views: Views


async def open_files(settings: Settings, clock: Clock) -> OpenFiles:
    """Open the files in the data directory, which is locked. Raises DataDirectoryError.

    The log is created first: a directory with other files must have a log.
    """
    data = settings.data
    with explain_errors(data):
        await asyncio.to_thread(check_log_exists, data)
    with explain_errors(data / LOG):
        log = await SQLiteLog.open(data / LOG, clock, waiting_max=settings.log_waiting_max)
    try:
        with explain_errors(data):
            await check_views(data, log)
            key = await open_master_key(data, log)
            artifacts = Artifacts(data / ARTIFACTS, settings.artifact_bytes_max)
            await asyncio.to_thread(artifacts.prepare)
            # Left by the handlers' processes of a service that was killed.
            await asyncio.to_thread(shutil.rmtree, data / SCRATCH, ignore_errors=True)
            for path in await asyncio.to_thread(paths_open_to_others, data):
                get_logger("eventjobs").warning("open to other users", path=path)
        return OpenFiles(log, key, artifacts, await Views.open(data / VIEWS, log, clock))
    except BaseException:
        await log.close()
        raise


@asynccontextmanager
async def _open_stopped(settings: Settings, clock: Clock) -> AsyncIterator[OpenFiles]:
    """The files in the data directory, which no service has open. Raises DataDirectoryError."""
    async with AsyncExitStack() as stack:
        stack.callback(os.close, await lock(settings.data))
        files = await open_files(settings, clock)
        stack.push_async_callback(files.log.close)
        stack.push_async_callback(files.views.close)
        yield files


@asynccontextmanager
async def open_jobs(settings: Settings) -> AsyncIterator[Jobs]:
    """The jobs in the data directory, which no service has open. It is made when missing.

    Raises DataDirectoryError.
    """
    clock = SystemClock()
    async with _open_stopped(settings, clock) as files:
        yield Jobs(files.log, clock)  # the next service brings the views up to date


@asynccontextmanager
async def open_api_keys(settings: Settings) -> AsyncIterator[APIKeys]:
    """The API keys in the data directory, which no service has open. It is made when missing.

    Raises DataDirectoryError.
    """
    clock = SystemClock()
    async with _open_stopped(settings, clock) as files, AsyncExitStack() as stack:
        following = asyncio.create_task(files.views.run(), name="views")
        stack.push_async_callback(asyncio.wait, {following})
        stack.callback(following.cancel)
        credentials, uses = Credentials(clock, ()), LastUses(settings.data / LAST_USES)
        keys_max = settings.api_keys_max
        yield APIKeys(files.log, files.views, clock, credentials, uses, keys_max)


async def check_views(data: Path, log: SQLiteLog) -> None:
    """Raises LogReplaced when the views in *data* were built from another log."""
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
        return  # unreadable views are rebuilt
    if log_id != log.log_id:
        raise LogReplaced(
            f"{data / LOG} is not the log that {VIEWS} was made from: put the right one back from "
            f"a backup; if this one is right, delete {path}, which is rebuilt"
        )


async def open_master_key(data: Path, log: SQLiteLog) -> MasterKey:
    """The secret key of *log*. An empty log gets a new one.

    Raises SecretKeyMissing, LogReplaced, SecretKeyUnusable, OSError, sqlite3.Error.
    """
    path = data / KEY
    lost = f"if it is lost, `eventjobs new-key --data {data}` makes another"
    if log.head and not await asyncio.to_thread(path.exists):
        raise SecretKeyMissing(
            f"{path} is missing, but the log has events: put it back from a backup; {lost}"
        )
    key = await asyncio.to_thread(MasterKey.open, path)
    mark = key.fingerprint
    stored = await log.meta(KEY_MARK)
    if log.head and stored not in (None, mark):
        raise LogReplaced(
            f"{path} is the key of another log: put the right key, or the right log, back; {lost}"
        )
    if stored != mark:
        with suppress(sqlite3.Error):  # a full disk; the next start stores it
            await log.set_meta(KEY_MARK, mark)
    return key


async def renew_key(data: Path) -> Path:
    """Make a new secret key for the log in *data*, which no service has open. Returns its path.

    Secrets derived from the old key become invalid. Raises DataDirectoryError.
    """
    descriptor = await lock(data)
    try:
        with explain_errors(data):
            if not await asyncio.to_thread(has_content, data / LOG):
                raise LogMissing(f"there is no log in {data}; a service makes both")
            log = await SQLiteLog.open(data / LOG)
            try:
                await asyncio.to_thread((data / KEY).unlink, missing_ok=True)
                key = await asyncio.to_thread(MasterKey.open, data / KEY)
                await log.set_meta(KEY_MARK, key.fingerprint)
            finally:
                await log.close()
    finally:
        os.close(descriptor)
    return data / KEY

"""The log in one SQLite file: append-only by trigger, one writer with group commit, one reader."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from eventjobs.clock import Clock, SystemClock
from eventjobs.domain.events import Event
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict
from eventjobs.log import PAGE_MAX, NewEvent, without_position
from eventjobs.log.damage import read_around_damage
from eventjobs.log.rows import READ, READ_JOB, recorded_from_text
from eventjobs.log.sqlite_authorizer import connect_writer
from eventjobs.log.sqlite_writer import GroupCommitWriter
from eventjobs.log.tail import Tail
from eventjobs.observability.logging import get_logger
from eventjobs.storage.sqlite import (
    connect,
    create_private_file,
    fetch_value,
    may_be_disk_full,
    sync_database,
)

HEAD = "SELECT coalesce(max(position), 0) FROM events"
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"


class SQLiteLog:
    """`log.db`, an EventLog. Made with *open*. Only one process may have it open for writing."""

    def __init__(
        self,
        path: Path,
        log_id: str,
        clock: Clock,
        tail: Tail,
        writer: GroupCommitWriter,
        reader: aiosqlite.Connection | None,
    ) -> None:
        self.path = path
        self.log_id = log_id
        self.reserved_after = writer.reserved_after
        self._clock = clock
        self._tail = tail
        self._writer = writer
        #: None: reads use the writer's connection, which is the only one.
        self._own_reader = reader
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, clock: Clock | None = None, **limits: int) -> "SQLiteLog":
        """Open *path*, or create it. Its content is durable when this returns.

        *limits* are those of GroupCommitWriter. Raises ForeignDatabase, DatabaseTooNew,
        sqlite3.Error, OSError.
        """
        clock = clock or SystemClock()
        create_private_file(path)
        await asyncio.to_thread(sync_database, path)
        connection, reader = await _connect(path)
        try:
            # A reader that has read holds a lock: closing the writer then leaves the -wal (_close).
            tail = Tail(await fetch_value(reader or connection, HEAD))
            log_id = await fetch_value(connection, LOG_ID)
            writer = GroupCommitWriter(
                path, connection, clock, tail, exclusive=reader is None, **limits
            )
            await writer.start()
        except BaseException:
            await _disconnect(connection, reader)
            raise
        return cls(path, log_id, clock, tail, writer, reader)

    @property
    def head(self) -> int:
        return self._tail.head

    @property
    def _reader(self) -> aiosqlite.Connection:
        return self._own_reader or self._writer.connection

    async def unwritable(self) -> str | None:
        """Why the log takes no writes now; None while it does."""
        return await self._writer.unwritable()

    async def meta(self, name: str) -> str | None:
        """The value stored as *name* beside the events; None without one."""
        return await self._writer.meta(name)

    async def set_meta(self, name: str, value: str) -> None:
        """Store *value* as *name* beside the events. Raises sqlite3.Error."""
        await self._writer.set_meta(name, value)

    async def append(self, job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        (outcome,) = await self.append_many([NewEvent(job_id, version, event, actor)])
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    async def append_many(self, events: Sequence[NewEvent]) -> list[Recorded | Conflict]:
        self._writer.check_accepts()
        return await self._writer.enqueue(without_position(events, self._clock.now_us()))

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        recent = self._tail.since(after, limit)
        if recent is not None:
            return recent
        try:
            return await self._read_page(READ, after, limit)
        except sqlite3.DataError:  # a page is one value, and has more bytes than SQLite allows
            if limit == 1:
                raise
            return await self.read(after, limit // 2)

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        recent = self._tail.since(after, self.head)
        if recent is not None:
            return [event for event in recent if event.job_id == job_id][:limit]
        return await self._read_page(READ_JOB, job_id, after, -1 if limit is None else limit)

    async def _read_page(self, sql: str, *parameters: Any) -> list[Recorded]:
        try:
            rows: list[list[Any]] = orjson.loads(await fetch_value(self._reader, sql, *parameters))
        except (orjson.JSONDecodeError, sqlite3.DatabaseError) as error:
            return await read_around_damage(self._reader, sql, parameters, self.head, error)
        return [recorded_from_text(*row) for row in rows]

    async def wait(self, after: int, job_id: str | None = None) -> int:
        return await self._tail.wait(after, job_id)

    async def close(self) -> None:
        self._writer.refuse_new()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="close log")
        await asyncio.shield(self._closing)  # a cancelled caller must not leave it half closed

    async def _close(self) -> None:
        has_files = await self._writer.finish()
        self._tail.close()
        if not has_files and self._own_reader is not None:
            # The last connection to close removes the -wal by its name, which now belongs to
            # another file. A read-only one does not.
            await self._writer.connection.close()
            await self._own_reader.close()
            return
        await _disconnect(self._writer.connection, self._own_reader)


async def _connect(path: Path) -> tuple[aiosqlite.Connection, aiosqlite.Connection | None]:
    """A writing connection and a reader; the latter is None on a full disk."""
    try:
        writer = await connect_writer(path)
        try:
            return writer, await connect(path, read_only=True)
        except BaseException:
            await writer.close()
            raise
    except sqlite3.OperationalError as error:
        if not may_be_disk_full(error):
            raise
        # Two connections share an index of the -wal, which is a file. One alone needs none.
        writer = await connect_writer(path, alone=True)
        log = get_logger("eventjobs.log")
        log.warning("no space for a second connection: reads wait for writes")
        return writer, None


async def _disconnect(writer: aiosqlite.Connection, reader: aiosqlite.Connection | None) -> None:
    if reader is not None:
        await reader.close()  # the last connection to close checkpoints, which needs the writer
    await writer.close()

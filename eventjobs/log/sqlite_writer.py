"""Group commit: many appends become one durable transaction.

docs/internals/group-commit.md describes the idea, the invariants and what was tried.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from eventjobs.clock import Clock, sleep, timeout
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import (
    Conflict,
    DataDirectoryError,
    DiskFull,
    LogGone,
    LogUnavailable,
    OutcomeUnknown,
    Overloaded,
)
from eventjobs.log.batch import APPEND, Batch, PendingAppend
from eventjobs.log.file_identity import FileIdentity
from eventjobs.log.rows import FIND_BY_SALT, VERSIONS
from eventjobs.log.sqlite_authorizer import connect_writer
from eventjobs.log.tail import Tail
from eventjobs.observability.logging import get_logger
from eventjobs.storage.sqlite import fetch_value, is_full, may_be_disk_full

GET_META = "SELECT (SELECT value FROM meta WHERE name = ?1)"
SET_META = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value"
DISK_IS_FULL = "the disk is full"
#: While writes fail, the interval between two attempts to write.
PROBE_S = 1.0
#: The interval between two attempts to reopen the database.
REOPEN_S = 1.0


class GroupCommitWriter:
    """Commits appends in the order in which they came, and publishes them to *tail*.

    Made with *open*. Its task alone writes events.
    """

    def __init__(
        self,
        path: Path,
        connection: aiosqlite.Connection,
        clock: Clock,
        tail: Tail,
        *,
        exclusive: bool,
        waiting_max: int = 20_000,
        waiting_bytes_max: int = 64 * 2**20,
        batch_max: int = 1024,
        batch_bytes_max: int = 8 * 2**20,
    ) -> None:
        self.connection = connection
        self.reserved_after = tail.head
        self._path = path
        self._clock = clock
        self._tail = tail
        self._exclusive = exclusive
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._waiting: deque[PendingAppend] = deque()
        self._waiting_count = 0  # of events
        self._waiting_bytes = 0
        self._work = asyncio.Event()  # set while appends wait, and to close
        self._closed = False
        self._broken: str | None = None  # why appends are refused until the database is reopened
        self._failing: str | None = None  # why the last write failed; the next is attempted
        self._log = get_logger("eventjobs.log")

    _identity: FileIdentity
    _task: asyncio.Task[None]

    async def start(self) -> None:
        """Store where reserved ids begin, and begin to commit. Raises sqlite3.Error, OSError."""
        self._identity = await asyncio.to_thread(FileIdentity, self._path)
        if await asyncio.to_thread(is_full, self._path.parent):
            self._failing = DISK_IS_FULL  # until a write succeeds
        await self._store_reserved_after()
        self._task = asyncio.create_task(self._write_forever(), name="log writer")

    async def _store_reserved_after(self) -> None:
        """Store the head of the first start, now or as soon as the disk has space."""
        stored = await self.meta("reserved_after")
        if stored is not None:
            self.reserved_after = int(stored)
            return
        try:
            await self.set_meta("reserved_after", str(self.reserved_after))
        except sqlite3.OperationalError as error:
            if not may_be_disk_full(error):
                raise
            self._failing = DISK_IS_FULL

    async def meta(self, name: str) -> str | None:
        value: str | None = await fetch_value(self.connection, GET_META, name)
        return value

    async def set_meta(self, name: str, value: str) -> None:
        await self.connection.execute_fetchall(SET_META, (name, value))

    async def unwritable(self) -> str | None:
        """Why the log takes no writes now; None while it does."""
        try:
            await asyncio.to_thread(self._identity.check)
        except LogGone as error:
            return error.message
        return self._broken or self._failing

    def check_accepts(self) -> None:
        """Raises LogUnavailable or Overloaded when an append would be refused now."""
        if self._broken is not None or self._closed:
            raise LogUnavailable(self._broken or "the log is closed")
        if self._waiting_count >= self._waiting_max:
            raise Overloaded
        if self._waiting_bytes > self._waiting_bytes_max:
            raise Overloaded

    def enqueue(self, events: list[Recorded]) -> asyncio.Future[list[Recorded | Conflict]]:
        """A future of *events* with their positions, or conflicts; done once they are durable.

        It raises as EventLog.append_many does.
        """
        result: asyncio.Future[list[Recorded | Conflict]]
        result = asyncio.get_running_loop().create_future()
        append = PendingAppend(events, result)
        self._waiting.append(append)
        self._waiting_count += len(events)
        self._waiting_bytes += append.memory_size
        if not self._work.is_set():
            self._work.set()
        return result

    def refuse_new(self) -> None:
        """Refuse later appends; *finish* ends once the accepted ones are written."""
        self._closed = True
        self._work.set()

    async def finish(self) -> bool:
        """Wait until all accepted appends are written. Whether the files still have their names."""
        await self._task
        try:
            await asyncio.to_thread(self._identity.check)
        except LogGone as error:
            self._log.error("closed without its files", error=error.message)
            return False
        return True

    # --- the writer task: all methods below run in it alone

    async def _write_forever(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                self._work.clear()
                await self._wait_for_work()
                continue
            batch = self._next_batch()
            try:
                await self._commit(batch)
            except sqlite3.IntegrityError:
                await self._commit_without_conflicts(batch)
            except (sqlite3.Error, LogGone) as error:
                await self._handle_failure(batch, error)

    async def _wait_for_work(self) -> None:
        """Return when there is something to write. While writes fail, attempt one now and then."""
        if self._failing is None:
            await self._work.wait()
            return
        try:
            async with timeout(self._clock, PROBE_S):
                await self._work.wait()
        except TimeoutError:
            with suppress(sqlite3.Error, LogGone):
                await self._execute(SET_META, ("written_us", str(self._clock.now_us())))

    async def _execute(self, sql: str, parameters: tuple[Any, ...]) -> None:
        """Execute one statement in a file that has its name before and after. Raises LogGone."""

        def run() -> None:
            # Without this check a refused write would be in the file once it has its name again.
            self._identity.check()
            self.connection._conn.execute(sql, parameters)
            self._identity.check(written=True)

        await self.connection._execute(run)  # type: ignore[no-untyped-call]
        if self._failing is not None:
            self._log.warning("writing again")
            self._failing = None
            await self._store_reserved_after()

    def _next_batch(self) -> Batch:
        """Of the waiting appends, the first; more of them only while the batch is small enough."""
        appends: list[PendingAppend] = []
        count = size = 0
        while self._waiting and size < self._batch_bytes_max:
            append = self._waiting[0]
            if appends and count + len(append.events) > self._batch_max:
                break
            appends.append(self._waiting.popleft())
            count += len(append.events)
            size += append.memory_size
        self._waiting_count -= count
        self._waiting_bytes -= size
        return Batch(appends)

    async def _commit(self, batch: Batch) -> None:
        """Write *batch* in one durable transaction, and publish it."""
        first = self._tail.head + 1
        await self._execute(APPEND, batch.parameters(first))
        self._publish(batch, range(first, first + len(batch.events)))

    def _publish(self, batch: Batch, positions: Sequence[int]) -> None:
        for event, position in zip(batch.events, positions, strict=True):
            event.position = position
        self._tail.publish(batch.events)
        batch.answer()

    async def _commit_without_conflicts(self, batch: Batch) -> None:
        """Commit the events of *batch* whose version is the next of their job; refuse the rest."""
        try:
            ids = orjson.dumps(list(batch.job_ids)).decode()
            batch.remove_conflicts(orjson.loads(await fetch_value(self.connection, VERSIONS, ids)))
            if batch.events:
                await self._commit(batch)
            else:
                batch.answer()
        except (sqlite3.Error, LogGone) as error:
            await self._handle_failure(batch, error)

    async def _handle_failure(self, batch: Batch, error: sqlite3.Error | LogGone) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            # SQLite rolled back. The next batch shows whether there is space again.
            self._log.warning("disk full", waiting=len(batch.events))
            self._failing = DISK_IS_FULL
            batch.refuse(DiskFull())
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._failing = "another program holds the database"
            batch.refuse(LogUnavailable(self._failing))
        else:
            await self._recover(batch, error)

    async def _recover(self, batch: Batch, error: sqlite3.Error | LogGone) -> None:
        """Reopen the database, look up whether *batch* was committed, and answer its callers."""
        self._broken = f"the database failed: {error}"
        if isinstance(error, LogGone):
            self._broken = error.message
            if not error.written:
                batch.refuse(LogUnavailable(self._broken))
                batch = Batch(())
        self._log.error("write failed", error=str(error), waiting=len(batch.events))
        while True:
            try:
                positions = await self._reopen(batch)
                break
            except (sqlite3.Error, OSError, DataDirectoryError) as failure:
                # Callers do not wait until a disk is replaced.
                batch.refuse(OutcomeUnknown())
                for append in self._waiting:
                    append.refuse(LogUnavailable(self._broken))
                self._waiting.clear()
                self._waiting_count = self._waiting_bytes = 0
                self._log.error("cannot reopen", error=str(failure))
                if self._closed:
                    return
                await sleep(self._clock, REOPEN_S)
        if positions:
            self._publish(batch, positions)
        else:
            batch.refuse(LogUnavailable("the database failed; nothing was written"))
        self._broken = None
        self._log.warning("writing again", written=len(positions))

    async def _reopen(self, batch: Batch) -> list[int]:
        """Positions of *batch* if it was committed, else []. Raises sqlite3.Error, LogGone."""
        await asyncio.to_thread(self._identity.check_database)
        await self.connection.close()
        self.connection = await connect_writer(self._path, alone=self._exclusive)
        await asyncio.to_thread(self._identity.accept_wal)
        positions: list[int] = orjson.loads(
            await fetch_value(self.connection, FIND_BY_SALT, batch.salt_keys())
        )
        # Frames that were written and not committed stay in the WAL, and a crash could still bring
        # them back after their append was refused. The next commit overwrites them: make it now.
        reopened_us = str(self._clock.now_us())
        await self.connection.execute_fetchall(SET_META, ("reopened_us", reopened_us))
        return sorted(positions)

"""The log in one SQLite file: one writer with group commit, one reader, append-only by trigger."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from eventjobs.clock import Clock, SystemClock, sleep, timeout
from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
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
from eventjobs.log import PAGE_MAX, check_text
from eventjobs.log.batch import APPEND, Append, bound, refuse
from eventjobs.log.damage import read_around
from eventjobs.log.names import Names
from eventjobs.log.rows import FIND, READ, READ_JOB, VERSIONS, recorded_from_text
from eventjobs.log.sqlite_authorizer import connect_writer
from eventjobs.log.tail import Tail
from eventjobs.observability.logging import get_logger
from eventjobs.storage.sqlite import connect, is_full, lacks_room, make_durable, one, private_file

SCHEMA_VERSION = 1
SCHEMA = files("eventjobs.log").joinpath("sqlite.sql").read_text()

HEAD = "SELECT coalesce(max(position), 0) FROM events"
#: While writes are refused, one is tried so often.
PROBE_S = 1.0
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"
GET_META = "SELECT (SELECT value FROM meta WHERE name = ?1)"
SET_META = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value"


class SQLiteLog:
    """`log.db`. Make it with *open*; only one process may have it open for writing."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        waiting_max: int = 20_000,
        waiting_bytes_max: int = 64 * 2**20,
        batch_max: int = 1024,
        batch_bytes_max: int = 8 * 2**20,
    ) -> None:
        self.path = path
        self.log_id = ""
        self.reserved_after = 0
        self._clock = clock
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._waiting: deque[Append] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._tail = Tail()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._broken: str | None = None  # why writes are refused, while they are
        self._refused: str | None = None  # why the last one was, though the next is tried
        self._log = get_logger("eventjobs.log")

    @classmethod
    async def open(cls, path: Path, clock: Clock | None = None, **limits: int) -> "SQLiteLog":
        """Open *path*, or make it; what it holds is durable then. *limits* as *__init__* has them.

        Raises NotOurs, TooNew, sqlite3.Error, OSError.
        """
        log = cls(path, clock or SystemClock(), **limits)
        private_file(path)
        await asyncio.to_thread(make_durable, path)
        await log._connect()
        try:
            log._tail.head = await one(log._writer, HEAD)
            log.log_id = await one(log._writer, LOG_ID)
            log.reserved_after = log.head
            log._names = await asyncio.to_thread(Names, path)
            if await asyncio.to_thread(is_full, path.parent):
                log._refused = "the disk is full"  # until a write says otherwise
            await log._reserve()
        except BaseException:
            await log._disconnect()
            raise
        log._task = asyncio.create_task(log._write_forever(), name="log writer")
        return log

    _writer: aiosqlite.Connection
    _reader: aiosqlite.Connection  # on a disk that was full when it was opened, the same one
    _names: Names
    _task: asyncio.Task[None]

    async def _connect(self) -> None:
        try:
            self._writer = await self._connect_writer()
            try:
                self._reader = await connect(self.path, read_only=True)
            except BaseException:
                await self._writer.close()
                raise
        except sqlite3.OperationalError as error:
            if not lacks_room(error):
                raise
            # Two connections share an index of the -wal, which is a file; one alone needs none.
            self._reader = self._writer = await connect_writer(
                self.path, SCHEMA, SCHEMA_VERSION, alone=True
            )
            self._log.warning("no room for a second connection: reads wait for writes")

    async def _connect_writer(self, *, alone: bool = False) -> aiosqlite.Connection:
        return await connect_writer(self.path, SCHEMA, SCHEMA_VERSION, alone=alone)

    async def _reserve(self) -> None:
        """Keep where ids begin to be reserved: once, at the first start, or when there is room."""
        if (known := await self.meta("reserved_after")) is not None:
            self.reserved_after = int(known)
            return
        try:
            await self.set_meta("reserved_after", str(self.reserved_after))
        except sqlite3.OperationalError as error:
            if not lacks_room(error):
                raise
            self._refused = "the disk is full"

    async def _disconnect(self) -> None:
        if self._reader is not self._writer:
            await self._reader.close()  # readers first: the last to close checkpoints
        await self._writer.close()

    @property
    def head(self) -> int:
        return self._tail.head

    async def unwritable(self) -> str | None:
        """Why the log takes no writes now; None while it does."""
        try:
            await asyncio.to_thread(self._names.check)
        except LogGone as error:
            return error.message
        return self._broken or self._refused

    async def meta(self, name: str) -> str | None:
        """What was kept as *name* beside the events."""
        found: str | None = await one(self._writer, GET_META, name)
        return found

    async def set_meta(self, name: str, value: str) -> None:
        """Keep *value* as *name* beside the events. Raises sqlite3.Error."""
        await self._writer.execute_fetchall(SET_META, (name, value))

    async def append(self, job_id: str, version: int, event: Event, *, actor: str) -> Recorded:
        if self._broken is not None or self._closed:
            raise LogUnavailable(self._broken or "the log is closed")
        if len(self._waiting) >= self._waiting_max or self._waiting_bytes > self._waiting_bytes_max:
            raise Overloaded
        check_text(job_id)
        check_text(actor)
        type, facts, body = encode(event)
        at_us = self._clock.now_us()
        recorded = Recorded(0, job_id, version + 1, at_us, actor, event, type, facts, body)
        answer: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._waiting.append(Append(recorded, body, answer))
        self._waiting_bytes += len(facts) + len(body)
        if not self._more.is_set():
            self._more.set()
        return await answer

    async def read(self, after: int, limit: int = PAGE_MAX) -> list[Recorded]:
        recent = self._tail.since(after, limit)
        if recent is not None:
            return recent
        try:
            return await self._page(READ, after, limit)
        except sqlite3.DataError:  # a page is one value, and has more bytes than SQLite allows
            if limit == 1:
                raise
            return await self.read(after, limit // 2)

    async def read_job(
        self, job_id: str, after: int = 0, limit: int | None = None
    ) -> list[Recorded]:
        recent = self._tail.since(after, self.head)
        if recent is not None:
            return [each for each in recent if each.job_id == job_id][:limit]
        return await self._page(READ_JOB, job_id, after, -1 if limit is None else limit)

    async def wait(self, after: int, job_id: str | None = None) -> int:
        return await self._tail.wait(after, job_id)

    async def close(self) -> None:
        self._closed = True
        self._more.set()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="close log")
        await asyncio.shield(self._closing)  # who asked may be cancelled; half closed is no state

    async def _close(self) -> None:
        await self._task
        self._tail.close()
        try:
            await asyncio.to_thread(self._names.check)
        except LogGone as error:
            # The last writer to close removes the -wal by its name: it would be somebody else's.
            self._log.error("closed without its files", error=error.message)
            await self._writer.close()
            if self._reader is not self._writer:
                await self._reader.close()
            return
        await self._disconnect()

    # --- reading

    async def _page(self, sql: str, *parameters: Any) -> list[Recorded]:
        try:
            rows: list[list[Any]] = orjson.loads(await one(self._reader, sql, *parameters))
        except (orjson.JSONDecodeError, sqlite3.DatabaseError) as error:
            return await read_around(self._reader, sql, parameters, self.head, error)
        return [recorded_from_text(*row) for row in rows]

    # --- writing: everything below runs in the writer task alone

    async def _write_forever(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                self._more.clear()
                await self._wait_for_more()
                continue
            batch = self._take()
            try:
                await self._commit(batch)
            except sqlite3.IntegrityError:
                await self._commit_winners(batch)
            except (sqlite3.Error, LogGone) as error:
                await self._after_failure(batch, error)

    async def _wait_for_more(self) -> None:
        """Return when there is something to write; while writes are refused, look if one goes."""
        if self._refused is None:
            await self._more.wait()
            return
        try:
            async with timeout(self._clock, PROBE_S):
                await self._more.wait()
        except TimeoutError:
            with suppress(sqlite3.Error, LogGone):
                await self._written(SET_META, ("written_us", str(self._clock.now_us())))

    async def _written(self, sql: str, parameters: tuple[Any, ...]) -> None:
        """Run one statement, and be sure that it is in a file that has its name."""

        def run() -> None:
            self._names.check()  # else it would be written, and come back with the file
            self._writer._conn.execute(sql, parameters)
            self._names.check(written=True)

        await self._writer._execute(run)  # type: ignore[no-untyped-call]
        if self._refused is not None:
            self._log.warning("writing again")
            self._refused = None
            await self._reserve()

    def _take(self) -> list[Append]:
        batch: list[Append] = []
        size = 0
        while self._waiting and len(batch) < self._batch_max and size < self._batch_bytes_max:
            entry = self._waiting.popleft()
            size += len(entry.recorded.facts) + len(entry.body)
            batch.append(entry)
        self._waiting_bytes -= size
        return batch

    async def _commit(self, batch: Sequence[Append]) -> None:
        """One durable transaction; then everybody is answered and every reader woken."""
        first = self.head + 1
        await self._written(APPEND, bound(batch, first))
        self._publish(batch, range(first, first + len(batch)))

    def _publish(self, batch: Sequence[Append], positions: Sequence[int]) -> None:
        for each, position in zip(batch, positions, strict=True):
            each.recorded.position = position
        self._tail.publish([each.recorded for each in batch])
        for each in batch:
            if not each.answer.done():
                each.answer.set_result(each.recorded)

    async def _commit_winners(self, batch: Sequence[Append]) -> None:
        """Somebody in *batch* was late. Commit the others, and tell them."""
        left = batch
        late: list[tuple[Append, Conflict]] = []
        try:
            ids = orjson.dumps(list({each.recorded.job_id for each in batch})).decode()
            versions: dict[str, int] = orjson.loads(await one(self._writer, VERSIONS, ids))
            winners = []
            for each in batch:
                job_id, version = each.recorded.job_id, each.recorded.version
                at = versions.get(job_id, 0)
                if version == at + 1:
                    versions[job_id] = version
                    winners.append(each)
                else:
                    why = f"job {job_id} is at version {at}, not {version - 1}"
                    late.append((each, Conflict(why)))
            left = winners
            if winners:
                await self._commit(winners)
        except (sqlite3.Error, LogGone) as error:
            await self._after_failure(left, error)
        # Not before the winners are published: who was late reads the job again at once.
        for entry, conflict in late:
            entry.refuse(conflict)

    async def _after_failure(self, batch: Sequence[Append], error: sqlite3.Error | LogGone) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            # Rolled back; the next batch finds out by itself whether there is room again.
            self._log.warning("disk full", waiting=len(batch))
            self._refused = "the disk is full"
            refuse(batch, DiskFull())
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._refused = "another program holds the database"
            refuse(batch, LogUnavailable(self._refused))
        else:
            await self._recover(batch, error)

    async def _recover(self, batch: Sequence[Append], error: sqlite3.Error | LogGone) -> None:
        """A failed commit may be in the file all the same: stop, reopen, look, then answer."""
        self._broken = f"the database failed: {error}"
        if isinstance(error, LogGone):
            self._broken = error.message
            if not error.written:
                refuse(batch, LogUnavailable(self._broken))
                batch = ()
        self._log.error("write failed", error=str(error), waiting=len(batch))
        while True:
            try:
                found = await self._reopen(batch)
                break
            except (sqlite3.Error, OSError, DataDirectoryError) as again:
                # The callers should not wait for a disk to be replaced.
                refuse(batch, OutcomeUnknown())
                refuse(self._waiting, LogUnavailable(self._broken))
                self._waiting.clear()
                self._waiting_bytes = 0
                self._log.error("cannot reopen", error=str(again))
                if self._closed:
                    return
                await sleep(self._clock, 1.0)
        if found:
            self._publish(batch, found)
        else:
            refuse(batch, LogUnavailable("the database failed; nothing was written"))
        self._broken = None
        self._log.warning("writing again", written=len(found))

    async def _reopen(self, batch: Sequence[Append]) -> list[int]:
        """Positions of the batch, if it was committed. Raises sqlite3.Error while it fails."""
        await asyncio.to_thread(self._names.check_main)
        alone = self._reader is self._writer
        await self._writer.close()
        self._writer = await self._connect_writer(alone=alone)
        if alone:
            self._reader = self._writer
        await asyncio.to_thread(self._names.renew)
        salts = [
            (each.recorded.job_id, each.recorded.version, each.salt.hex().upper()) for each in batch
        ]
        found: list[int] = orjson.loads(await one(self._writer, FIND, orjson.dumps(salts).decode()))
        # Frames that were written but not committed stay in the WAL, and a crash now would bring
        # them back after we said "not written". The next commit overwrites them: make it now.
        await self._writer.execute_fetchall(SET_META, ("reopened_us", str(self._clock.now_us())))
        return sorted(found)

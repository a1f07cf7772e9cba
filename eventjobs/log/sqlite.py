"""The log in one SQLite file: one writer with group commit, one reader, append-only by trigger."""

import asyncio
import hashlib
import os
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from eventjobs.clock import Clock, SystemClock, sleep
from eventjobs.codec import encode
from eventjobs.database import claim, connect, make_durable, one, private_file
from eventjobs.errors import (
    Conflict,
    DataDirectoryError,
    DiskFull,
    LogError,
    LogUnavailable,
    OutcomeUnknown,
    Overloaded,
)
from eventjobs.events import Event, Recorded
from eventjobs.log import PAGE_MAX, Tail, check_text
from eventjobs.log.guard import authorize
from eventjobs.log.rows import READ, READ_JOB, ROWS, recorded, recorded_from_text
from eventjobs.logs import get_logger

SCHEMA_VERSION = 1
SCHEMA = files("eventjobs.log").joinpath("sqlite.sql").read_text()

# Whole batches cross to the connection's thread as one statement over one JSON array; see rows.py.
APPEND = """
INSERT INTO events
SELECT ?1 + key, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
  substr(?3, value ->> 5, value ->> 6), substr(?3, value ->> 7, value ->> 8),
  substr(?4, 16 * key + 1, 16), substr(?5, 32 * key + 1, 32)
FROM json_each(?2)
"""
VERSIONS = """
SELECT json_group_object(job_id, version)
FROM (SELECT job_id, max(version) AS version FROM events
  WHERE job_id IN (SELECT value FROM json_each(?1)) GROUP BY job_id)
"""
#: Which of our rows are there, told by their salts, which nobody else can have drawn.
FIND = """
SELECT json_group_array(position) FROM (
  SELECT position FROM events JOIN json_each(?1)
  ON job_id = value ->> 0 AND version = value ->> 1 AND hex(salt) = value ->> 2)
"""
HEAD = "SELECT coalesce(max(position), 0) FROM events"
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"
#: Once, by the first start that reserves ids.
RESERVE = "INSERT OR IGNORE INTO meta VALUES ('reserved_after', ?1)"
RESERVED_AFTER = "SELECT value FROM meta WHERE name = 'reserved_after'"
SET_META = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value"

COMMITMENT = b"eventjobs/body/v1\0"


@dataclass(slots=True, eq=False)
class _Append:
    """One event on its way into the log, and who waits for it."""

    recorded: Recorded  # without its position yet
    body: bytes
    answer: asyncio.Future[Recorded]
    salt: bytes = b""

    def refuse(self, error: LogError) -> None:
        if not self.answer.done():  # its caller may have been cancelled
            self.answer.set_exception(error)


class SQLiteLog:
    """`log.db`. Make it with *open*; only one process may have it open for writing."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        waiting_max: int,
        waiting_bytes_max: int,
        batch_max: int,
        batch_bytes_max: int,
    ) -> None:
        self.path = path
        self.log_id = ""
        self.reserved_after = 0
        self._clock = clock
        self._waiting_max = waiting_max
        self._waiting_bytes_max = waiting_bytes_max
        self._batch_max = batch_max
        self._batch_bytes_max = batch_bytes_max
        self._waiting: deque[_Append] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._tail = Tail()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._broken: str | None = None  # why writes are refused, while they are
        self._log = get_logger("eventjobs.log")

    @classmethod
    async def open(
        cls,
        path: Path,
        clock: Clock | None = None,
        *,
        waiting_max: int = 20_000,
        waiting_bytes_max: int = 64 * 2**20,
        batch_max: int = 1024,
        batch_bytes_max: int = 8 * 2**20,
    ) -> "SQLiteLog":
        """Open *path*, or make it; what it holds is durable then.

        Raises NotOurs, TooNew, sqlite3.Error, OSError.
        """
        log = cls(
            path,
            clock or SystemClock(),
            waiting_max=waiting_max,
            waiting_bytes_max=waiting_bytes_max,
            batch_max=batch_max,
            batch_bytes_max=batch_bytes_max,
        )
        private_file(path)
        await asyncio.to_thread(make_durable, path)
        log._writer = await log._connect_writer()
        try:
            log._reader = await connect(path, read_only=True)
        except BaseException:
            await log._writer.close()
            raise
        log._tail.head = await one(log._writer, HEAD)
        log.log_id = await one(log._writer, LOG_ID)
        await log._writer.execute_fetchall(RESERVE, (str(log.head),))
        log.reserved_after = int(await one(log._writer, RESERVED_AFTER))
        log._task = asyncio.create_task(log._write_forever(), name="log writer")
        return log

    _writer: aiosqlite.Connection
    _reader: aiosqlite.Connection
    _task: asyncio.Task[None]

    @property
    def head(self) -> int:
        return self._tail.head

    async def unwritable(self) -> str | None:
        """Why the log takes no writes now; None while it does."""
        return self._broken

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
        self._waiting.append(_Append(recorded, body, answer))
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
        await self._reader.close()  # readers first: the last to close checkpoints
        await self._writer.close()

    # --- reading

    async def _page(self, sql: str, *parameters: Any) -> list[Recorded]:
        try:
            rows: list[list[Any]] = orjson.loads(await one(self._reader, sql, *parameters))
        except orjson.JSONDecodeError:
            found = await self._reader.execute_fetchall(ROWS[sql], parameters)
            return [recorded(*row) for row in found]
        return [recorded_from_text(*row) for row in rows]

    # --- writing: everything below runs in the writer task alone

    async def _connect_writer(self) -> aiosqlite.Connection:
        connection = await connect(self.path)
        try:
            await claim(connection, SCHEMA, SCHEMA_VERSION)
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

    async def _write_forever(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            batch = self._take()
            try:
                await self._commit(batch)
            except sqlite3.IntegrityError:
                await self._commit_winners(batch)
            except sqlite3.Error as error:
                await self._after_failure(batch, error)

    def _take(self) -> list[_Append]:
        batch: list[_Append] = []
        size = 0
        while self._waiting and len(batch) < self._batch_max and size < self._batch_bytes_max:
            entry = self._waiting.popleft()
            size += len(entry.recorded.facts) + len(entry.body)
            batch.append(entry)
        self._waiting_bytes -= size
        return batch

    async def _commit(self, batch: Sequence[_Append]) -> None:
        """One durable transaction; then everybody is answered and every reader woken."""
        rows = []
        parts: list[bytes] = []
        commitments: list[bytes] = []
        at = 1
        salts = os.urandom(16 * len(batch))
        for number, each in enumerate(batch):
            each.salt = salts[16 * number : 16 * number + 16]
            told, body = each.recorded, each.body
            named = (told.job_id, told.version, told.type, told.at_us, told.actor)
            middle = at + len(told.facts)
            end = middle + len(body)
            # Offsets are worked out here: for SQLite that would cost as much as storing the rest.
            rows.append((*named, at, middle - at, middle, end - middle))
            parts += (told.facts, body)
            commitments.append(hashlib.sha256(COMMITMENT + each.salt + body).digest())
            at = end
        first = self.head + 1
        listed = orjson.dumps(rows).decode()
        bound = (first, listed, b"".join(parts), salts, b"".join(commitments))
        await self._writer.execute_fetchall(APPEND, bound)
        self._publish(batch, range(first, first + len(batch)))

    def _publish(self, batch: Sequence[_Append], positions: Sequence[int]) -> None:
        for each, position in zip(batch, positions, strict=True):
            each.recorded.position = position
        self._tail.publish([each.recorded for each in batch])
        for each in batch:
            if not each.answer.done():
                each.answer.set_result(each.recorded)

    async def _commit_winners(self, batch: Sequence[_Append]) -> None:
        """Somebody in *batch* was late. Commit the others, and tell them."""
        left = batch
        late: list[tuple[_Append, Conflict]] = []
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
        except sqlite3.Error as error:
            await self._after_failure(left, error)
        # Not before the winners are published: who was late reads the job again at once.
        for entry, conflict in late:
            entry.refuse(conflict)

    async def _after_failure(self, batch: Sequence[_Append], error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            # Rolled back; the next batch finds out by itself whether there is room again.
            self._log.warning("disk full", waiting=len(batch))
            _refuse(batch, DiskFull())
        elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            _refuse(batch, LogUnavailable("another program holds the database"))
        else:
            await self._recover(batch, error)

    async def _recover(self, batch: Sequence[_Append], error: sqlite3.Error) -> None:
        """A failed commit may be in the file all the same: stop, reopen, look, then answer."""
        self._broken = f"the database failed: {error}"
        self._log.error("write failed", error=str(error), waiting=len(batch))
        while True:
            try:
                found = await self._reopen(batch)
                break
            except (sqlite3.Error, OSError, DataDirectoryError) as again:
                # The callers should not wait for a disk to be replaced.
                _refuse(batch, OutcomeUnknown())
                _refuse(self._waiting, LogUnavailable(self._broken))
                self._waiting.clear()
                self._waiting_bytes = 0
                self._log.error("cannot reopen", error=str(again))
                if self._closed:
                    return
                await sleep(self._clock, 1.0)
        if found:
            self._publish(batch, found)
        else:
            _refuse(batch, LogUnavailable("the database failed; nothing was written"))
        self._broken = None
        self._log.warning("writing again", written=len(found))

    async def _reopen(self, batch: Sequence[_Append]) -> list[int]:
        """Positions of the batch, if it was committed. Raises sqlite3.Error while it fails."""
        await self._writer.close()
        self._writer = await self._connect_writer()
        salts = [
            (each.recorded.job_id, each.recorded.version, each.salt.hex().upper()) for each in batch
        ]
        found: list[int] = orjson.loads(await one(self._writer, FIND, orjson.dumps(salts).decode()))
        # Frames that were written but not committed stay in the WAL, and a crash now would bring
        # them back after we said "not written". The next commit overwrites them: make it now.
        await self._writer.execute_fetchall(SET_META, ("reopened_us", str(self._clock.now_us())))
        return sorted(found)


def _refuse(batch: Sequence[_Append] | deque[_Append], error: LogError) -> None:
    for each in batch:
        each.refuse(error)

"""One views file: opening it, applying batches of events to it, and reading it."""

import asyncio
import errno
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.durability import replace, sync
from eventjobs.errors import ForeignDatabase
from eventjobs.projections import dependencies, parked_events, progress, status
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.change import JobChange, Statement
from eventjobs.projections.fold import (
    Fold,
    Folded,
    FoldedJob,
    Written,
    events_of_jobs,
    parked_event,
)
from eventjobs.projections.pauses import pauses_of
from eventjobs.projections.present import Present, UnwrittenChanges
from eventjobs.projections.queue import MovedJob, WaitingJob
from eventjobs.projections.registry import EVENT_PROJECTIONS, PROJECTIONS, schema, versions
from eventjobs.projections.store_errors import StaleViews, blames_event, is_transient
from eventjobs.storage.sqlite import (
    EXCLUSIVE,
    connect,
    create_private_file,
    fetch_value,
    initialize,
    may_be_disk_full,
    transaction,
)

SCHEMA_VERSION = 1
SCHEMA = """
PRAGMA application_id = 0x656A6F62;
PRAGMA user_version = 1;
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
GET_META = "SELECT json_group_object(name, value) FROM meta"
SET_META = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value"

#: The size that the -wal is truncated to after a checkpoint.
WAL_BYTES_MAX = 64 * 2**20
#: Events that are folded in one turn of the event loop.
FOLDED_AT_ONCE = 1000


class Store:
    """Made with *open*. One task applies, any number may read."""

    def __init__(
        self,
        path: Path,
        present: Present,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        list_reader: aiosqlite.Connection,
    ) -> None:
        self.path = path
        self.position = present.position
        #: Created by this process. A failure to apply an event is then not a fault of the file.
        self.is_new = False
        self._writer = writer
        self._reader = reader
        self._list_reader = list_reader
        self._present = present

    @classmethod
    async def open(cls, path: Path, log_id: str, head: int) -> "Store":
        """Open or create *path*.

        Raises StaleViews when it does not belong to this log and this code, or is damaged; OSError
        and sqlite3.Error when it cannot be opened now.
        """
        if not await asyncio.to_thread(path.exists):
            await asyncio.to_thread(Store.remove, path)  # its -wal may have been left
        try:
            create_private_file(path)
        except ForeignDatabase as error:
            raise StaleViews(str(error)) from error
        try:
            return await cls._open(path, log_id, head)
        except sqlite3.OperationalError as error:
            if not may_be_disk_full(error):
                raise
            # One connection needs less disk space: see log/sqlite.py.
            return await cls._open(path, log_id, head, exclusive=True)

    @classmethod
    async def _open(cls, path: Path, log_id: str, head: int, *, exclusive: bool = False) -> "Store":
        connections = [writer := await connect(path, *(EXCLUSIVE if exclusive else ()))]
        try:
            is_new = await initialize(writer, SCHEMA + schema(), SCHEMA_VERSION)
            await writer.execute_fetchall("PRAGMA journal_mode = WAL")
            # A power cut may take the newest commits: the views then catch up with the log.
            await writer.execute_fetchall("PRAGMA synchronous = NORMAL")
            await writer.execute_fetchall("PRAGMA wal_autocheckpoint = 4000")
            await writer.execute_fetchall(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
            identity = {"log_id": log_id, "projections": versions()}
            if is_new:
                await transaction(writer, [(SET_META, item) for item in identity.items()])
            meta: dict[str, str] = orjson.loads(await fetch_value(writer, GET_META))
            position = int(meta.pop("position", 0))
            if meta != identity:
                raise StaleViews("of another log, or other versions of the projections")
            if position > head:
                raise StaleViews("further than the log")
            dependents = int(await fetch_value(writer, dependencies.COUNT_DEPENDENTS))
            connections.append(writer if exclusive else await connect(path, read_only=True))
            connections.append(writer if exclusive else await connect(path, read_only=True))
        except BaseException as error:
            await _close(connections)
            if not isinstance(error, Exception) or isinstance(error, StaleViews):
                raise
            if is_transient(error):
                raise
            raise StaleViews(str(error)) from error  # any other fault is cured by a rebuild
        store = cls(path, Present(position, dependents), *connections)
        store.is_new = is_new
        return store

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a closed file, durably. Blocks, raises OSError.

        SQLite applies a -wal to any file of the right name. So the file is removed first, and its
        -wal before another file takes the name.
        """
        for names in ((path.name,), (f"{path.name}-wal", f"{path.name}-shm")):
            existing = [file for name in names if (file := path.with_name(name)).exists()]
            for file in existing:
                file.unlink()
            if existing:
                sync(path.parent)

    @staticmethod
    def replace(new: Path, path: Path) -> None:
        """Replace *path*, a closed file, by the closed file *new*. Blocks.

        A crash in between leaves no views: the service rebuilds them at its start. Raises OSError,
        also when *new* was not checkpointed.
        """
        if new.with_name(f"{new.name}-wal").exists():
            raise OSError(errno.EBUSY, "it is in use, or could not be checkpointed", str(new))
        Store.remove(path)
        replace(new, path)

    async def close(self) -> None:
        await _close([self._writer, self._reader, self._list_reader])

    @property
    def present_position(self) -> int:
        """The position of the jobs in memory, from *position* on."""
        return self._present.position

    @property
    def unwritten(self) -> UnwrittenChanges:
        """What *fold* has added since the last write began."""
        return self._present.unwritten

    async def fold(self, batch: Sequence[Recorded], *, parking: bool = False) -> Folded:
        """Fold *batch* in memory. *write* writes it.

        Raises what the fold raises, and sqlite3.Error. With *parking*, for a file known to be
        sound, an event that raises is left out, and the batch is folded in parts around it.
        """
        try:
            return await self._fold(batch)
        except Exception as error:
            if not parking or not blames_event(error):
                raise
            if len(batch) == 1:
                return await self._fold(batch, _refusal(error))
        middle = len(batch) // 2
        first = await self.fold(batch[:middle], parking=True)
        second = await self.fold(batch[middle:], parking=True)
        return Folded([*first.changes, *second.changes], {**first.pauses, **second.pauses})

    async def _fold(self, batch: Sequence[Recorded], refused: str | None = None) -> Folded:
        """With *refused* the only event of *batch* is parked for that reason."""
        events = events_of_jobs(batch)
        # A job that begins in this batch is not in the file: most batches read nothing.
        begun = {recorded.job_id for recorded in events if recorded.version == 1}
        jobs = await self._load({recorded.job_id for recorded in events} - begun)
        fold = Fold(jobs)
        for begin in range(0, len(events), FOLDED_AT_ONCE):
            fold.add(events[begin : begin + FOLDED_AT_ONCE], refused)
            if begin + FOLDED_AT_ONCE < len(events):
                await asyncio.sleep(0)
        changes, left_out = list(fold.changes.values()), fold.parked
        if refused is not None and not left_out:
            left_out.append(parked_event(batch[0], refused))
        position = batch[-1].position
        if left_out:
            positions = {event.position for event in left_out}
            batch = [recorded for recorded in batch if recorded.position not in positions]
        self._present.add(batch, changes, left_out, position)
        return Folded(changes, pauses_of(batch))

    def may_move_others(self, changes: Iterable[JobChange]) -> bool:
        """Whether, by *changes*, another job may become able to start, or be cancelled."""
        return dependencies.may_move_others(changes, self._present.dependents)

    async def write(self) -> Written:
        """Write what was folded into every projection, and move the position, in one transaction.

        Raises the errors of projections and SQLite. After one, *forget_unwritten* is to be called.
        """
        window = self._present.begin_write()
        # Made by the thread of the connection, one by one: those of a window take long.
        results = await transaction(self._writer, _statements(window))
        moved = [
            MovedJob(waits, WaitingJob(*row))
            for text in results
            for waits, row in orjson.loads(text)
        ]
        self.position = window.position
        self._present.end_write()
        # The next write has those again that have changed since.
        changed = self._present.unwritten.changes
        moved = [each for each in moved if each.job.job_id not in changed]
        return Written(window.changes.values(), window.parked, moved)

    def forget_unwritten(self) -> None:
        """Go back to the position of the file."""
        self._present.forget_unwritten(self.position)

    async def apply(self, batch: Sequence[Recorded], *, parking: bool = False) -> Written:
        """Fold *batch*, and write it before the next one is folded.

        Raises as *fold* and *write* do, and then nothing has changed. With *parking* an event that
        cannot be written is left out, too.
        """
        try:
            await self.fold(batch, parking=parking)
            return await self.write()
        except Exception as error:
            self.forget_unwritten()
            if not parking or not blames_event(error):
                raise
            if len(batch) == 1:
                await self._fold(batch, _refusal(error))
                return await self.write()
        middle = len(batch) // 2
        first = await self.apply(batch[:middle], parking=True)
        second = await self.apply(batch[middle:], parking=True)
        return Written(
            [*first.changes, *second.changes],
            [*first.parked, *second.parked],
            [*first.moved, *second.moved],
        )

    def wal_bytes(self) -> int:
        """The size of the -wal. Blocks."""
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    async def truncate_wal(self) -> bool:
        """Whether the -wal was checkpointed and truncated; not while a reader has an old state."""
        # Nothing can be applied during this wait. It is long enough for this process's readers.
        await self._writer.execute_fetchall("PRAGMA busy_timeout = 100")
        try:
            [row] = await self._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            await self._writer.execute_fetchall("PRAGMA busy_timeout = 5000")
        return bool(row[0] == 0)

    def get_cached(self, job_id: str) -> FoldedJob | None:
        """The job as of *present_position*, if it is in memory."""
        return self._present.get(job_id)

    async def get(self, job_id: str) -> FoldedJob | None:
        """The job as of *present_position*."""
        return self._present.get(job_id) or (await self._load({job_id})).get(job_id)

    async def read(self, sql: str, *parameters: Any) -> Any:
        """The JSON value of a query that returns one row of one column.

        Rows that cross threads one by one would each acquire the interpreter lock.
        """
        return orjson.loads(await fetch_value(self._reader, sql, *parameters))

    async def read_named(self, sql: str, parameters: dict[str, Any]) -> Any:
        [row] = await self._reader.execute_fetchall(sql, parameters)
        return row[0] if not isinstance(row[0], str) else orjson.loads(row[0])

    async def read_list(self, sql: str, parameters: dict[str, Any]) -> list[Any]:
        """The JSON list of a query that may visit many jobs. It delays no other query."""
        [row] = await self._list_reader.execute_fetchall(sql, parameters)
        values: list[Any] = orjson.loads(row[0])
        return values

    async def progress_of(self, jobs: Iterable[Job]) -> dict[str, Progress]:
        ids = orjson.dumps([job.job_id for job in jobs]).decode()
        rows = await self.read(progress.SELECT_PROGRESS, ids)
        return {job_id: Progress.load(state) for job_id, state in rows}

    async def _load(self, ids: set[str]) -> dict[str, FoldedJob]:
        """The existing jobs of *ids*, from memory or the file."""
        present = self._present
        jobs = {id: cached for id in ids if (cached := present.get(id)) is not None}
        if len(jobs) == len(ids):
            return jobs
        epoch, position = present.epoch, present.position
        missing = orjson.dumps([id for id in ids if id not in jobs]).decode()
        rows = await self.read(status.SELECT_JOBS, missing)
        sized = [(status.job_from_row(row[:-1]), row[-1]) for row in rows]
        progress_of = await self.progress_of([job for job, _ in sized]) if sized else {}
        for job, size in sized:
            jobs[job.job_id] = job, progress_of.get(job.job_id)
            # Otherwise the present may have a newer one.
            if (epoch, position) == (present.epoch, present.position):
                present.put(job.job_id, jobs[job.job_id], size)
        return jobs


def _refusal(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _statements(window: UnwrittenChanges) -> Iterator[Statement]:
    for projection in PROJECTIONS:
        yield from projection.apply(window.changes.values())
    for event_projection in EVENT_PROJECTIONS:
        yield from event_projection.apply(window.events)
    yield from parked_events.apply(window.parked)
    yield SET_META, ("position", str(window.position))


async def _close(connections: Iterable[aiosqlite.Connection]) -> None:
    """Close *connections*, the writer among them first. As the last one closed it checkpoints."""
    for connection in reversed([*dict.fromkeys(connections)]):
        await connection.close()

"""One views file: its tables, the position they stand at, and how a batch is applied."""

import asyncio
import errno
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiosqlite
import orjson

from eventjobs.cache import LRUCache
from eventjobs.domain.events import SERVICE_EVENTS, JobSubmitted, Unreadable
from eventjobs.domain.job import Job, evolve, park
from eventjobs.domain.recorded import Recorded
from eventjobs.durability import replace, sync
from eventjobs.errors import ForeignDatabase
from eventjobs.projections import breakers, pauses, progress, queue, status, webhooks
from eventjobs.projections import dependencies as ties
from eventjobs.projections import parked_events as parked
from eventjobs.projections.attempt_progress import Progress, advance
from eventjobs.projections.change import JobChange, Statement
from eventjobs.projections.parked_events import ParkedEvent
from eventjobs.storage.sqlite import (
    EXCLUSIVE,
    connect,
    create_private_file,
    fetch_value,
    initialize,
    may_be_disk_full,
    transaction,
)


class Projection(Protocol):
    """Of jobs: *apply* is given what a batch of events did to each."""

    NAME: str
    VERSION: int
    SCHEMA: str

    def apply(self, touched: Iterable[JobChange], /) -> Iterator[Statement]: ...


class EventProjection(Protocol):
    """Of events, whatever they are about: *apply* is given the batch itself, in order."""

    NAME: str
    VERSION: int
    SCHEMA: str

    def apply(self, batch: Sequence[Recorded], /) -> Iterator[Statement]: ...


#: In this order: ties looks at what status and queue have written.
PROJECTIONS: tuple[Projection, ...] = (status, progress, queue, ties)
EVENT_PROJECTIONS: tuple[EventProjection, ...] = (webhooks, pauses, breakers)

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

#: What the -wal is cut down to when all that it holds is in the file.
WAL_BYTES_MAX = 64 * 2**20
CACHE_JOBS_MAX = 20_000
CACHE_BYTES_MAX = 64 * 2**20

CachedJob = tuple[Job, Progress | None]


#: Errors of SQLite that pass by themselves, or when there is room again.
_PASSING = {
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


def is_transient(error: Exception) -> bool:
    """Whether the same may go well later, with the same file."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError | MemoryError) or (
        code is not None and code & 0xFF in _PASSING
    )


def blames_event(error: Exception) -> bool:
    """Whether *error*, met while a sound file was written, comes from the event."""
    if not isinstance(error, sqlite3.Error):
        return not is_transient(error)
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_ERROR and "no such" not in str(error)
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)


class Applied(NamedTuple):
    """What a batch did to jobs, and which of its events were left out."""

    changes: list[JobChange]
    parked: list[ParkedEvent]


class StaleViews(Exception):
    """This file was made from another log, or by other versions of the projections."""


class Store:
    """Made with *open*. One task applies; any number may read."""

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        lister: aiosqlite.Connection,
    ) -> None:
        self.path = path
        self.position = 0
        #: Made by this process from nothing: what fails in it is not the file's fault.
        self.is_new = False
        self._writer = writer
        self._reader = reader
        self._list_reader = lister
        #: Folded jobs as of *position*, so that a job's next event needs no read.
        self._cache: LRUCache[CachedJob] = LRUCache(CACHE_JOBS_MAX, CACHE_BYTES_MAX)

    @classmethod
    async def open(cls, path: Path, log_id: str, head: int) -> "Store":
        """Open or make *path*.

        Raises Stale when it does not belong to this log and this code, or is spoilt; OSError and
        sqlite3.Error when it cannot be opened now.
        """
        if not await asyncio.to_thread(path.exists):
            await asyncio.to_thread(Store.remove, path)  # its -wal may be there still
        try:
            create_private_file(path)
        except ForeignDatabase as error:
            raise StaleViews(str(error)) from error
        try:
            return await cls._open(path, log_id, head)
        except sqlite3.OperationalError as error:
            if not may_be_disk_full(error):
                raise
            return await cls._open(path, log_id, head, alone=True)  # it needs less: see the log

    @classmethod
    async def _open(cls, path: Path, log_id: str, head: int, *, alone: bool = False) -> "Store":
        opened = [writer := await connect(path, *(EXCLUSIVE if alone else ()))]
        try:
            # Disposable: after a power cut it may be some commits behind, and catches up.
            schema = SCHEMA + "".join(each.SCHEMA for each in _all())
            made = await initialize(writer, schema, SCHEMA_VERSION)
            await writer.execute_fetchall("PRAGMA journal_mode = WAL")
            await writer.execute_fetchall("PRAGMA synchronous = NORMAL")
            await writer.execute_fetchall("PRAGMA wal_autocheckpoint = 4000")
            await writer.execute_fetchall(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
            identity = {"log_id": log_id, "projections": _versions()}
            if made:
                await transaction(writer, [(SET_META, each) for each in identity.items()])
            meta: dict[str, str] = orjson.loads(await fetch_value(writer, GET_META))
            position = int(meta.pop("position", 0))
            if meta != identity:
                raise StaleViews("of another log, or other versions of the projections")
            if position > head:
                raise StaleViews("further than the log")
            opened.append(writer if alone else await connect(path, read_only=True))
            opened.append(writer if alone else await connect(path, read_only=True))
        except BaseException as error:
            await _close(opened)
            if (
                isinstance(error, Exception)
                and not isinstance(error, StaleViews)
                and not is_transient(error)
            ):
                raise StaleViews(
                    str(error)
                ) from error  # whatever is wrong with it, it can be made anew
            raise
        store = cls(path, *opened)
        store.position, store.is_new = position, made
        return store

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a closed file; a power cut brings nothing back of it. Blocks, raises OSError.

        SQLite plays a -wal over whatever file has the name before it. So none outlives the file
        that it belongs to, and none is left when another file takes the name.
        """
        for names in ((path.name,), (f"{path.name}-wal", f"{path.name}-shm")):
            there = [each for name in names if (each := path.with_name(name)).exists()]
            for each in there:
                each.unlink()
            if there:
                sync(path.parent)

    @staticmethod
    def replace(new: Path, path: Path) -> None:
        """Put the closed file *new* in the place of *path*, which is closed, too. Blocks.

        Between the two there are no views, and the service builds them at its start. Raises
        OSError, also when not all that *new* has could be written into it.
        """
        if new.with_name(f"{new.name}-wal").exists():
            raise OSError(errno.EBUSY, "it is in use, or could not be checkpointed", str(new))
        Store.remove(path)
        replace(new, path)

    async def close(self) -> None:
        await _close([self._writer, self._reader, self._list_reader])

    async def apply(self, batch: Sequence[Recorded], *, parking: bool = False) -> Applied:
        """Fold *batch* into every projection and move the position, all or nothing.

        Raises whatever a projection or SQLite does. With *parking* an event that raises is left
        out, and the batch is applied in parts around it; that is for a file known to be sound.
        """
        try:
            return await self._apply(batch)
        except Exception as error:
            if not parking or not blames_event(error):
                raise
            if len(batch) == 1:
                return await self._apply(batch, f"{type(error).__name__}: {error}")
        middle = len(batch) // 2
        first = await self.apply(batch[:middle], parking=True)
        second = await self.apply(batch[middle:], parking=True)
        return Applied([*first.changes, *second.changes], [*first.parked, *second.parked])

    async def _apply(self, batch: Sequence[Recorded], refused: str | None = None) -> Applied:
        """With *refused* the only event of *batch* is parked because of that."""
        # A job that begins in this batch is not in the file: most batches read nothing.
        # A stream of the service's own is no job, but such an event may be in a job's by mistake.
        about_jobs = [
            each for each in batch if each.event.__class__ not in SERVICE_EVENTS or each.version > 1
        ]
        begun = {each.job_id for each in about_jobs if each.version == 1}
        known = await self._load({each.job_id for each in about_jobs} - begun)
        touched: dict[str, JobChange] = {}
        left_out: list[ParkedEvent] = []
        for recorded in about_jobs:
            job_id = recorded.job_id
            if recorded.event.__class__ is Unreadable:
                left_out.append(_parked(recorded, recorded.event.why))
            each = touched.get(job_id)
            if each is None:
                before, told = known.get(job_id) or (None, None)
                if before is None and not _begins(recorded, refused):
                    continue  # of a stream that is no job, or whose beginning cannot be read
                each = JobChange(before, before, told, told)  # type: ignore[arg-type]
                touched[job_id] = each
            was, each.after = each.after, _evolved(each.after, recorded, refused)
            if each.after.parked is None:
                each.progress = advance(each.progress, recorded)
            elif was.parked is None and recorded.event.__class__ is not Unreadable:
                left_out.append(_parked(recorded, each.after.parked["why"]))
            each.events.append(recorded)
        if refused is not None and not left_out:
            left_out.append(_parked(batch[0], refused))
        changes = list(touched.values())
        position = batch[-1].position
        statements: list[Statement] = [
            statement for projection in PROJECTIONS for statement in projection.apply(changes)
        ]
        if left_out:
            without = {each.position for each in left_out}
            batch = [each for each in batch if each.position not in without]
        for each_of_events in EVENT_PROJECTIONS:
            statements += each_of_events.apply(batch)
        statements += parked.apply(left_out)
        await transaction(self._writer, [*statements, (SET_META, ("position", str(position)))])
        for job_id, each in touched.items():
            size = 0
            for recorded in each.events:
                size += len(recorded.facts) + len(recorded.body or b"")
            self._cache.grow(job_id, (each.after, each.progress), size)
        self.position = position
        return Applied(changes, left_out)

    def wal_bytes(self) -> int:
        """Blocks."""
        try:
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    async def truncate_wal(self) -> bool:
        """Whether the -wal is in the file and empty; not while somebody reads an older state."""
        # Nothing can be applied meanwhile: wait for our own readers, and for no others.
        await self._writer.execute_fetchall("PRAGMA busy_timeout = 100")
        try:
            [row] = await self._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            await self._writer.execute_fetchall("PRAGMA busy_timeout = 5000")
        return bool(row[0] == 0)

    def cached(self, job_id: str) -> CachedJob | None:
        """The job as of *position*, if it is in memory."""
        return self._cache.get(job_id)

    async def get(self, job_id: str) -> CachedJob | None:
        return self._cache.get(job_id) or (await self._load({job_id})).get(job_id)

    async def read(self, sql: str, *parameters: Any) -> Any:
        """What one row with one JSON column says. Rows that cross one by one would each take the
        interpreter lock from a busy loop."""
        return orjson.loads(await fetch_value(self._reader, sql, *parameters))

    async def read_named(self, sql: str, parameters: dict[str, Any]) -> Any:
        [row] = await self._reader.execute_fetchall(sql, parameters)
        return row[0] if not isinstance(row[0], str) else orjson.loads(row[0])

    async def read_list(self, sql: str, parameters: dict[str, Any]) -> list[Any]:
        """What may go over many jobs to find a few: by itself, so that it keeps nobody waiting."""
        [row] = await self._list_reader.execute_fetchall(sql, parameters)
        found: list[Any] = orjson.loads(row[0])
        return found

    async def progress_of(self, jobs: Iterable[Job]) -> dict[str, Progress]:
        ids = orjson.dumps([job.job_id for job in jobs]).decode()
        found = await self.read(progress.SELECT_PROGRESS, ids)
        return {job_id: Progress.load(state) for job_id, state in found}

    async def _load(self, ids: set[str]) -> dict[str, CachedJob]:
        """Those of *ids* that there are, from memory or the file."""
        known = {each: kept for each in ids if (kept := self._cache.get(each)) is not None}
        if len(known) == len(ids):
            return known
        position = self.position
        missing = orjson.dumps([each for each in ids if each not in known]).decode()
        found = await self.read(status.SELECT_JOBS, missing)
        sized = [(status.job_from_row(row[:-1]), row[-1]) for row in found]
        told = await self.progress_of([job for job, _ in sized]) if sized else {}
        for job, size in sized:
            known[job.job_id] = job, told.get(job.job_id)
            if position == self.position:  # else what is kept may be newer
                self._cache.put(job.job_id, known[job.job_id], size)
        return known


async def _close(opened: Iterable[aiosqlite.Connection]) -> None:
    """Given the writer first: it is the last to close, and so checkpoints."""
    for each in reversed([*dict.fromkeys(opened)]):
        await each.close()


def _begins(recorded: Recorded, refused: str | None) -> bool:
    submitted = recorded.event.__class__ is JobSubmitted
    return refused is None and submitted and recorded.version == 1


def _evolved(job: Job, recorded: Recorded, refused: str | None) -> Job:
    if refused is None or job.parked is not None:
        return evolve(job, recorded)
    return park(job, recorded, refused)


def _parked(recorded: Recorded, why: str) -> ParkedEvent:
    return ParkedEvent(recorded.position, recorded.job_id, recorded.type, why)


class _Named(Protocol):
    NAME: str
    VERSION: int
    SCHEMA: str


def _all() -> tuple[_Named, ...]:
    return (*PROJECTIONS, *EVENT_PROJECTIONS, parked)


def _versions() -> str:
    return " ".join(f"{each.NAME}={each.VERSION}" for each in _all())

"""A job store with five synchronous methods, as a job service without asyncio keeps one.

Code that was written against such a class, with one JSON file for each job, continues to work:

    from eventjobs.job_store import JobStore, create_job

Each change is an event in a log in the directory, which a service can open later. Files of jobs
that are in the directory are imported when they are read.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import uuid4

import aiosqlite

from eventjobs.cache import LRUCache
from eventjobs.clock import SystemClock
from eventjobs.commands.imports import STAMPS_MAX, JobImporter
from eventjobs.commands.jobs import Jobs
from eventjobs.concurrency.keyed_lock import KeyedLock
from eventjobs.data_files import open_jobs
from eventjobs.domain.events import JobExpired, JobImported
from eventjobs.domain.ids import parse_id
from eventjobs.domain.job_files import MalformedJobFile, Source, parse_job_file
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.timestamps import naive
from eventjobs.errors import DirectoryLocked, InvalidInput
from eventjobs.log import PAGE_MAX
from eventjobs.log.rows import READ, READ_JOB, ROWS, recorded_from_bytes
from eventjobs.observability.logging import get_logger
from eventjobs.settings import Settings
from eventjobs.storable import encode_json
from eventjobs.storage.data_directory import LOG
from eventjobs.storage.job_directories import FoundFile, JobDirectories
from eventjobs.storage.sqlite import connect

JSON = dict[str, Any]
Result = TypeVar("Result")

#: The actor of its events, and what they name as the file.
ACTOR = SOURCE = "job_store"


class JobStore:
    """Jobs as dicts, stored in the directory *base_dir*. Usable from any thread.

    No method raises: after a failure the log has a line, and the result is None, False or []. A job
    has a `job_id` (a UUID) and a `status`; its other fields are kept as they are. One process at a
    time can change jobs: the one that has opened the directory, from its first call until *close*
    or its end. Beside it, and beside a service, the jobs are only read.
    """

    def __init__(self, base_dir: str | Path = "jobs") -> None:
        self._path = Path(base_dir)
        self._lock = threading.Lock()
        self._opened: _OpenStore | None = None
        self._log = get_logger("eventjobs.job_store")
        self._log.info(f"📁 JobStore initialized with base_dir: {base_dir}")

    def get_job(self, job_id: str) -> JSON | None:
        """The job as it was stored; None for an unknown one."""
        return self._attempt("get_job", None, lambda stored: stored.get(parse_id(job_id)))

    def store_job(self, job: JSON) -> bool:
        """Store *job*, in place of one with its `job_id`. False when it cannot be stored."""

        async def store(stored: _Records) -> bool:
            return await stored.store(parse_id(job["job_id"]), job)

        return self._attempt("store_job", False, store, writes=True)

    def update_job(self, job_id: str, updates: JSON) -> bool:
        """Change fields of a job, and its `updated_at`. False for an unknown job."""
        return self._attempt(
            "update_job",
            False,
            lambda stored: stored.update(parse_id(job_id), updates),
            writes=True,
        )

    def list_jobs(self, status: str | None = None, limit: int = 100) -> list[JSON]:
        """At most *limit* jobs, the newest first."""
        return self._attempt("list_jobs", [], lambda stored: stored.list(status, limit))

    def delete_job(self, job_id: str) -> bool:
        """Delete a job. False for an unknown one. The log keeps its events."""
        return self._attempt(
            "delete_job", False, lambda stored: stored.delete(parse_id(job_id)), writes=True
        )

    def close(self) -> None:
        """Let another process use the directory. The next call opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            opened.loop.call_soon_threadsafe(opened.stop.set)
            opened.thread.join()

    def _attempt(
        self,
        name: str,
        failed: Result,
        command: "Callable[[_Records], Coroutine[Any, Any, Result]]",
        *,
        writes: bool = False,
    ) -> Result:
        try:
            opened = self._open(writes)
            return asyncio.run_coroutine_threadsafe(
                _run(command, opened.stored), opened.loop
            ).result()
        except (InvalidInput, MalformedJobFile, KeyError, TypeError) as error:
            self._log.warning(f"⚠️ {name}: {error}")
        except Exception as error:  # noqa: BLE001 -- as promised
            self._log.error(f"❌ {name} failed: {error}", exc_info=error)
        return failed

    def _open(self, writes: bool) -> "_OpenStore":
        """Open the directory in a thread of its own. Raises DataDirectoryError, OSError."""
        with self._lock:
            if writes and self._opened is not None and self._opened.stored.locked is not None:
                self._close()  # the other process may have ended since
            if self._opened is None or self._opened.pid != os.getpid():  # a forked child opens anew
                started: Future[_OpenStore] = Future()
                work = partial(_run_thread, self._path, started)
                threading.Thread(target=work, name="job store", daemon=True).start()
                self._opened = started.result()
            return self._opened


class _OpenStore(NamedTuple):
    """The records, and the thread in which they are used."""

    pid: int
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    stored: "_Records"


async def _run(
    command: "Callable[[_Records], Coroutine[Any, Any, Result]]", stored: "_Records"
) -> Result:
    return await command(stored)  # what *command* raises before its first await is raised here too


def _run_thread(path: Path, started: "Future[_OpenStore]") -> None:
    try:
        asyncio.run(_serve(path, started))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _serve(path: Path, started: "Future[_OpenStore]") -> None:
    """Open the directory *path* until the store is closed."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    settings = Settings(data=path)
    async with AsyncExitStack() as stack:
        try:
            jobs = await stack.enter_async_context(open_jobs(settings))
        except DirectoryLocked as error:
            connection = await connect(path / LOG, read_only=True)
            stack.push_async_callback(connection.close)
            stored = _Records(_ReadOnlyLog(connection), locked=error)
        else:
            directories = JobDirectories([path], settings.job_file_bytes_max)
            stored = _Writer(jobs, JobImporter(jobs, directories))
        thread = threading.current_thread()
        started.set_result(_OpenStore(os.getpid(), thread, loop, stop, stored))
        await stop.wait()


class _ReadableLog(Protocol):
    async def read(self, after: int) -> list[Recorded]: ...
    async def read_job(self, job_id: str) -> list[Recorded]: ...


class _ReadOnlyLog:
    """The log of a directory that another process has open."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def read(self, after: int) -> list[Recorded]:
        return await self._fetch(READ, after, PAGE_MAX)

    async def read_job(self, job_id: str) -> list[Recorded]:
        return await self._fetch(READ_JOB, job_id, 0, -1)

    async def _fetch(self, sql: str, *parameters: Any) -> list[Recorded]:
        rows = await self._connection.execute_fetchall(ROWS[sql], parameters)
        return [recorded_from_bytes(*row) for row in rows]


class _Records:
    """The jobs of the log that were imported, as dicts. They are only read."""

    def __init__(self, log: _ReadableLog, locked: DirectoryLocked | None = None) -> None:
        self._stored = log
        #: Why jobs cannot be changed.
        self.locked = locked
        #: (created_us, status) of each job, up to *_position*.
        self._index: dict[str, tuple[int, str]] = {}
        self._position = 0

    async def get(self, job_id: str) -> JSON | None:
        for recorded in reversed(await self._stored.read_job(job_id)):
            if isinstance(recorded.event, JobExpired):
                return None
            if isinstance(recorded.event, JobImported):
                record: JSON | None = recorded.event.record
                return record
        return None

    async def list(self, status: str | None, limit: int) -> list[JSON]:
        await self._read_index()
        ids = [job_id for job_id, entry in self._index.items() if status in (None, entry[1])]
        ids.sort(key=lambda job_id: self._index[job_id], reverse=True)
        records = [await self.get(job_id) for job_id in ids[: max(0, limit)]]
        return [each for each in records if each is not None]

    async def _read_index(self) -> None:
        while page := await self._stored.read(self._position):
            for recorded in page:
                match recorded.event:
                    case JobImported(created_us=created_us, status=status):
                        self._index[recorded.job_id] = created_us, status
                    case JobExpired():
                        self._index.pop(recorded.job_id, None)
                    case _:
                        pass
            self._position = page[-1].position

    async def store(self, job_id: str, record: JSON) -> bool:
        return self._refuse()

    async def update(self, job_id: str, updates: JSON) -> bool:
        return self._refuse()

    async def delete(self, job_id: str) -> bool:
        return self._refuse()

    def _refuse(self) -> bool:
        assert self.locked is not None
        raise self.locked


class _Writer(_Records):
    """The jobs of the log that were imported, and the files of jobs beside it."""

    def __init__(self, jobs: Jobs, importer: JobImporter) -> None:
        super().__init__(jobs.log)
        self._jobs = jobs
        self._importer = importer
        self._locks = KeyedLock()
        self._stamps: LRUCache[tuple[int, ...]] = LRUCache(STAMPS_MAX, STAMPS_MAX)
        self._log = get_logger("eventjobs.job_store")

    async def get(self, job_id: str) -> JSON | None:
        file = await asyncio.to_thread(self._importer.directories.find, job_id)
        if file is not None:
            await self._import(file)
        return await super().get(job_id)

    async def list(self, status: str | None, limit: int) -> list[JSON]:
        for file in await asyncio.to_thread(lambda: [*self._importer.directories.scan()]):
            if file.job_id:
                await self._import(file)
        return await super().list(status, limit)

    async def store(self, job_id: str, record: JSON) -> bool:
        source = Source(job_id, SOURCE, self._jobs.clock.now_us())
        state = parse_job_file(encode_json(record), source)
        await self._jobs.import_state(job_id, state, revive=True, actor=ACTOR)
        return True

    async def update(self, job_id: str, updates: JSON) -> bool:
        await self._locks.acquire(job_id)
        try:
            if (record := await self.get(job_id)) is None:
                return False
            times = {"updated_at": naive(self._jobs.clock.now_us())}
            return await self.store(job_id, record | times | updates)
        finally:
            self._locks.release(job_id)

    async def delete(self, job_id: str) -> bool:
        if await self.get(job_id) is None:
            return False
        return (await self._jobs.delete_import(job_id, actor=ACTOR)).changed

    async def _import(self, file: FoundFile) -> None:
        """Import a file that is new, or was written after its job was stored last."""
        job = await self._jobs.load_even_parked(file.job_id)
        if job is not None and (job.imported is None or file.modified_us <= job.imported["at_us"]):
            return
        if self._stamps.get(file.job_id) == file.stamp:
            return
        self._stamps.put(file.job_id, file.stamp, 1)
        try:
            content = await asyncio.to_thread(self._importer.read, file)
            await self._importer.record(file.job_id, content.states)
        except MalformedJobFile as error:
            self._log.warning(f"⚠️ {file.path} is not read: {error}")


def create_job(payload: JSON, store: JobStore | None = None) -> str:
    """Store a new job with *payload* as `queued`, and return its id. Without a *store* it is in
    `shadow/jobs`.
    """
    job_id = str(uuid4())
    now = naive(SystemClock().now_us())
    times = {"created_at": now, "updated_at": now}
    job = {"job_id": job_id, "status": "queued", "payload": payload, **times}
    (store or _default_store()).store_job(job)
    return job_id


@cache
def _default_store() -> JobStore:
    return JobStore("shadow/jobs")

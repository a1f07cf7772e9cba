"""Views: the read models, kept beside the log and never the truth.

*Views* follows a log and keeps every projection in one file, `views.db`, which can be deleted at
any time. A new projection is a module with NAME, VERSION, SCHEMA and a pure *apply*, and one more
name in store.PROJECTIONS.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson
import structlog

from eventjobs.clock import Clock, SystemClock, sleep
from eventjobs.events import Recorded
from eventjobs.job import Job, Status
from projections import breakers, progress, queue, status, ties
from projections.pages import Pages
from projections.progress import Estimate
from projections.queue import NOTHING_HELD, Due, Held
from projections.stages import Progress
from projections.store import Stale, Store
from projections.ties import Doom
from projections.touched import Touched

__all__ = ["Doom", "JobView", "Log", "Stale", "Store", "Views"]

_SPOILT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Log(Protocol):
    """What views need of an event log."""

    @property
    def log_id(self) -> str: ...
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...
    async def wait(self, after: int) -> int: ...


class JobView(NamedTuple):
    """A job as the views show it. *estimate* is of this moment; the rest is of job.position."""

    job: Job
    progress: Progress | None
    estimate: Estimate | None


class Views:
    """Made with *open*; *run* keeps them current until cancelled."""

    def __init__(self, path: Path, log: Log, store: Store, clock: Clock) -> None:
        self.path = path
        self._events = log
        self._store = store
        self._clock = clock
        self._there = asyncio.Event()  # cleared for the moment in which files are swapped
        self._there.set()
        self._readers = 0
        self._unread = asyncio.Event()  # set while nobody reads
        self._unread.set()
        self._applying = asyncio.Lock()  # held to apply a batch, and to swap files
        self._turns: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[list[Touched]], object]] = []
        self._rebuilding: asyncio.Task[int] | None = None
        self._closing = False
        self._log = structlog.get_logger("eventjobs.views")

    @classmethod
    async def open(cls, path: Path, log: Log, clock: Clock | None = None) -> "Views":
        """Open *path*; views that do not match the log or this code are rebuilt first."""
        try:
            store = await Store.open(path, log.log_id, log.head)
        except Stale:
            await asyncio.to_thread(Store.remove, path)
            store = await Store.open(path, log.log_id, log.head)
        return cls(path, log, store, clock or SystemClock())

    async def close(self) -> None:
        self._closing = True
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding})  # stops before its next step
        await self._store.close()

    # --- following

    @property
    def position(self) -> int:
        return self._store.position

    async def run(self) -> None:
        """Apply what the log gets, for ever. A full disk makes views late, not wrong."""
        with Pages(self._events) as pages:
            while True:
                batch = await pages.read(self.position)
                if batch:
                    await self._apply(batch)
                else:
                    await self._events.wait(self.position)

    async def _apply(self, batch: list[Recorded]) -> None:
        try:
            async with self._applying:
                touched = await self._store.apply(batch)
        except sqlite3.Error as error:
            self._log.warning("views are behind", error=str(error), position=self.position)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SPOILT:
                await self._heal()
            await sleep(self._clock, 0.5)
        else:
            self._tell(touched)

    async def _heal(self) -> None:
        """The file is spoilt, and no later try would find it otherwise."""
        try:
            await self.rebuild()
        except (sqlite3.Error, OSError, Stale) as error:
            self._log.error("views cannot be rebuilt", error=str(error))

    def listen(self, listener: Callable[[list[Touched]], object]) -> None:
        """Call *listener* with what each applied batch changed; it must not block."""
        self._listeners.append(listener)

    async def reached(self, position: int) -> None:
        """Return once everything up to *position* can be read here."""
        while self.position < position:
            turn = asyncio.get_running_loop().create_future()
            self._turns.add(turn)
            try:
                await turn
            finally:
                self._turns.discard(turn)

    def _tell(self, touched: list[Touched]) -> None:
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)
        for listener in self._listeners:
            listener(touched)

    # --- rebuilding

    async def rebuild(self, progress: Callable[[int, int], object] | None = None) -> int:
        """Build the views anew beside the live ones, then take their place; reads go on.

        Returns the position at which they were swapped. There is one at a time, and it goes on
        when its caller is cancelled: half way through there are no views.
        """
        if self._rebuilding is None or self._rebuilding.done():
            self._rebuilding = asyncio.create_task(self._rebuild(progress), name="rebuild")
        return await asyncio.shield(self._rebuilding)

    async def _rebuild(self, progress: Callable[[int, int], object] | None) -> int:
        path = self.path.with_name(self.path.name + ".new")
        await asyncio.to_thread(Store.remove, path)
        fresh = await Store.open(path, self._events.log_id, self._events.head)
        try:
            await self._catch_up(fresh, progress)
            async with self._applying:
                await self._catch_up(fresh, progress)
                await self._take_place(fresh)
        except BaseException:
            await fresh.close()
            await asyncio.to_thread(Store.remove, path)
            raise
        self._log.info("views rebuilt", position=self.position)
        return self.position

    async def _catch_up(self, fresh: Store, progress: Callable[[int, int], object] | None) -> None:
        # No further than the live views: who listens to them has not been told of the rest.
        with Pages(self._events) as pages:
            while (left := self.position - fresh.position) > 0:
                if self._closing:
                    raise asyncio.CancelledError
                await fresh.apply(await pages.read(fresh.position, left))
                if progress is not None:
                    progress(fresh.position, self._events.head)
                await asyncio.sleep(0)

    async def _take_place(self, fresh: Store) -> None:
        """Called while nothing is being applied; waits until nothing is being read."""
        self._there.clear()
        try:
            await self._unread.wait()
            # SQLite finds its -wal and -shm by name: both files are closed while they are renamed.
            await self._store.close()
            await fresh.close()
            try:
                await asyncio.to_thread(Store.replace, fresh.path, self.path)
            finally:  # where it failed, the live ones are there still
                self._store = await Store.open(self.path, self._events.log_id, self._events.head)
        finally:
            self._there.set()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Store]:
        """The store, which is not swapped meanwhile."""
        while not self._there.is_set():
            await self._there.wait()
        self._readers += 1
        self._unread.clear()
        try:
            yield self._store
        finally:
            self._readers -= 1
            if not self._readers:
                self._unread.set()

    # --- reading: as of *position*

    async def job(self, job_id: str) -> JobView | None:
        async with self._reading() as store:
            kept = await store.get(job_id)
            return None if kept is None else (await self._viewed([kept]))[0]

    def kept(self, job_id: str) -> Job | None:
        """The job, if it is in memory: costs nothing."""
        kept = self._store.kept(job_id)
        return kept and kept[0]

    async def jobs(
        self, filters: dict[str, Any], *, order: str, cursor: int | None, limit: int
    ) -> list[JobView]:
        """A page of jobs that match *filters*, *cursor* being the last one's `born`."""
        if cursor is None:
            cursor = 0 if order == "oldest" else 2**62
        async with self._reading() as store:
            both = filters.get("type") is not None and filters.get("status") is not None
            counts = await store.read(status.COUNTS) if both else ()
            sql, bound = status.listing(filters, order, counts)
            found = await store.find(sql, bound | {"cursor": cursor, "limit": limit})
            jobs = [status.job_from_row(row) for row in found]
            told = await store.progress_of(jobs) if jobs else {}
            return await self._viewed([(job, told.get(job.job_id)) for job in jobs])

    async def counts(self) -> dict[str, dict[str, int]]:
        """Jobs by type and status: kept, not counted."""
        counted: dict[str, dict[str, int]] = {}
        async with self._reading() as store:
            for type, which, jobs in await store.read(status.COUNTS):
                counted.setdefault(type, {})[which] = jobs
        return counted

    async def ask(self, sql: str, *parameters: Any) -> Any:
        """What a projection's own question comes to: *sql* gives one row with one JSON value."""
        async with self._reading() as store:
            return await store.read(sql, *parameters)

    async def running(self) -> list[str]:
        async with self._reading() as store:
            found: list[str] = await store.read(status.RUNNING)
        return found

    async def breakers(self) -> list[breakers.Seen]:
        """The circuit breakers that ever opened, by name, as they were changed last."""
        async with self._reading() as store:
            return [breakers.Seen(*row) for row in await store.read(breakers.ALL)]

    async def due(
        self,
        now_us: int,
        types: Iterable[str],
        taken: Collection[str],
        limit: int,
        *,
        held: Held = NOTHING_HELD,
        key_max: int = 1,
        children_only: bool = False,
    ) -> list[Due]:
        """Up to *limit* jobs that may start, best first, *key_max* of a type with one key.

        With *children_only* those that have a parent, and first whose parent is the newest. None
        of them is in *taken*, waits in or for what is *held*, or is of what is paused.
        """
        bound = queue.due(now_us, types, taken, held, limit, key_max)
        async with self._reading() as store:
            asked = queue.DUE_CHILDREN if children_only else queue.DUE
            return [Due(*row) for row in await store.read_named(asked, bound)]

    async def next_due_us(self, now_us: int) -> int | None:
        """When the first of the jobs scheduled for later becomes due."""
        async with self._reading() as store:
            found: int | None = await store.read_named(queue.NEXT_DUE, {"1": now_us})
        return found

    async def newest_tagged(self, tag: str) -> str | None:
        """The newest job that carries *tag*, also when it is hidden."""
        async with self._reading() as store:
            found: str | None = await store.read(status.NEWEST_TAGGED, tag)
        return found

    async def unmet(self, job_id: str) -> list[tuple[str, str | None]]:
        """The (id, status) of the jobs that *job_id* waits for; that is why it does not start."""
        async with self._reading() as store:
            return [(other, status) for other, status in await store.read(ties.UNMET, job_id)]

    async def doomed(self, limit: int) -> list[Doom]:
        """Up to *limit* unfinished jobs that are to be cancelled because of another one."""
        async with self._reading() as store:
            return [Doom(*each) for each in await store.read(ties.DOOMED, limit)]

    async def expiring(self, now_us: int, ended_us: int, limit: int) -> list[str]:
        """Jobs that expire by themselves at *now_us*, or say nothing and ended by *ended_us*."""
        bound = {"now_us": now_us, "ended_us": ended_us, "limit": limit}
        async with self._reading() as store:
            found: list[str] = await store.read_named(status.EXPIRING, bound)
        return found

    async def _viewed(self, found: list[tuple[Job, Progress | None]]) -> list[JobView]:
        types = {job.spec.type for job, _ in found if job.status == Status.RUNNING}
        times: dict[str, dict[str, progress.Usual]] = {}
        if types:
            listed = orjson.dumps(sorted(types)).decode()
            times = progress.usual_times(await self._store.read(progress.TIMES, listed))
        now_us = self._clock.now_us()
        return [
            JobView(job, told, progress.estimate(job, told, times.get(job.spec.type, {}), now_us))
            for job, told in found
        ]

"""The file of the views that is in use: it follows the log, and is made anew when that helps."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import orjson

from eventjobs.clock import Clock, SystemClock, sleep
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import LogUnavailable
from eventjobs.observability.logging import get_logger
from eventjobs.projections import parked_events as parked
from eventjobs.projections import store
from eventjobs.projections.change import JobChange
from eventjobs.projections.parked_events import ParkedEvent
from eventjobs.projections.read_ahead import ReadAhead
from eventjobs.projections.store import StaleViews, Store, is_transient

#: Before what failed is tried again.
RETRY_S = 0.5
#: Batches between two looks at the size of the -wal.
WAL_LOOK = 64
#: A -wal so many times the size that it is cut down to is given up, and its file with it.
WAL_TIMES = 4

T = TypeVar("T")


class Log(Protocol):
    """What views need of an event log."""

    @property
    def log_id(self) -> str: ...
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...
    async def wait(self, after: int, job_id: str | None = None) -> int: ...


class _Live:
    """Made with *open*; *run* keeps it current until cancelled.

    Whatever is wrong with the file, reads wait until it is made anew, or can be used again.
    """

    def __init__(self, path: Path, log: Log, clock: Clock) -> None:
        self.path = path
        #: Why the views cannot be read or written now; None while they can.
        self.failing: str | None = None
        self._events = log
        self._opened = False
        self._clock = clock
        self._there = asyncio.Event()  # cleared while there is no file, or files are swapped
        self._readers = 0
        self._unread = asyncio.Event()  # set while nobody reads
        self._unread.set()
        self._applying = asyncio.Lock()  # held to apply a batch, and to swap files
        self._turns: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[list[JobChange]], object]] = []
        self._rebuilding: asyncio.Task[int] | None = None
        self._closing = False
        self._applied = 0
        #: Set while *failing*.
        self.failure_event = asyncio.Event()
        self._log = get_logger("eventjobs.views")

    _store: Store

    @classmethod
    async def open(cls, path: Path, log: Log, clock: Clock | None = None) -> Self:
        """Open *path*; views that do not match the log or this code are rebuilt first.

        Where it cannot be opened now, *run* tries again.
        """
        views = cls(path, log, clock or SystemClock())
        try:
            await asyncio.to_thread(Store.remove, views._path_of_new)  # a rebuild was cut off
            await views._open()
        except (OSError, sqlite3.Error, StaleViews) as error:
            views._failed(error)
        return views

    async def _open(self) -> None:
        """Raises OSError, sqlite3.Error, Stale."""
        log_id, head = self._events.log_id, self._events.head
        try:
            self._store = await Store.open(self.path, log_id, head)
        except StaleViews as error:
            self._log.warning("views are made anew", error=str(error))
            await asyncio.to_thread(Store.remove, self.path)
            self._store = await Store.open(self.path, log_id, head)
        self._opened = True
        self._there.set()
        await self._tell_parked()

    async def _reopen(self) -> None:
        """Return once there is a file; the first time, and after a swap that failed."""
        while not self._there.is_set() and not self._closing:
            async with self._applying:  # else files are being swapped just now
                if not self._there.is_set():
                    try:
                        await self._open()
                    except (OSError, sqlite3.Error, StaleViews) as error:
                        self._failed(error)
            if not self._there.is_set():
                await sleep(self._clock, RETRY_S)
                continue
            self._works()
            self._notify([])

    async def _tell_parked(self) -> None:
        count, first = await self.parked(10)
        if count:
            positions = [each.position for each in first]
            self._log.error("events are parked", count=count, first=positions)

    async def close(self) -> None:
        self._closing = True
        for turn in self._turns:
            if not turn.done():
                turn.set_result(None)
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding})  # stops before its next step
        if self._opened:
            await self._store.close()

    # --- following

    @property
    def position(self) -> int:
        return self._store.position if self._opened else 0

    async def run(self) -> None:
        """Apply what the log gets, for ever. A full disk makes views late, not wrong."""
        with ReadAhead(self._events) as pages:
            while True:
                try:
                    await self._reopen()
                    batch = await pages.read(self.position)
                    if batch:
                        await self._apply(batch)
                    else:
                        self._works()
                        await self._events.wait(self.position)
                except LogUnavailable:
                    raise  # it is closed
                except Exception as error:  # noqa: BLE001 without views no job is run
                    self._failed(error)
                    await sleep(self._clock, RETRY_S)

    async def _apply(self, batch: list[Recorded]) -> None:
        async with self._applying:
            try:
                applied = await self._store.apply(batch, parking=self._store.is_new)
            except Exception as error:  # noqa: BLE001 the file is made anew, whatever is wrong
                self._failed(error)
                failed: Exception | None = error
            else:
                failed = None
        if failed is not None:
            await self._heal(failed)
            return
        self._works()
        for each in applied.parked:
            self._log.error("event parked", **each._asdict())
        self._notify(applied.changes)
        self._applied += 1
        if self._applied % WAL_LOOK == 0:
            await self._bound_wal()

    async def _bound_wal(self) -> None:
        """Another program that reads the views on and on keeps their -wal from being begun anew:
        what it has open is left to it.
        """
        size = await asyncio.to_thread(self._store.wal_bytes)
        if size <= store.WAL_BYTES_MAX:
            return
        async with self._applying:
            done = await self._store.truncate_wal()
        if not done and size > WAL_TIMES * store.WAL_BYTES_MAX:
            self._log.error("somebody reads views.db for too long: it is made anew", wal=size)
            await self.rebuild()

    async def _heal(self, error: Exception) -> None:
        """Wait for better times, or make anew what would fail again."""
        if not is_transient(error):
            try:
                await self.rebuild()
            except Exception as again:  # noqa: BLE001 as above
                self._failed(again)
        await sleep(self._clock, RETRY_S)

    def _failed(self, error: Exception) -> None:
        why = f"{type(error).__name__}: {error}"
        if self.failing != why:
            self._log.error("views are behind", error=why, position=self.position)
        self.failing = why
        self.failure_event.set()

    def _works(self) -> None:
        if self.failing is not None:
            self._log.warning("views work again", position=self.position)
            self.failing = None
            self.failure_event.clear()

    def listen(self, listener: Callable[[list[JobChange]], object]) -> None:
        """Call *listener* with what each applied batch changed; it must not block."""
        self._listeners.append(listener)

    async def reached(self, position: int) -> None:
        """Return once everything up to *position* can be read here.

        Raises LogUnavailable when the views are closed before that.
        """
        while self.position < position:
            if self._closing:
                raise LogUnavailable("the views are closed")
            turn = asyncio.get_running_loop().create_future()
            self._turns.add(turn)
            try:
                await turn
            finally:
                self._turns.discard(turn)

    def _notify(self, touched: list[JobChange]) -> None:
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

    @property
    def _path_of_new(self) -> Path:
        return self.path.with_name(f"{self.path.name}.new")

    async def _rebuild(self, progress: Callable[[int, int], object] | None) -> int:
        path = self._path_of_new
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
            await self._reopen()
            raise
        self._log.info("views rebuilt", position=self.position)
        self._works()
        await self._tell_parked()
        return self.position

    async def _catch_up(self, fresh: Store, progress: Callable[[int, int], object] | None) -> None:
        # No further than the live views: who listens to them has not been told of the rest.
        with ReadAhead(self._events) as pages:
            while (left := self.position - fresh.position) > 0:
                if self._closing:
                    raise asyncio.CancelledError
                await fresh.apply(await pages.read(fresh.position, left), parking=True)
                if progress is not None:
                    progress(fresh.position, self._events.head)
                await asyncio.sleep(0)

    async def _take_place(self, fresh: Store) -> None:
        """Called while nothing is being applied; waits until nothing is being read."""
        self._there.clear()
        await self._unread.wait()
        # SQLite finds its -wal and -shm by name: both files are closed while they are renamed.
        if self._opened:
            await self._store.close()
        await fresh.close()
        await asyncio.to_thread(Store.replace, fresh.path, self.path)
        self._store = await Store.open(self.path, self._events.log_id, self._events.head)
        self._store.is_new = self._opened = True
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

    async def _read(self, look: Callable[[Store], Awaitable[T]]) -> T:
        """What *look* finds in the store, once that can be read."""
        failed = False
        while True:
            try:
                async with self._reading() as store:
                    found = await look(store)
            except (sqlite3.Error, orjson.JSONDecodeError) as error:
                failed, spoilt = True, error
            else:
                if failed:
                    self._works()
                return found
            self._failed(spoilt)
            await self._heal(spoilt)

    async def query(self, sql: str, *parameters: Any) -> Any:
        """What a projection's own question comes to: *sql* gives one row with one JSON value."""
        return await self._read(lambda store: store.read(sql, *parameters))

    async def parked(self, limit: int) -> tuple[int, list[ParkedEvent]]:
        """How many events could not be applied, and the first *limit* of them."""
        count, first = await self.query(parked.SELECT_PARKED, limit)
        return count, [ParkedEvent(*each) for each in first]

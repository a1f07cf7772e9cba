"""*Views* follows a log and keeps every projection in one file, `views.db`.

The file can be deleted at any time: it is rebuilt from the log. A new projection is a module with
NAME, VERSION, SCHEMA and a pure *apply*, and one more entry in registry.PROJECTIONS.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import orjson

from eventjobs.clock import Clock, SystemClock, sleep
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import JobNotFound, LogUnavailable
from eventjobs.observability.logging import get_logger
from eventjobs.projections import store
from eventjobs.projections.change import JobChange
from eventjobs.projections.current_store import CurrentStore, FollowedLog
from eventjobs.projections.fold import Applied
from eventjobs.projections.queries import JobView, ViewQueries
from eventjobs.projections.read_ahead import ReadAhead
from eventjobs.projections.store import Store
from eventjobs.projections.store_errors import StaleViews, is_transient

#: The pause before another attempt after a failure.
RETRY_S = 0.5
#: Batches between two checks of the size of the -wal.
WAL_CHECK_BATCHES = 64
#: A -wal of this many times the size that it is truncated to is given up, and its file with it.
WAL_FACTOR_MAX = 4

T = TypeVar("T")


class Views(ViewQueries):
    """Made with *open*; *run* keeps it current until cancelled.

    While the file is damaged or missing, reads wait until it is rebuilt or can be used again.
    """

    def __init__(self, path: Path, log: FollowedLog, clock: Clock) -> None:
        self.path = path
        #: Why the views cannot be read or written now; None while they can.
        self.failing: str | None = None
        #: Set while *failing*.
        self.failure_event = asyncio.Event()
        self._events = log
        self._clock = clock
        self._current = CurrentStore(path, log)
        self._applying = asyncio.Lock()  # held to apply a batch, and to swap files
        self._waiting: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[list[JobChange]], object]] = []
        self._batch_listeners: list[Callable[[Applied], object]] = []
        self._rebuilding: asyncio.Task[int] | None = None
        self._closing = False
        self._batches = 0
        self._log = get_logger("eventjobs.views")

    @classmethod
    async def open(cls, path: Path, log: FollowedLog, clock: Clock | None = None) -> "Views":
        """Open *path*; views that do not match the log or this code are rebuilt.

        When it cannot be opened now, *run* tries again.
        """
        views = cls(path, log, clock or SystemClock())
        try:
            await asyncio.to_thread(Store.remove, views._path_of_new)  # of an interrupted rebuild
            await views._open()
        except (OSError, sqlite3.Error, StaleViews) as error:
            views._set_failing(error)
        return views

    async def _open(self) -> None:
        """Raises OSError, sqlite3.Error, StaleViews."""
        await self._current.open()
        await self._log_parked()

    async def _reopen(self) -> None:
        """Return once there is a file: at the start, and after a swap that failed."""
        while not self._current.is_available and not self._closing:
            async with self._applying:  # not while files are being swapped
                if not self._current.is_available:
                    try:
                        await self._open()
                    except (OSError, sqlite3.Error, StaleViews) as error:
                        self._set_failing(error)
            if not self._current.is_available:
                await sleep(self._clock, RETRY_S)
                continue
            self._set_working()
            self._notify(Applied([], []))

    async def _log_parked(self) -> None:
        count, first = await self.parked_events(10)
        if count:
            positions = [event.position for event in first]
            self._log.error("events are parked", count=count, first=positions)

    async def close(self) -> None:
        self._closing = True
        self._wake()
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding})  # it ends before its next step
        await self._current.close()

    # --- following the log

    @property
    def position(self) -> int:
        return self._current.position

    async def run(self) -> None:
        """Apply the events of the log. Never ends. On a full disk the views fall behind."""
        with ReadAhead(self._events) as windows:
            while True:
                try:
                    await self._reopen()
                    batch = await windows.read(self.position)
                    if batch:
                        await self._apply(batch)
                    else:
                        self._set_working()
                        await self._events.wait(self.position)
                except LogUnavailable:
                    raise  # it is closed
                except Exception as error:  # noqa: BLE001 without views no job is run
                    self._set_failing(error)
                    await sleep(self._clock, RETRY_S)

    async def _apply(self, batch: list[Recorded]) -> None:
        async with self._applying:
            current = self._current.store
            try:
                applied = await current.apply(batch, parking=current.is_new)
            except Exception as error:  # noqa: BLE001 any failure is cured by a rebuild
                self._set_failing(error)
                failure: Exception | None = error
            else:
                failure = None
        if failure is not None:
            await self._heal(failure)
            return
        self._set_working()
        for event in applied.parked:
            self._log.error("event parked", **event._asdict())
        self._notify(applied)
        self._batches += 1
        if self._batches % WAL_CHECK_BATCHES == 0:
            await self._bound_wal()

    async def _bound_wal(self) -> None:
        """Truncate a large -wal. One that another program keeps open is left to that program."""
        size = await asyncio.to_thread(self._current.store.wal_bytes)
        if size <= store.WAL_BYTES_MAX:
            return
        async with self._applying:
            truncated = await self._current.store.truncate_wal()
        if not truncated and size > WAL_FACTOR_MAX * store.WAL_BYTES_MAX:
            self._log.error("another program reads views.db for too long: rebuilding it", wal=size)
            await self.rebuild()

    async def _heal(self, error: Exception) -> None:
        """Rebuild the file, unless *error* is transient; then pause."""
        if not is_transient(error):
            try:
                await self.rebuild()
            except Exception as failure:  # noqa: BLE001 as above
                self._set_failing(failure)
        await sleep(self._clock, RETRY_S)

    def _set_failing(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if self.failing != reason:
            self._log.error("views are behind", error=reason, position=self.position)
        self.failing = reason
        self.failure_event.set()

    def _set_working(self) -> None:
        if self.failing is not None:
            self._log.warning("views work again", position=self.position)
            self.failing = None
            self.failure_event.clear()

    # --- waiting for changes

    def listen(self, listener: Callable[[list[JobChange]], object]) -> None:
        """Call *listener* with the changes of each applied batch; it must not block."""
        self._listeners.append(listener)

    def listen_to_batches(self, listener: Callable[[Applied], object]) -> None:
        """As *listen*, with all that a batch has changed."""
        self._batch_listeners.append(listener)

    async def wait_for_position(self, position: int) -> None:
        """Return once the views show everything up to *position*.

        Raises LogUnavailable when the views are closed before that.
        """
        while self.position < position:
            if self._closing:
                raise LogUnavailable("the views are closed")
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    async def watch(self, job_id: str) -> AsyncGenerator[JobView, None]:
        """The job now, and again after each change, until it has ended or is hidden.

        The last one is the end; of changes in quick succession some may be left out. Raises
        JobNotFound, and LogUnavailable once the log is closed.
        """
        seen = 0
        while True:
            head = self._events.head  # a later event ends the wait below
            await self.wait_for_position(head)
            view = await self.job(job_id)
            if view is None and not seen:
                raise JobNotFound
            if view is None or view.job.expired_us is not None:
                return
            if view.job.position > seen:
                seen = view.job.position
                yield view
            if view.job.finished:
                return
            await self._events.wait(head, job_id)

    def _notify(self, applied: Applied) -> None:
        self._wake()
        for batch_listener in self._batch_listeners:
            batch_listener(applied)
        for listener in self._listeners:
            listener(applied.changes)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    # --- rebuilding

    async def rebuild(self, progress: Callable[[int, int], object] | None = None) -> int:
        """Rebuild the views in a second file, then swap the files; reads continue meanwhile.

        Returns the position at which they were swapped. There is one rebuild at a time. It goes on
        when its caller is cancelled: half-way through a swap there are no views. *progress* gets
        (position, head) after each batch.
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
        new = await Store.open(path, self._events.log_id, self._events.head)
        try:
            await self._catch_up(new, progress)
            async with self._applying:
                await self._catch_up(new, progress)
                await self._current.swap(new)
        except BaseException:
            await new.close()
            await asyncio.to_thread(Store.remove, path)
            await self._reopen()
            raise
        self._log.info("views rebuilt", position=self.position)
        self._set_working()
        await self._log_parked()
        return self.position

    async def _catch_up(self, new: Store, progress: Callable[[int, int], object] | None) -> None:
        # Only up to the live views: their listeners have not yet been notified of later events.
        with ReadAhead(self._events) as windows:
            while (left := self.position - new.position) > 0:
                if self._closing:
                    raise asyncio.CancelledError
                await new.apply(await windows.read(new.position, left), parking=True)
                if progress is not None:
                    progress(new.position, self._events.head)
                await asyncio.sleep(0)

    # --- reading

    async def _read(self, lookup: Callable[[Store], Awaitable[T]]) -> T:
        failed = False
        while True:
            try:
                async with self._current.reading() as current:
                    result = await lookup(current)
            except (sqlite3.Error, orjson.JSONDecodeError) as error:
                failed, failure = True, error
            else:
                if failed:
                    self._set_working()
                return result
            self._set_failing(failure)
            await self._heal(failure)

    def cached_job(self, job_id: str) -> Job | None:
        """The job, if it is in memory; reads no file."""
        cached = self._current.store.get_cached(job_id) if self._current.is_opened else None
        return cached and cached[0]

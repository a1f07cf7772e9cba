"""*Views* follows a log: it folds each batch in memory, and writes every projection to `views.db`.

The file can be deleted at any time: it is rebuilt from the log. A new projection is a module with
NAME, VERSION, SCHEMA and a pure *apply*, and one more entry in registry.PROJECTIONS.
docs/internals/views.md explains the present, which is ahead of the file, and the writes behind it.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
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
from eventjobs.projections.fold import Folded, Written
from eventjobs.projections.position_waits import PositionWaits
from eventjobs.projections.queries import JobView, ViewQueries
from eventjobs.projections.read_ahead import ReadAhead
from eventjobs.projections.store import Store
from eventjobs.projections.store_errors import StaleViews, is_transient
from eventjobs.projections.write_behind import WriteBehind

#: The pause before another attempt after a failure.
RETRY_S = 0.5
#: Writes between two checks of the size of the -wal.
WAL_CHECK_WRITES = 64
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
        #: The position of the newest change that listeners were notified of.
        self._notified = 0
        self._folding = asyncio.Lock()
        self._applying = asyncio.Lock()  # held to write to the file, and to swap files
        self._writes = WriteBehind(
            self._current, clock, self._applying, self._on_write, self._on_write_failure
        )
        self._write_count = 0
        self._waits = PositionWaits(lambda: self.position)
        self._present_waits = PositionWaits(lambda: self.present_position)
        self._listeners: list[Callable[[list[JobChange]], object]] = []
        self._batch_listeners: list[Callable[[Folded], object]] = []
        self._write_listeners: list[Callable[[Written], object]] = []
        self._rebuilding: asyncio.Task[int] | None = None
        self._recoveries: set[asyncio.Task[None]] = set()
        self._closing = False
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
        self._notified = max(self._notified, self.position)
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

    async def _log_parked(self) -> None:
        count, first = await self.parked_events(10)
        if count:
            positions = [event.position for event in first]
            self._log.error("events are parked", count=count, first=positions)

    async def close(self) -> None:
        self._closing = True
        self._waits.close()
        self._present_waits.close()
        if self._rebuilding is not None:
            await asyncio.wait({self._rebuilding})  # it ends before its next step
        for recovery in self._recoveries:
            recovery.cancel()
        await asyncio.gather(*self._recoveries, return_exceptions=True)
        await self._writes.close()
        await self._current.close()

    # --- following the log

    @property
    def position(self) -> int:
        """The position of the file: all queries but those of one job are answered as of it."""
        return self._current.position

    @property
    def present_position(self) -> int:
        """The position of the present: *job* and *cached_job* are as of it."""
        if not self._current.is_opened:
            return 0
        # It is less after a failure, until what is in the log was folded again.
        return min(self._notified, self._current.store.present_position)

    async def run(self) -> None:
        """Follow the log. Never ends. On a full disk the views fall behind."""
        with ReadAhead(self._events) as windows:
            while True:
                try:
                    await self._reopen()
                    async with self._folding:
                        await self._repeat()
                        await self._follow(windows)
                    await self._events.wait(self._notified)
                except LogUnavailable:
                    raise  # it is closed
                except Exception as error:  # noqa: BLE001 without views no job is run
                    self._set_failing(error)
                    await sleep(self._clock, RETRY_S)

    async def _follow(self, windows: ReadAhead) -> None:
        """Fold what is in the log now, and let it be written."""
        while batch := await windows.read(self._notified):
            await self._writes.wait_for_space()
            store = self._current.store
            if store.present_position != self._notified:
                return  # a write has failed, or the file was swapped
            try:
                folded = await store.fold(batch, parking=store.is_new)
            except Exception as error:  # noqa: BLE001 any failure is cured by a rebuild
                self._set_failing(error)
                await self._heal(error)
                return
            self._notified = batch[-1].position
            self._notify_of_fold(folded)
            if store.may_move_others(folded.changes):
                self._writes.want(self._notified)
            else:
                self._writes.write_if_due()
        if self.present_position == self._notified:
            self._set_working()

    async def _repeat(self) -> None:
        """Bring a file that was lost, or not written, to what listeners were notified of."""
        with ReadAhead(self._events) as windows:
            while (left := self._notified - self._current.store.present_position) > 0:
                await self._reopen()
                if batch := await windows.read(self.position, left):
                    await self._apply(batch)
                    self._present_waits.wake()

    async def _apply(self, batch: list[Recorded]) -> None:
        """Fold and write *batch*, which was folded before."""
        async with self._applying:
            store = self._current.store
            try:
                written = await store.apply(batch, parking=store.is_new)
            except Exception as error:  # noqa: BLE001 as above
                self._set_failing(error)
                failure: Exception | None = error
            else:
                failure = None
        if failure is not None:
            await self._heal(failure)
            return
        await self._on_write(written)
        if written.parked:  # listeners have these jobs as they were
            parked = [each for each in written.changes if each.after.parked is not None]
            self._notify_of_fold(Folded(parked))

    # --- writing behind

    async def _on_write(self, written: Written) -> None:
        self._set_working()
        for event in written.parked:
            self._log.error("event parked", **event._asdict())
        self._waits.wake()
        for listener in self._write_listeners:
            listener(written)
        self._write_count += 1
        if self._write_count % WAL_CHECK_WRITES == 0:
            await self._bound_wal()

    def _on_write_failure(self, error: Exception) -> None:
        self._set_failing(error)
        self._recover(error)

    def _recover(self, error: Exception | None = None) -> None:
        """Write again what was folded and is not in the file, after a failure or a swap."""

        async def recover() -> None:
            with suppress(LogUnavailable):  # it is closed
                async with self._folding:
                    if error is not None:
                        await self._heal(error)
                    await self._repeat()

        recovery = asyncio.create_task(recover(), name="recover views")
        self._recoveries.add(recovery)
        recovery.add_done_callback(self._recoveries.discard)

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
        """Call *listener* with the changes of each batch, as soon as the present has them; it must
        not block. Queries of the file show them after *wait_for_position*.
        """
        self._listeners.append(listener)

    def listen_to_batches(self, listener: Callable[[Folded], object]) -> None:
        """As *listen*, with all that a batch has changed."""
        self._batch_listeners.append(listener)

    def listen_to_writes(self, listener: Callable[[Written], object]) -> None:
        """Call *listener* with what each write of the file has changed; it must not block."""
        self._write_listeners.append(listener)

    async def wait_for_position(self, position: int) -> None:
        """Return once the file shows everything up to *position*; it is written at once.

        Raises LogUnavailable when the views are closed before that.
        """
        self._writes.want(position)
        await self._waits.wait(position)

    async def wait_for_present(self, position: int) -> None:
        """Return once *job* and *cached_job* show everything up to *position*. Raises as above."""
        await self._present_waits.wait(position)

    async def watch(self, job_id: str) -> AsyncGenerator[JobView, None]:
        """The job now, and again after each change, until it has ended or is hidden.

        The last one is the end; of changes in quick succession some may be left out. Raises
        JobNotFound, and LogUnavailable once the log is closed.
        """
        seen = 0
        while True:
            head = self._events.head  # a later event ends the wait below
            await self.wait_for_present(head)
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

    def _notify_of_fold(self, folded: Folded) -> None:
        self._present_waits.wake()
        for batch_listener in self._batch_listeners:
            batch_listener(folded)
        for listener in self._listeners:
            listener(folded.changes)

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
        if self.position < self._notified:
            self._recover()
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

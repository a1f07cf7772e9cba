"""Writes the views file behind the present: once an interval, when much has changed, or at once
when something waits for it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from eventjobs.clock import Clock, Timer
from eventjobs.projections.current_store import CurrentStore
from eventjobs.projections.fold import Written

#: The longest time that a change is in memory only. A job that ends within it is written once.
INTERVAL_S = 0.05


class WriteBehind:
    """One write at a time. What changes during it is for the next one."""

    def __init__(
        self,
        current: CurrentStore,
        clock: Clock,
        lock: asyncio.Lock,
        on_write: Callable[[Written], Awaitable[object]],
        on_failure: Callable[[Exception], object],
    ) -> None:
        """*lock* is held to write. Before *on_failure* is called, all changes are forgotten."""
        self._current = current
        self._clock = clock
        self._lock = lock
        self._on_write = on_write
        self._on_failure = on_failure
        #: The highest position that is waited for.
        self._wanted = 0
        #: Fires at the end of the interval.
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def want(self, position: int) -> None:
        """Write up to *position* as soon as it is folded."""
        self._wanted = max(self._wanted, position)
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write now if that is due; otherwise at the end of the interval."""
        if self._task is not None or not self._current.is_opened or not self._has_changes:
            return
        if self._wanted > self._current.position or self._current.store.unwritten.is_full:
            self._start()
        elif self._timer is None:
            self._timer = self._clock.call_later(INTERVAL_S, self._start)

    @property
    def _has_changes(self) -> bool:
        # Fewer after a swap: the new file is at the position of the one before.
        return self._current.store.unwritten.position > self._current.position

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._write(), name="write views")

    async def _write(self) -> None:
        try:
            async with self._lock:
                if not self._has_changes:
                    return
                store = self._current.store
                try:
                    written = await store.write()
                except BaseException:
                    store.forget_unwritten()
                    raise
            await self._on_write(written)
        except Exception as error:  # noqa: BLE001 any failure is cured by a rebuild
            self._on_failure(error)
        finally:
            self._task = None
        self.write_if_due()

    async def wait_for_space(self) -> None:
        """Return when there is memory for more changes."""
        while self._task is not None and self._current.store.unwritten.is_full:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Return when no write is under way, and begin none."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

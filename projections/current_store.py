"""The views file in use. It can be swapped for a new one while nothing reads it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from eventjobs.domain.recorded import Recorded
from eventjobs.observability.logging import get_logger
from eventjobs.projections.store import Store
from eventjobs.projections.store_errors import StaleViews


class FollowedLog(Protocol):
    """What views need of an event log."""

    @property
    def log_id(self) -> str: ...
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...
    async def wait(self, after: int, job_id: str | None = None) -> int: ...


class CurrentStore:
    """The Store at *path*. Reads wait while there is none, or files are being swapped."""

    def __init__(self, path: Path, log: FollowedLog) -> None:
        self.path = path
        self._events = log
        self._store: Store | None = None
        self._available = asyncio.Event()
        self._readers = 0
        self._unused = asyncio.Event()  # set while there are no readers
        self._unused.set()
        self._log = get_logger("eventjobs.views")

    @property
    def store(self) -> Store:
        """The store; it must have been opened."""
        assert self._store is not None
        return self._store

    @property
    def is_opened(self) -> bool:
        """Whether the file was ever opened; reads may wait all the same."""
        return self._store is not None

    @property
    def is_available(self) -> bool:
        return self._available.is_set()

    @property
    def position(self) -> int:
        """The position that the views are at; 0 before the file is opened."""
        return 0 if self._store is None else self._store.position

    async def open(self) -> None:
        """Open the file; an unusable one is replaced. Raises OSError, sqlite3.Error, StaleViews."""
        try:
            self._store = await self._open_store()
        except StaleViews as error:
            self._log.warning("views are made anew", error=str(error))
            await asyncio.to_thread(Store.remove, self.path)
            self._store = await self._open_store()
        self._available.set()

    async def swap(self, new: Store) -> None:
        """Put *new* in the place of the file. Waits for readers; later ones wait for this.

        Nothing may be applied meanwhile. After an exception there is no file, until *open*.
        """
        self._available.clear()
        await self._unused.wait()
        # SQLite finds -wal and -shm by name: both files are closed while they are renamed.
        if self._store is not None:
            await self._store.close()
        await new.close()
        await asyncio.to_thread(Store.replace, new.path, self.path)
        self._store = await self._open_store()
        self._store.is_new = True
        self._available.set()

    async def _open_store(self) -> Store:
        return await Store.open(self.path, self._events.log_id, self._events.head)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Store]:
        """The store. It is not swapped before the block ends."""
        while not self._available.is_set():
            await self._available.wait()
        self._readers += 1
        self._unused.clear()
        try:
            yield self.store
        finally:
            self._readers -= 1
            if not self._readers:
                self._unused.set()

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

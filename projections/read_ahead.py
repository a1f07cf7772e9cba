"""Reads a log far behind its head in windows: the next one while the one before is applied."""

import asyncio
from contextlib import AbstractContextManager
from typing import Protocol

from eventjobs.domain.recorded import Recorded

#: Events of one read of the log. They are decoded in one turn of the event loop.
PAGE = 500
#: Events of the first page, whose sizes nothing is known of.
FIRST_PAGE = 20
#: Events of one window. A job with events in two windows is written twice; the larger a window,
#: the more objects the garbage collector visits.
WINDOW = 4000
#: Bytes of a window in memory.
WINDOW_BYTES = 16 * 2**20


class Readable(Protocol):
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...


class ReadAhead(AbstractContextManager["ReadAhead"]):
    """For one reader at a time, inside `with`. At most two windows are in memory."""

    def __init__(self, log: Readable) -> None:
        self._log = log
        #: The window that is being read ahead, and the position that it begins after.
        self._ahead: tuple[int, asyncio.Task[list[Recorded]]] | None = None
        #: Events of the next page: a quarter of a window's bytes at the size of the newest ones.
        self._page = FIRST_PAGE

    async def read(self, after: int, limit: int | None = None) -> list[Recorded]:
        """The events with positions above *after*: a window, or *limit* if that is less."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after:
            window = await ahead[1]
        else:
            if ahead is not None:
                ahead[1].cancel()
            window = await self._read_window(after)
        last = after + len(window)
        if window and self._log.head >= last + PAGE:  # otherwise a later read gets more at once
            self._ahead = last, asyncio.create_task(self._read_window(last), name="read ahead")
        return window[:limit]

    async def _read_window(self, after: int) -> list[Recorded]:
        window: list[Recorded] = []
        size = 0
        while len(window) < WINDOW and size < WINDOW_BYTES:
            asked = min(self._page, WINDOW - len(window))
            page = await self._log.read(after + len(window), asked)
            window += page
            page_size = sum([each.memory_size for each in page])
            size += page_size
            if page_size:
                fitting = WINDOW_BYTES // 4 * len(page) // page_size
                self._page = max(1, min(PAGE, fitting))
            if len(page) < asked:
                break
        return window

    def __exit__(self, *error: object) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()

"""Reads pages far behind the head of a log: the next one while the one before is applied."""

import asyncio
from contextlib import AbstractContextManager
from typing import Protocol

from eventjobs.domain.recorded import Recorded

#: Events of one page. With larger pages fewer jobs are in two of them, and written twice.
PAGE = 2000


class Readable(Protocol):
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...


class ReadAhead(AbstractContextManager["ReadAhead"]):
    """For one reader at a time, inside `with`."""

    def __init__(self, log: Readable) -> None:
        self._log = log
        #: The page that is being read ahead, and the position that it begins after.
        self._ahead: tuple[int, asyncio.Task[list[Recorded]]] | None = None

    async def read(self, after: int, limit: int = PAGE) -> list[Recorded]:
        """Up to *limit* events with positions above *after*, at most a page."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after:
            page = await ahead[1]
        else:
            if ahead is not None:
                ahead[1].cancel()
            page = await self._log.read(after, PAGE)
        last = after + len(page)
        if page and self._log.head >= last + PAGE:  # otherwise a later read gets more in one page
            task = asyncio.create_task(self._log.read(last, PAGE), name="read ahead")
            self._ahead = last, task
        return page[:limit]

    def __exit__(self, *error: object) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()

"""Reading far behind the head of a log: one page while the one before it is worked on."""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from eventjobs.domain.recorded import Recorded

#: Events of one page. The more, the fewer jobs are in two of them, and are written twice.
PAGE = 2000


class Readable(Protocol):
    @property
    def head(self) -> int: ...
    async def read(self, after: int, limit: int) -> list[Recorded]: ...


class ReadAhead:
    """For one reader at a time, inside `with`."""

    def __init__(self, log: Readable) -> None:
        self._log = log
        #: What is being read ahead, and after which position.
        self._ahead: tuple[int, asyncio.Task[list[Recorded]]] | None = None

    async def read(self, after: int, limit: int = PAGE) -> list[Recorded]:
        """Up to *limit* events with positions above *after*, and never more than a page."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after:
            page = await ahead[1]
        else:
            if ahead is not None:
                ahead[1].cancel()
            page = await self._log.read(after, PAGE)
        last = after + len(page)
        if page and self._log.head >= last + PAGE:  # else a later look finds more in one page
            reading = asyncio.create_task(self._log.read(last, PAGE), name="read ahead")
            self._ahead = last, reading
        return page[:limit]

    def _forget(self) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forget()

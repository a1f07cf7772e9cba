"""Pages that several streams read: each is read and encoded once."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from eventjobs.cache import LRUCache
from eventjobs.concurrency.keyed_lock import KeyedLock
from eventjobs.http.streams.job_filter import JobFilter


class SharedPage(Protocol):
    """What a filter matches after a position."""

    @property
    def after(self) -> int: ...

    @property
    def size(self) -> int:
        """About how many bytes it has."""


P = TypeVar("P", bound=SharedPage)


class SharedPages(Generic[P]):
    """The pages that were read last, by filter and position: up to *bytes_max*.

    Streams that catch up at the same time from the same position, or across it, share them.
    """

    def __init__(self, bytes_max: int = 16 * 2**20) -> None:
        self._pages: LRUCache[P] = LRUCache(entries_max=4096, bytes_max=bytes_max)
        self._reading = KeyedLock()

    async def get(
        self,
        job_filter: JobFilter,
        after: int,
        read: Callable[[JobFilter, int], Awaitable[Sequence[P]]],
        is_usable: Callable[[P], bool] = lambda page: True,
    ) -> P:
        """The page after that position, from memory or by *read*, which may read others after it.

        One that is not usable is read again.
        """
        key = job_filter, after
        if (page := self._pages.get(key)) is not None and is_usable(page):
            return page
        await self._reading.acquire(key)
        try:
            if (page := self._pages.get(key)) is not None and is_usable(page):
                return page
            first, *others = await read(job_filter, after)
            for each in (*reversed(others), first):  # the first is dropped last
                self._pages.put((job_filter, each.after), each, each.size)
            return first
        finally:
            self._reading.release(key)

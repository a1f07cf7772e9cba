"""Worker slots. A job that waits for another job lends its slot, and only child jobs may take it.

See docs/internals/slots.md.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from eventjobs.errors import JobError
from eventjobs.execution.source import Capacity

#: Most jobs of a mode that wait at once: a waiting job keeps its thread or process.
WAITING_MAX = {"loop": 10_000, "thread": 1_000, "process": 100}
#: The mode of a slot whose handler has ended while its outcome is recorded.
NO_MODE = ""


class Slots:
    """*concurrency* slots in all, and at most *limits[mode]* of a mode.

    A job has a slot from its claim until its outcome is recorded. While it waits for another job
    its slot is lent to a job with a parent. Parents therefore never keep their children from
    running, and no more jobs without a parent start than there are slots.
    """

    def __init__(self, concurrency: int, limits: Mapping[str, int]) -> None:
        self._concurrency = concurrency
        self._limits = limits
        #: By mode: slots that jobs have, and those of them that are lent.
        self._taken = Counter(dict.fromkeys(WAITING_MAX, 0))  # a missing key is slow
        self._lent = Counter(self._taken)
        #: Lent slots whose jobs wait to get them back, in order of their requests.
        self._waiters: dict[Slot, asyncio.Future[None]] = {}

    def capacities(
        self, types: Mapping[str, list[str]], prefetch: Mapping[str, int]
    ) -> tuple[list[Capacity], int]:
        """Free capacity for the *types* of each mode, and in total.

        Modes in *prefetch* also claim so many jobs beyond their free slots, except while a job of
        the mode has lent its slot: a prefetched job could take the slot that it waits for.
        """
        free = self._concurrency - self._taken.total()
        capacities = []
        for mode, names in types.items():
            left, lent = self._limit(mode) - self._taken[mode], self._lent[mode]
            if free > 0 and (left > 0 or not lent):
                ahead = 0 if lent else max(0, prefetch.get(mode, 0) + min(0, left))
                capacities.append(Capacity(names, max(0, left), ahead))
            else:
                capacities.append(Capacity(names, max(0, left + lent), children_only=names))
        return capacities, max(0, free if free > 0 else free + self._lent.total())

    def take(self, mode: str) -> "Slot":
        """A slot for a claimed job; *is_prefetched* when none of the mode is free."""
        is_prefetched = self._taken[mode] - self._lent[mode] >= self._limit(mode)
        self._taken[mode] += 1
        return Slot(self, mode, is_prefetched=is_prefetched)

    def _limit(self, mode: str) -> int:
        return self._limits.get(mode, self._concurrency)

    # --- called by Slot

    def release_while_waiting(self, slot: "Slot") -> None:
        """Lend the slot. Raises JobError `too_many_waiting`."""
        self._wake(slot)  # another task of the handler that waited for the slot
        if slot.is_lent or slot.is_finished:
            return
        if self._lent[slot.mode] >= WAITING_MAX[slot.mode]:
            raise JobError(
                "too_many_waiting",
                f"{WAITING_MAX[slot.mode]} jobs here wait for others already (mode {slot.mode})",
            )
        slot.is_lent = True
        self._lent[slot.mode] += 1
        self._grant()

    async def reacquire(self, slot: "Slot") -> None:
        """Wait until the slot is free for its job again. A cancelled job gets it at once."""
        if not slot.is_lent:
            return
        turn = self._waiters[slot] = asyncio.get_running_loop().create_future()
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if self._waiters.get(slot) is turn:
                self.reclaim(slot)
            raise

    def reclaim(self, slot: "Slot") -> None:
        """Give a lent slot back to its job, even if more jobs run then than there are slots."""
        if slot.is_lent:
            slot.is_lent = False
            self._lent[slot.mode] -= 1
            self._wake(slot)

    def free_mode(self, slot: "Slot") -> bool:
        """Free the thread or process of *slot*, but not the slot; whether that was limited."""
        self.reclaim(slot)
        if slot.mode not in self._limits:
            return False
        self._taken[slot.mode] -= 1
        self._taken[NO_MODE] += 1
        slot.mode = NO_MODE
        self._grant()
        return True

    def release(self, slot: "Slot") -> None:
        self.reclaim(slot)
        self._taken[slot.mode] -= 1
        self._grant()

    def _wake(self, slot: "Slot") -> None:
        turn = self._waiters.pop(slot, None)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _grant(self) -> None:
        """Give free slots back to waiting jobs, oldest first. New jobs cannot take them first."""
        if not self._waiters:
            return
        left = self._concurrency - self._taken.total() + self._lent.total()
        for slot in list(self._waiters) if left > 0 else ():
            mode = slot.mode
            if self._taken[mode] - self._lent[mode] < self._limit(mode):
                self.reclaim(slot)
                left -= 1
            if left <= 0:
                break


class Slot:
    """The slot of one attempt."""

    __slots__ = ("_slots", "_wait_count", "is_finished", "is_lent", "is_prefetched", "mode")

    def __init__(self, slots: Slots, mode: str, *, is_prefetched: bool) -> None:
        self._slots = slots
        self._wait_count = 0
        self.mode = mode
        #: Whether no slot of its mode was free when its job was claimed.
        self.is_prefetched = is_prefetched
        self.is_lent = False
        self.is_finished = False

    @asynccontextmanager
    async def released_while_waiting(self) -> AsyncIterator[None]:
        """Lend the slot while the body waits for another job, then wait to get it back.

        An attempt that waits for several jobs at once lends its slot until the last one has ended,
        even if the attempt runs code in between. Raises JobError `too_many_waiting`.
        """
        self._slots.release_while_waiting(self)
        self._wait_count += 1
        try:
            yield
        except BaseException:
            self._wait_count -= 1
            if not self._wait_count:
                self._slots.reclaim(self)
            raise
        self._wait_count -= 1
        if not self._wait_count:
            await self._slots.reacquire(self)

    def free_mode(self) -> bool:
        """The handler has ended: free its thread or process; whether that was limited.

        Tasks of the handler that still wait for jobs no longer affect the slot.
        """
        self.is_finished = True
        return self._slots.free_mode(self)

    def release(self) -> None:
        """The attempt has ended: free the slot."""
        self.is_finished = True
        self._slots.release(self)

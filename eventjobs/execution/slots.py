"""How many jobs are at work at once here. One that waits for another makes room for children."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from eventjobs.errors import JobError
from eventjobs.execution.source import Capacity

#: Of each mode, so many wait at once at most: each keeps what it has, such as a whole process.
WAITING_MAX = {"loop": 10_000, "thread": 1_000, "process": 100}
#: Of what is only written down by now.
NO_MODE = ""


class Slots:
    """*concurrency* of them in all, and of the modes in *limits* so many.

    A job has a slot from its beginning to its end. While it waits for another job its slot is lent,
    and only to jobs that have a parent: so parents never keep their children out, and yet no more
    jobs without a parent are begun than there are slots.
    """

    def __init__(self, concurrency: int, limits: Mapping[str, int]) -> None:
        self._concurrency = concurrency
        self._limits = limits
        #: By mode: had by jobs, and those of them that are lent.
        self._had: Counter[str] = Counter()
        self._lent: Counter[str] = Counter()
        #: Lent ones whose job wants to go on, the first come first.
        self._wanted: dict[Slot, asyncio.Future[None]] = {}

    def capacities(
        self, types: Mapping[str, list[str]], ahead: Mapping[str, int]
    ) -> tuple[list[Capacity], int]:
        """Room for more jobs of the *types* of each mode, and for how many in all; of some modes a
        few are taken *ahead*, but not while somebody waits, for whom one of those might be kept.
        """
        free = self._concurrency - self._had.total()
        rooms = []
        for mode, names in types.items():
            left, lent = self._limit(mode) - self._had[mode], self._lent[mode]
            if free > 0 and (left > 0 or not lent):
                more = 0 if lent else max(0, ahead.get(mode, 0) + min(0, left))
                rooms.append(Capacity(names, max(0, left), more))
            else:
                rooms.append(Capacity(names, max(0, left + lent), children_only=names))
        return rooms, max(0, free if free > 0 else free + self._lent.total())

    def take(self, mode: str) -> "Slot":
        is_ahead = self._had[mode] - self._lent[mode] >= self._limit(mode)
        self._had[mode] += 1
        return Slot(self, mode, is_ahead=is_ahead)

    def _limit(self, mode: str) -> int:
        return self._limits.get(mode, self._concurrency)

    # --- for a Slot

    def release_while_waiting(self, slot: "Slot") -> None:
        """Raises JobError `too_many_waiting`."""
        self._go_on(slot)  # another task of its handler, which needs no slot as long as this waits
        if slot.is_lent or slot.is_over:
            return
        if self._lent[slot.mode] >= WAITING_MAX[slot.mode]:
            raise JobError(
                "too_many_waiting",
                f"{WAITING_MAX[slot.mode]} jobs here wait for others already (mode {slot.mode})",
            )
        slot.is_lent = True
        self._lent[slot.mode] += 1
        self._hand_out()

    async def reacquire(self, slot: "Slot") -> None:
        """Return when the slot is had again. Told to stop meanwhile, it is had at once."""
        if not slot.is_lent:
            return
        turn = self._wanted[slot] = asyncio.get_running_loop().create_future()
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if self._wanted.get(slot) is turn:
                self.reclaim(slot)
            raise

    def reclaim(self, slot: "Slot") -> None:
        """Whether or not there are too many then."""
        if slot.is_lent:
            slot.is_lent = False
            self._lent[slot.mode] -= 1
            self._go_on(slot)

    def free_mode(self, slot: "Slot") -> bool:
        self.reclaim(slot)
        if slot.mode not in self._limits:
            return False
        self._had[slot.mode] -= 1
        self._had[NO_MODE] += 1
        slot.mode = NO_MODE
        self._hand_out()
        return True

    def release(self, slot: "Slot") -> None:
        self.reclaim(slot)
        self._had[slot.mode] -= 1
        self._hand_out()

    def _go_on(self, slot: "Slot") -> None:
        turn = self._wanted.pop(slot, None)
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _hand_out(self) -> None:
        """To those that want theirs back, one each, though a thousand of their children end at
        once. Nobody can begin before them: what was free is taken by now.
        """
        left = self._concurrency - self._had.total() + self._lent.total()
        for slot in list(self._wanted) if left > 0 else ():
            mode = slot.mode
            if self._had[mode] - self._lent[mode] < self._limit(mode):
                self.reclaim(slot)
                left -= 1
            if left <= 0:
                break


class Slot:
    """That of one attempt."""

    __slots__ = ("_slots", "_waits", "is_ahead", "is_lent", "is_over", "mode")

    def __init__(self, slots: Slots, mode: str, *, is_ahead: bool) -> None:
        self._slots = slots
        self._waits = 0
        self.mode = mode
        #: It was taken before there was one free.
        self.is_ahead = is_ahead
        self.is_lent = False
        self.is_over = False

    @asynccontextmanager
    async def released_while_waiting(self) -> AsyncIterator[None]:
        """In here the attempt waits for another job; after that it has a slot again.

        When it waits for several at once, the slot is lent until the last of them has ended, and
        whatever it does besides is not counted. Raises JobError `too_many_waiting`.
        """
        self._slots.release_while_waiting(self)
        self._waits += 1
        try:
            yield
        except BaseException:
            self._waits -= 1
            if not self._waits:
                self._slots.reclaim(self)
            raise
        self._waits -= 1
        if not self._waits:
            await self._slots.reacquire(self)

    def free_mode(self) -> bool:
        """The handler has ended: it needs no thread or process any longer, if it did. What still
        waits in its name needs no slot.
        """
        self.is_over = True
        return self._slots.free_mode(self)

    def release(self) -> None:
        self.is_over = True
        self._slots.release(self)

"""The claimers that wait for a job, and which types of jobs wake which of them."""

import asyncio
from collections.abc import Collection, Sequence

from eventjobs.execution.source import Capacity

#: What a claimer waits for, apart from numbers. A job that one claimer of a kind may claim, any
#: other of that kind may, too.
Kind = tuple[tuple[frozenset[str], frozenset[str], bool, bool], ...]


class ClaimWaiters:
    """Each claimer has an asyncio.Event, its *wake*, from its first search to its last.

    Of the claimers of one kind that wait, a change wakes one: it has the turn of its kind. The turn
    passes to the next one, unless a search has shown that there is nothing left for that kind.
    """

    def __init__(self) -> None:
        #: By wake: the free capacity at the claimer's last search that selected nothing.
        self._capacities: dict[asyncio.Event, Sequence[Capacity]] = {}
        #: Wakes of the claimers that search now: these may ignore no change.
        self._searching: set[asyncio.Event] = set()
        #: By kind: wakes of the claimers that wait, in the order in which they began to.
        self._waiting: dict[Kind, dict[asyncio.Event, None]] = {}
        #: By type: the kinds of the claimers that wait with capacity for it.
        self._kinds: dict[str, set[Kind]] = {}
        #: By wake of a claimer that has a turn: its kind at that time.
        self._turns: dict[asyncio.Event, Kind] = {}

    def subscribe(self) -> asyncio.Event:
        """A new wake. It is set when a search may select a job that an earlier one did not."""
        wake = asyncio.Event()
        self._capacities[wake] = ()
        self._searching.add(wake)
        return wake

    def unsubscribe(self, wake: asyncio.Event) -> None:
        self.pass_turn(wake)
        self._capacities.pop(wake, None)
        self._searching.discard(wake)

    async def sleep(self, wake: asyncio.Event, capacities: Sequence[Capacity]) -> None:
        """Return when *wake* is set. The claimer's last search selected nothing."""
        kind = _kind_of(capacities)
        if self._turns.get(wake) == kind:
            del self._turns[wake]  # there is nothing left for this kind
        else:
            self.pass_turn(wake)
        self._capacities[wake] = capacities
        self._searching.discard(wake)
        self._add(wake, kind)
        try:
            await wake.wait()
        finally:
            self._remove(wake, kind)
            self._searching.add(wake)

    def pass_turn(self, wake: asyncio.Event) -> None:
        """The claimer has selected jobs, or does not search: another one may select more."""
        if (kind := self._turns.pop(wake, None)) is not None:
            self._wake_first(kind)

    @property
    def are_waiting(self) -> bool:
        """Whether a claimer waits for any type."""
        return bool(self._kinds)

    def is_sleeping(self, wake: asyncio.Event) -> bool:
        return wake not in self._searching

    def has_capacity_for(self, type: str, *, child: bool) -> bool:
        """Whether a waiting claimer would claim a job of *type* at once."""
        return any(
            capacity.free > 0
            and type in capacity.types
            and (child or type not in capacity.children_only)
            for capacities in self._capacities.values()
            for capacity in capacities
        )

    def wake_for(self, types: Collection[str]) -> None:
        """Wake a claimer of each kind with capacity for one of *types*, and those that search."""
        for kind in set[Kind]().union(*(self._kinds.get(type, ()) for type in types)):
            self._wake_first(kind)
        for wake in self._searching:
            wake.set()

    def wake_all(self) -> None:
        for wake in self._capacities:
            wake.set()

    def _wake_first(self, kind: Kind) -> None:
        if waiting := self._waiting.get(kind):
            wake = next(iter(waiting))
            self._remove(wake, kind)
            self._turns[wake] = kind
            wake.set()

    def _add(self, wake: asyncio.Event, kind: Kind) -> None:
        if (waiting := self._waiting.get(kind)) is None:
            waiting = self._waiting[kind] = {}
            for type in _types_of(kind):
                self._kinds.setdefault(type, set()).add(kind)
        waiting[wake] = None

    def _remove(self, wake: asyncio.Event, kind: Kind) -> None:
        if wake not in (waiting := self._waiting.get(kind, {})):
            return
        del waiting[wake]
        if not waiting:
            del self._waiting[kind]
            for type in _types_of(kind):
                self._kinds[type].discard(kind)
                if not self._kinds[type]:
                    del self._kinds[type]


def _kind_of(capacities: Sequence[Capacity]) -> Kind:
    return tuple(
        (frozenset(each.types), frozenset(each.children_only), each.free > 0, each.prefetch > 0)
        for each in capacities
    )


def _types_of(kind: Kind) -> set[str]:
    return {type for types, *_ in kind for type in types}

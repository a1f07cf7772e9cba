"""The claimers that wait for a job, and which types of jobs wake which of them."""

import asyncio
from collections.abc import Collection, Sequence

from eventjobs.execution.source import Capacity


class ClaimWaiters:
    """Each claimer has an asyncio.Event, its *wake*, from its first search to its last."""

    def __init__(self) -> None:
        #: By wake: the free capacity at the claimer's last search that selected nothing.
        self._capacities: dict[asyncio.Event, Sequence[Capacity]] = {}
        #: Wakes of the claimers that search now: these may ignore no change.
        self._searching: set[asyncio.Event] = set()
        #: By type: wakes of the claimers that wait with capacity for it.
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def subscribe(self) -> asyncio.Event:
        """A new wake. It is set whenever a search may select a job that an earlier one did not."""
        wake = asyncio.Event()
        self._capacities[wake] = ()
        self._searching.add(wake)
        return wake

    def unsubscribe(self, wake: asyncio.Event) -> None:
        self._capacities.pop(wake, None)
        self._searching.discard(wake)

    async def sleep(self, wake: asyncio.Event, capacities: Sequence[Capacity]) -> None:
        """Return when *wake* is set."""
        types = {type for capacity in capacities for type in capacity.types}
        self._capacities[wake] = capacities
        self._searching.discard(wake)
        for type in types:
            self._waiting.setdefault(type, set()).add(wake)
        try:
            await wake.wait()
        finally:
            for type in types:
                self._waiting[type].discard(wake)
                if not self._waiting[type]:
                    del self._waiting[type]
            self._searching.add(wake)

    @property
    def are_waiting(self) -> bool:
        """Whether a claimer waits for any type."""
        return bool(self._waiting)

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
        """Wake the claimers with capacity for one of *types*, and those that search now."""
        for type in types:
            for wake in self._waiting.get(type, ()):
                wake.set()
        for wake in self._searching:
            wake.set()

    def wake_all(self) -> None:
        for wake in self._capacities:
            wake.set()

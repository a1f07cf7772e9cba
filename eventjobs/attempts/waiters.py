"""The claimers that wait for a job, and which change wakes which of them."""

import asyncio
from collections.abc import Sequence

from eventjobs.clock import Clock
from eventjobs.execution.source import Capacity


class ClaimWaiters:
    """Each claimer has an asyncio.Event, its *wake*, from its first search to its last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: By wake: the free capacity at the claimer's last search that selected nothing.
        self._capacities: dict[asyncio.Event, Sequence[Capacity]] = {}
        #: Wakes of the claimers that do not search now. Only those may ignore a change.
        self._sleeping: set[asyncio.Event] = set()

    def subscribe(self) -> asyncio.Event:
        """A new wake. It is set whenever a search may select a job that an earlier one did not."""
        wake = asyncio.Event()
        self._capacities[wake] = ()
        return wake

    def unsubscribe(self, wake: asyncio.Event) -> None:
        self._capacities.pop(wake, None)

    async def sleep(
        self, wake: asyncio.Event, capacities: Sequence[Capacity], max_s: float
    ) -> None:
        """Return when *wake* is set, after *max_s* seconds at the latest."""
        timer = self._clock.call_later(max_s, wake.set)
        self._capacities[wake] = capacities
        self._sleeping.add(wake)
        try:
            await wake.wait()
        finally:
            timer.cancel()
            self._sleeping.discard(wake)

    def is_sleeping(self, wake: asyncio.Event) -> bool:
        return wake in self._sleeping

    def has_capacity_for(self, type: str, *, child: bool) -> bool:
        """Whether a waiting claimer would claim a job of *type* at once."""
        return any(
            capacity.free > 0
            and type in capacity.types
            and (child or type not in capacity.children_only)
            for capacities in self._capacities.values()
            for capacity in capacities
        )

    def wake_for(self, types: set[str]) -> None:
        """Wake the claimers with capacity for one of *types*, and those that search now."""
        for wake, capacities in self._capacities.items():
            if wake not in self._sleeping or any(
                not types.isdisjoint(capacity.types) for capacity in capacities
            ):
                wake.set()

    def wake_all(self) -> None:
        for wake in self._capacities:
            wake.set()

"""The followers that are up to date, grouped by what they want."""

from itertools import chain

from eventjobs.http.streams.filter_index import FilterIndex
from eventjobs.http.streams.frames import HEARTBEAT, Frames
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.subscriber import DetachReason, Follower


class LiveFollowers:
    """Followers at the head, by filter."""

    def __init__(self, position: int) -> None:
        #: All up to this position was offered to the followers whose own position is not higher.
        self.position = position
        self._by_filter: dict[JobFilter, set[Follower]] = {}
        self._index = FilterIndex()
        #: Those that need the job of an event.
        self._filters_with_jobs: set[JobFilter] = set()

    def __bool__(self) -> bool:
        return bool(self._by_filter)

    def join(self, follower: Follower) -> None:
        job_filter = follower.job_filter
        if (group := self._by_filter.get(job_filter)) is not None:
            follower.job_filter = next(iter(group)).job_filter  # equal filters are one object
            group.add(follower)
            return
        self._by_filter[job_filter] = {follower}
        self._index.add(job_filter)
        named = job_filter.ids is not None or job_filter.matches_everything
        if not named or job_filter.reader is not None:
            self._filters_with_jobs.add(job_filter)

    def leave(self, follower: Follower) -> bool:
        """Offer nothing more to *follower*. Returns whether it was live."""
        job_filter = follower.job_filter
        group = self._by_filter.get(job_filter)
        if group is None or follower not in group:
            return False
        group.remove(follower)
        if not group:
            del self._by_filter[job_filter]
            self._index.discard(job_filter)
            self._filters_with_jobs.discard(job_filter)
        return True

    def detach(self, follower: Follower, reason: DetachReason) -> None:
        """End the live phase of *follower*, which goes on from the current position."""
        if self.leave(follower):
            follower.position = max(follower.position, self.position)
            follower.on_detached(reason)

    def detach_all(self, reason: DetachReason) -> None:
        for follower in self._all():
            self.detach(follower, reason)

    def send_heartbeat(self) -> None:
        heartbeat = Frames(HEARTBEAT)
        for follower in self._all():
            if reason := follower.beat(heartbeat):
                self.detach(follower, reason)

    def offer(self, follower: Follower, frames: Frames) -> None:
        """Offer *frames* to a live follower, and detach it if it does not take them."""
        if reason := follower.offer(frames):
            self.detach(follower, reason)

    def _of_filter(self, job_filter: JobFilter) -> list[Follower]:
        """The followers with that filter; the list stays as it is while some are detached."""
        return list(self._by_filter.get(job_filter, ()))

    def _all(self) -> list[Follower]:
        return list(chain.from_iterable(self._by_filter.values()))

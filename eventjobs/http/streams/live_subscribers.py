"""The subscribers that are up to date, grouped by what they want."""

from itertools import chain

from eventjobs.http.streams.frames import HEARTBEAT, as_chunk
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.subscriber import DetachReason, Subscriber


class LiveSubscribers:
    """Subscribers at the head of a stream, by filter."""

    def __init__(self, position: int) -> None:
        #: All up to this position was written to the subscribers whose own position is not higher.
        self.position = position
        self._by_filter: dict[JobFilter, set[Subscriber]] = {}
        self._filters_by_job: dict[str, set[JobFilter]] = {}
        self._filters_without_ids: set[JobFilter] = set()
        #: Those that hide something from their readers.
        self._filters_with_reader: set[JobFilter] = set()

    def __bool__(self) -> bool:
        return bool(self._by_filter)

    def join(self, subscriber: Subscriber) -> None:
        job_filter = subscriber.job_filter
        if (group := self._by_filter.get(job_filter)) is not None:
            group.add(subscriber)
            return
        self._by_filter[job_filter] = {subscriber}
        if job_filter.ids is None:
            self._filters_without_ids.add(job_filter)
        if job_filter.reader is not None:
            self._filters_with_reader.add(job_filter)
        for job_id in job_filter.ids or ():
            self._filters_by_job.setdefault(job_id, set()).add(job_filter)

    def leave(self, subscriber: Subscriber) -> None:
        job_filter = subscriber.job_filter
        group = self._by_filter.get(job_filter, set())
        group.discard(subscriber)
        if group or job_filter not in self._by_filter:
            return
        del self._by_filter[job_filter]
        self._filters_without_ids.discard(job_filter)
        self._filters_with_reader.discard(job_filter)
        for job_id in job_filter.ids or ():
            self._filters_by_job[job_id].discard(job_filter)
            if not self._filters_by_job[job_id]:
                del self._filters_by_job[job_id]

    def detach(self, subscriber: Subscriber, reason: DetachReason) -> None:
        """End the live phase of *subscriber*, which goes on from the current position."""
        if subscriber.is_live:
            subscriber.position = max(subscriber.position, self.position)
            subscriber.detach(reason)

    def detach_all(self, reason: DetachReason) -> None:
        for subscriber in self._all():
            self.detach(subscriber, reason)

    def send_heartbeat(self) -> None:
        chunk = as_chunk(HEARTBEAT)
        for subscriber in self._all():
            self.write_or_detach(subscriber, HEARTBEAT, chunk)

    def write_or_detach(self, subscriber: Subscriber, frames: bytes, chunk: bytes) -> None:
        """Write *frames*, or detach a subscriber that is gone or full. Never waits.

        *chunk* is *frames* as a chunk of HTTP.
        """
        if not subscriber.is_live:
            return
        if subscriber.is_gone:
            self.detach(subscriber, "gone")
        elif subscriber.is_full:
            self.detach(subscriber, "behind")
        else:
            subscriber.write(frames, chunk)

    def _all(self) -> list[Subscriber]:
        return list(chain.from_iterable(self._by_filter.values()))

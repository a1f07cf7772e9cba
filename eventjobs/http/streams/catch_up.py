"""What a subscriber misses: frames from its position up to the head.

Each generator moves the subscriber's position to where its frames end, before it yields them.
A client that does not read holds one batch of frames, and no events. Subscribers with the same
filter share what they read.
"""

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from typing import Protocol

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.frames import (
    WRITE_BYTES,
    Frames,
    event_frame,
    event_size,
    prefix_that_fits,
    snapshot_frame,
)
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.shared_pages import SharedPages
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.subscriber import Subscriber
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.projections import Views

#: Events of named jobs that are in memory for a page.
NAMED_MAX = 128
#: Bytes of events that are encoded at once. Only a single event may be longer.
PAGE_BYTES = 2**20


class CatchUp(Protocol):
    """Reads what a subscriber misses."""

    @property
    def head(self) -> int:
        """The newest position that it reads."""

    def frames(self, subscriber: Subscriber) -> AsyncGenerator[Frames, None]:
        """What matches after the subscriber's position, up to the head."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """The frames of what matches after a position, up to *end*."""

    after: int
    frames: Frames
    end: int

    @property
    def size(self) -> int:
        return 200 + len(self.frames)


class EventCatchUp:
    """Every event after the position that matches, in order."""

    def __init__(self, log: EventLog, views: Views, lookup: JobLookup) -> None:
        self._log = log
        self._views = views
        self._lookup = lookup
        self._pages: SharedPages[EventPage] = SharedPages()
        #: Events that are read at once: fewer while they are large.
        self._limit = PAGE_MAX

    @property
    def head(self) -> int:
        return self._log.head

    async def frames(self, subscriber: Subscriber) -> AsyncGenerator[Frames, None]:
        while subscriber.position < self.head:
            page = await self._pages.get(subscriber.job_filter, subscriber.position, self._read)
            subscriber.position = page.end
            yield page.frames

    async def _read(self, job_filter: JobFilter, after: int) -> list[EventPage]:
        """The next pages: one write each. All are of one page of the log, which all share."""
        head = self.head
        if job_filter.ids is not None and head - after > PAGE_MAX:
            events, end = await self._events_of_jobs(job_filter.ids, after, head)
        else:
            begin = await self._skip(job_filter, after)
            if begin >= head:
                return [EventPage(after, Frames(b""), begin)]
            limit = min(self._limit, PAGE_MAX - begin % PAGE_MAX)
            events = await self._log.read(begin, limit)
            end = events[-1].position
            self._adapt_limit(events)
            events = await self._select_matching(events, job_filter)
        events = job_filter.select(events)
        return _encode(await self._lookup.hide(job_filter, events), after, end)

    async def _skip(self, job_filter: JobFilter, after: int) -> int:
        """The position up to which no event matches, as far as the views know."""
        if self.head - after <= PAGE_MAX or job_filter.ids is not None:
            return after  # it is in memory, or others are read by name
        return await self._views.skip_events(after, job_filter.type, job_filter.owner)

    def _adapt_limit(self, events: list[Recorded]) -> None:
        total = sum(map(event_size, events))
        if total > PAGE_BYTES:
            self._limit = max(1, len(events) * PAGE_BYTES // total)
        else:
            self._limit = min(PAGE_MAX, 2 * self._limit)

    async def _select_matching(self, page: list[Recorded], job_filter: JobFilter) -> list[Recorded]:
        if job_filter.ids is not None:
            return [each for each in page if each.job_id in job_filter.ids]
        if job_filter.matches_everything:
            return page
        jobs = await self._lookup.jobs_of(page)
        return [each for each in page if job_filter.matches(jobs[each.job_id])]

    async def _events_of_jobs(
        self, ids: Collection[str], after: int, head: int
    ) -> tuple[list[Recorded], int]:
        """The next events of these jobs, in order, and the position up to which they are all.

        Events of other jobs are not read.
        """
        limit = min(self._limit, max(8, NAMED_MAX // max(1, len(ids))))
        read_to = dict.fromkeys(sorted(ids), after)
        events: list[Recorded] = []
        upto = after
        while upto < head and sum(each.position <= upto for each in events) < NAMED_MAX:
            for job_id, position in read_to.items():
                if position == upto:  # none of the job's events above it is in *events*
                    more = await self._log.read_job(job_id, position, limit)
                    read_to[job_id] = more[-1].position if len(more) == limit else head
                    events += more
            upto = min(read_to.values(), default=head)
        self._adapt_limit(events)
        events = [each for each in events if each.position <= upto]
        return sorted(events, key=lambda each: each.position), upto


def _encode(events: list[Recorded], after: int, end: int) -> list[EventPage]:
    """Pages of *events*, which are all from *after* to *end*; of many bytes only the first ones."""
    pages: list[EventPage] = []
    total = 0
    while events and total < PAGE_BYTES:
        fitting = prefix_that_fits(events, event_size)
        events = events[len(fitting) :]
        upto = fitting[-1].position if events else end
        frames = Frames(b"".join(map(event_frame, fitting)))
        pages.append(EventPage(after, frames, upto))
        after, total = upto, total + len(frames)
    return pages or [EventPage(after, Frames(b""), end)]


@dataclass(frozen=True, slots=True)
class ChangePage:
    """The jobs that match and changed after a position, up to *end*: positions and ids."""

    after: int
    jobs: list[tuple[int, str]]
    end: int
    #: The position of the views when it was read.
    read_at: int

    @property
    def size(self) -> int:
        return 200 + 150 * len(self.jobs)


class SnapshotCatchUp:
    """The newest snapshot of every job that matches, or that changed after the position.

    A stream by filter that begins at 0 has the newest jobs: *page_max* of them.
    """

    def __init__(self, views: Views, log: EventLog, snapshots: Snapshots, page_max: int) -> None:
        self._views = views
        self._log = log
        self._snapshots = snapshots
        self._page_max = page_max
        self._pages: SharedPages[ChangePage] = SharedPages()

    @property
    def head(self) -> int:
        return self._views.present_position

    async def frames(self, subscriber: Subscriber) -> AsyncGenerator[Frames, None]:
        job_filter = subscriber.job_filter
        while subscriber.position < (upto := self.head):
            after = subscriber.position
            if job_filter.ids is not None:
                changes = await self._named_jobs(job_filter.ids, job_filter, after)
            else:
                page = await self._pages.get(job_filter, after, self._read, self._is_recent)
                changes, upto = page.jobs, page.end
            subscriber.position = upto
            frames: list[bytes] = []
            size = 0
            for position, job_id in changes:
                # One by one: a client that does not read holds a few snapshots at most.
                snapshot = await self._snapshots.get(job_id)
                if snapshot is not None:
                    snapshot = snapshot.hide(job_filter.mask_of(snapshot.job))
                    frames.append(snapshot_frame(snapshot, min(position, upto)))
                    size += len(frames[-1])
                if size > WRITE_BYTES:
                    yield Frames(b"".join(frames))
                    frames.clear()
                    size = 0
            yield Frames(b"".join(frames))

    def _is_recent(self, page: ChangePage) -> bool:
        """Whether what a stream by filter misses since *page* was read is one page of the log."""
        return self.head - page.read_at <= PAGE_MAX

    async def _read(self, job_filter: JobFilter, after: int) -> list[ChangePage]:
        upto = self.head
        if after == 0:
            await self._views.wait_for_position(upto)  # a list is read from the file
            return [ChangePage(after, sorted(await self._newest(job_filter)), upto, upto)]
        begin = await self._views.skip_events(after, job_filter.type, job_filter.owner)
        if begin >= upto:
            return [ChangePage(after, [], begin, upto)]
        changes, end = await self._changes_on_page(job_filter, begin, upto)
        return [ChangePage(after, sorted(changes), end, upto)]

    async def _newest(self, job_filter: JobFilter) -> list[tuple[int, str]]:
        """Positions and ids of the newest jobs that match."""
        views = await self._views.jobs(
            job_filter.for_views(), order="newest", cursor=None, limit=self._page_max
        )
        return [(view.job.position, view.job.job_id) for view in views]

    async def _named_jobs(
        self, ids: Collection[str], job_filter: JobFilter, after: int
    ) -> list[tuple[int, str]]:
        """Positions and ids of the named jobs that match; hidden ones only if *after* is not 0."""
        changes = []
        for job_id in sorted(ids):
            if (job := await self._job(job_id)) is None or job.position <= after:
                continue
            if after:
                matches = job_filter.matches_change(job)
            else:
                matches = job.expired_us is None and job_filter.matches_change(job, [job.status])
            if matches:
                changes.append((job.position, job_id))
        return sorted(changes)

    async def _changes_on_page(
        self, job_filter: JobFilter, after: int, upto: int
    ) -> tuple[list[tuple[int, str]], int]:
        """Positions and ids of the jobs whose newest event is on the next page of the log, and the
        position where that page ends.

        A job with a newer event belongs to a later page. So each job is written once, in order of
        position, and a client that is cut off resumes from the last one.
        """
        limit = PAGE_MAX - after % PAGE_MAX  # streams from other positions share the next page
        page = [each for each in await self._log.read(after, limit) if each.position <= upto]
        end = page[-1].position
        changes = []
        for job_id in dict.fromkeys(each.job_id for each in page):
            job = await self._job(job_id)
            if job is not None and after < job.position <= end and job_filter.matches_change(job):
                changes.append((job.position, job_id))
        return changes, end

    async def _job(self, job_id: str) -> Job | None:
        """The job as the views have it."""
        if (job := self._views.cached_job(job_id)) is not None:
            return job
        snapshot = await self._snapshots.get(job_id)
        return None if snapshot is None else snapshot.job

"""What a subscriber misses: frames from its position up to the head.

Each generator moves the subscriber's position to where its frames end, before it yields them.
A client that does not read holds one batch of frames, and no events.
"""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.frames import (
    WRITE_BYTES,
    event_frame,
    event_size,
    prefix_that_fits,
    snapshot_frame,
)
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.http.streams.subscriber import Subscriber
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.projections import Views

#: Events of named jobs that are in memory for a subscriber.
NAMED_MAX = 128

CatchUp = Callable[[Subscriber], AsyncGenerator[bytes, None]]


class EventCatchUp:
    """Every event after the position that matches, in order."""

    def __init__(self, log: EventLog, lookup: JobLookup) -> None:
        self._log = log
        self._lookup = lookup

    async def frames(self, subscriber: Subscriber) -> AsyncGenerator[bytes, None]:
        job_filter = subscriber.job_filter
        limit = PAGE_MAX
        while subscriber.position < (head := self._log.head):
            if job_filter.ids is not None and head - subscriber.position > PAGE_MAX:
                named = self._frames_of_jobs(subscriber, job_filter.ids, head)
                async with aclosing(named) as batches:
                    async for frames in batches:
                        yield frames
                continue
            page = prefix_that_fits(await self._log.read(subscriber.position, limit), event_size)
            limit = min(PAGE_MAX, 2 * len(page))  # what does not fit is read again
            subscriber.position = page[-1].position
            page = await self._select_matching(page, job_filter)
            page = await self._lookup.hide(job_filter, page)
            frames = b"".join(map(event_frame, page))
            del page  # a client that does not read holds these frames alone
            yield frames

    async def _select_matching(self, page: list[Recorded], job_filter: JobFilter) -> list[Recorded]:
        if job_filter.ids is not None:
            return job_filter.select([each for each in page if each.job_id in job_filter.ids])
        if job_filter.matches_everything:
            return page
        jobs = await self._lookup.jobs_of(page)
        return [each for each in page if job_filter.matches(jobs[each.job_id])]

    async def _frames_of_jobs(
        self, subscriber: Subscriber, ids: Collection[str], head: int
    ) -> AsyncGenerator[bytes, None]:
        """The events of each named job, merged. Events of other jobs are not read."""
        limit = max(8, NAMED_MAX // max(1, len(ids)))
        read_to = dict.fromkeys(sorted(ids), subscriber.position)
        unsent: list[Recorded] = []
        while subscriber.position < head:
            for job_id, position in read_to.items():
                if position == subscriber.position:  # none of the job's events is in *unsent*
                    events = await self._log.read_job(job_id, position, limit)
                    read_to[job_id] = events[-1].position if len(events) == limit else head
                    unsent += events
            subscriber.position = upto = min(read_to.values(), default=head)
            unsent.sort(key=lambda each: each.position)
            while unsent and unsent[0].position <= upto:
                fitting = prefix_that_fits(unsent, event_size)
                batch = [each for each in fitting if each.position <= upto]
                unsent = unsent[len(batch) :]
                batch = subscriber.job_filter.select(batch)
                batch = await self._lookup.hide(subscriber.job_filter, batch)
                yield b"".join(map(event_frame, batch))


class SnapshotCatchUp:
    """The newest snapshot of every job that matches, or that changed after the position.

    A stream by filter that begins at 0 has the newest jobs: *page_max* of them.
    """

    def __init__(self, views: Views, log: EventLog, snapshots: Snapshots, page_max: int) -> None:
        self._views = views
        self._log = log
        self._snapshots = snapshots
        self._page_max = page_max

    async def frames(self, subscriber: Subscriber) -> AsyncGenerator[bytes, None]:
        job_filter = subscriber.job_filter
        while subscriber.position < (upto := self._views.position):
            after = subscriber.position
            if job_filter.ids is not None:
                changes = await self._named_jobs(job_filter.ids, job_filter, after)
            elif after > 0:
                changes, upto = await self._changes_on_page(job_filter, after, upto)
            else:
                changes = await self._newest(job_filter)
            subscriber.position = upto
            frames: list[bytes] = []
            for position, job_id in sorted(changes):
                # One by one: a client that does not read holds a few snapshots at most.
                snapshot = await self._snapshots.get(job_id)
                if snapshot is not None:
                    snapshot = snapshot.hide(job_filter.mask_of(snapshot.job))
                    frames.append(snapshot_frame(snapshot, min(position, upto)))
                if sum(map(len, frames)) > WRITE_BYTES:
                    yield b"".join(frames)
                    frames.clear()
            yield b"".join(frames)

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
        return changes

    async def _changes_on_page(
        self, job_filter: JobFilter, after: int, upto: int
    ) -> tuple[list[tuple[int, str]], int]:
        """Positions and ids of the jobs whose newest event is on the next page of the log, and the
        position where that page ends.

        A job with a newer event belongs to a later page. So each job is written once, in order of
        position, and a client that is cut off resumes from the last one.
        """
        page = [each for each in await self._log.read(after, PAGE_MAX) if each.position <= upto]
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

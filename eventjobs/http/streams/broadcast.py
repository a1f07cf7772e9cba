"""Broadcasters: each new event reaches all followers that are up to date.

A follower that is up to date has no queue. The new events of a batch are encoded once and written
to all subscribers with the same filter, with one write for each. A subscriber whose transport is
full is detached: it reads from its own position until it is up to date again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.frames import (
    Frames,
    event_frame,
    event_size,
    is_end,
    prefix_that_fits,
    snapshot_frame,
)
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.live_followers import LiveFollowers
from eventjobs.http.streams.snapshots import Snapshot, Snapshots
from eventjobs.http.streams.subscriber import Follower
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.projections import JobChange, Views


class EventBroadcaster(LiveFollowers):
    """Offers each new event of the log to the live followers whose filter matches its job."""

    def __init__(self, log: EventLog, lookup: JobLookup) -> None:
        super().__init__(log.head)
        self._log = log
        self._lookup = lookup

    async def run(self) -> None:
        while True:
            head = await self._log.wait(self.position)
            if not self:
                self.position = head
                continue
            events = prefix_that_fits(await self._log.read(self.position, PAGE_MAX), event_size)
            jobs = await self._lookup.jobs_of(events) if self._filters_with_jobs else {}
            # No await from here to the new position: a follower joins before or after the whole
            # batch, and its own position says which.
            finished = self._send(events, jobs)
            self.position = events[-1].position
            for follower in finished:
                self.detach(follower, "ended")
            await asyncio.sleep(0)  # detached followers run, however many batches follow

    def _send(self, batch: list[Recorded], jobs: dict[str, Job | None]) -> list[Follower]:
        """Offer *batch* to all; returns the followers one of whose named jobs has ended."""
        finished: list[Follower] = []
        for job_filter, parts in self._parts_of(batch, jobs).items():
            followers = self._of_filter(job_filter)
            events = parts[0] if len(parts) == 1 else _merge(parts)
            if job_filter.ids is not None and any(map(is_end, events)):
                finished += followers
            self._write(job_filter.hide(job_filter.select(events), jobs), followers)
        return finished

    def _parts_of(
        self, batch: list[Recorded], jobs: dict[str, Job | None]
    ) -> dict[JobFilter, list[list[Recorded]]]:
        """The events for each filter, job by job. A filter of everything has the batch itself."""
        by_job: dict[str, list[Recorded]] = {}
        for recorded in batch:
            by_job.setdefault(recorded.job_id, []).append(recorded)
        parts: dict[JobFilter, list[list[Recorded]]] = {}
        for job_id, events in by_job.items():
            job = jobs.get(job_id)
            for job_filter in self._index.candidates(job_id, job):
                if job_filter.matches_everything:
                    parts[job_filter] = [batch]
                elif job_filter.ids is not None or job_filter.matches(job):
                    parts.setdefault(job_filter, []).append(events)
        return parts

    def _write(self, events: Sequence[Recorded], followers: Iterable[Follower]) -> None:
        if not events:
            return
        frames = Frames(b"".join(map(event_frame, events)))
        for follower in followers:
            if follower.position <= self.position:
                self.offer(follower, frames)
            elif newer := [each for each in events if each.position > follower.position]:
                # The follower read the first events of this batch before it joined.
                self.offer(follower, Frames(b"".join(map(event_frame, newer))))


def _merge(parts: Iterable[Iterable[Recorded]]) -> list[Recorded]:
    return sorted(chain.from_iterable(parts), key=lambda each: each.position)


class SnapshotBroadcaster(LiveFollowers):
    """Offers the newest snapshot of each changed job to the live followers whose filter matches the
    change.
    """

    def __init__(self, views: Views, snapshots: Snapshots) -> None:
        super().__init__(views.present_position)
        self._views = views
        self._snapshots = snapshots
        #: Changed jobs with the statuses they had: several changes become one snapshot.
        self._changed: dict[str, set[str]] = {}
        self._wake = asyncio.Event()
        views.listen(self._note_changes)

    def _note_changes(self, changes: Iterable[JobChange]) -> None:
        for change in changes if self else ():
            job_id = change.after.job_id
            if self._index.candidates(job_id, change.after):
                statuses = self._changed.setdefault(job_id, set())
                statuses.update(
                    job.status for job in (change.before, change.after) if job is not None
                )
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, {}
            upto = self._views.present_position
            snapshots = await self._read(changed)
            # In order of position: a client that is cut off misses none before its cursor.
            snapshots.sort(key=lambda each: each.job.position)
            while snapshots:
                batch = prefix_that_fits(snapshots, lambda each: len(each.body))
                snapshots = snapshots[len(batch) :]
                self._send(batch, changed, upto)
                if snapshots:
                    await asyncio.sleep(0)
            self.position = upto

    async def _read(self, job_ids: Iterable[str]) -> list[Snapshot]:
        snapshots = []
        for number, job_id in enumerate(job_ids):
            if (snapshot := await self._snapshots.get(job_id)) is not None:
                snapshots.append(snapshot)
            if number % 64 == 63:
                await asyncio.sleep(0)
        return snapshots

    def _send(self, batch: Sequence[Snapshot], changed: dict[str, set[str]], upto: int) -> None:
        """Write *batch* to all, and move to its last position; *upto* at most."""
        matches: dict[JobFilter, list[Snapshot]] = {}
        finished: set[JobFilter] = set()
        for snapshot in batch:
            job = snapshot.job
            for job_filter in self._index.candidates(job.job_id, job):
                if job.is_over and job_filter.ids is not None:
                    finished.add(job_filter)  # a hidden job has ended, too
                if job_filter.matches_change(job, changed[job.job_id]):
                    masked = snapshot.hide(job_filter.mask_of(job))
                    matches.setdefault(job_filter, []).append(masked)
        for job_filter, snapshots in matches.items():
            self._write(snapshots, self._of_filter(job_filter), upto)
        self.position = max(self.position, min(batch[-1].job.position, upto))
        for job_filter in finished:
            for follower in self._of_filter(job_filter):
                self.detach(follower, "ended")

    def _write(
        self, snapshots: Sequence[Snapshot], followers: Iterable[Follower], upto: int
    ) -> None:
        frames = _frames(snapshots, upto)
        oldest = snapshots[0].job.position
        for follower in followers:
            if follower.position > upto:
                continue  # it subscribed during this batch; the next batch contains what it misses
            if follower.position < oldest:
                self.offer(follower, frames)
            elif newer := [each for each in snapshots if each.job.position > follower.position]:
                self.offer(follower, _frames(newer, upto))


def _frames(snapshots: Iterable[Snapshot], upto: int) -> Frames:
    return Frames(
        b"".join(snapshot_frame(each, min(each.job.position, upto)) for each in snapshots)
    )

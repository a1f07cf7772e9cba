"""Who is at the head of a stream, and how one event reaches all of them.

A client at the head holds no queue and no place of its own: what is new is framed once for all
who want the same, and written to their transports in one turn of the loop. One whose transport is
full is simply one that is behind: it leaves, and reads by position until it is back.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from aiohttp import web

from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams.audience import LiveSubscribers
from eventjobs.http.streams.frames import WRITE_BYTES, fact_frame, fitting, is_end, snapshot_frame
from eventjobs.http.streams.selection import JobFilter, JobLookup
from eventjobs.http.streams.snapshots import Snapshot, Snapshots
from eventjobs.http.streams.subscriber import Subscriber, as_chunk
from eventjobs.log import PAGE_MAX, EventLog
from eventjobs.projections.change import JobChange
from eventjobs.projections.views import Views

#: Of a request that is being answered with a stream.
CLIENT = web.RequestKey("client", Subscriber)


class EventBroadcaster(LiveSubscribers):
    """Sends every new event to those at the head who want it."""

    def __init__(self, log: EventLog, known: JobLookup) -> None:
        super().__init__(log.head)
        self._log = log
        self._known = known

    async def run(self) -> None:
        while True:
            head = await self._log.wait(self.position)
            if not self:
                self.position = head
                continue
            batch = fitting(await self._log.read(self.position, PAGE_MAX))
            filtered = any(not each.everything for each in self._others)
            jobs = await self._known.of(batch) if filtered else {}
            # Nothing is awaited from here on: a client that joins does so before or after all of
            # the batch, and where it is told apart by its own position.
            ended = self._send(batch, jobs)
            self.position = batch[-1].position
            for client in ended:
                self.detach_with(client, "ended")
            await asyncio.sleep(0)  # those who are behind now have their turn, however long this is

    def _send(self, batch: list[Recorded], jobs: dict[str, Job | None]) -> list[Subscriber]:
        """To everyone at the head; returns those for whom it may have been the last."""
        told: dict[str, list[Recorded]] = {}
        for recorded in batch:
            if recorded.job_id in self._by_job:
                told.setdefault(recorded.job_id, []).append(recorded)
        ended: list[Subscriber] = []
        for selection in self._others.union(*(self._by_job[job_id] for job_id in told)):
            clients = self._same[selection]
            if selection.ids is not None:
                parts = [told[job_id] for job_id in selection.ids & told.keys()]
                events = parts[0] if len(parts) == 1 else _in_order(parts)
                if any(map(is_end, events)):
                    ended += clients
                events = selection.of(events)
            elif selection.everything:
                events = batch
            else:
                events = [each for each in batch if selection.wants(jobs.get(each.job_id))]
            self._share(events, clients)
        return ended

    def _share(self, events: Sequence[Recorded], clients: Iterable[Subscriber]) -> None:
        if not events:
            return
        frames = b"".join(map(fact_frame, events))
        chunk = as_chunk(frames)
        for client in clients:
            if client.position <= self.position:
                self.write_or_detach(client, frames, chunk)
            elif newer := [each for each in events if each.position > client.position]:
                # It read a part of this batch by itself, and then joined.
                own = b"".join(map(fact_frame, newer))
                self.write_or_detach(client, own, as_chunk(own))


def _in_order(parts: Iterable[Iterable[Recorded]]) -> list[Recorded]:
    return sorted(chain.from_iterable(parts), key=lambda each: each.position)


class SnapshotBroadcaster(LiveSubscribers):
    """Sends the newest state of what changed to those at the head who want it."""

    def __init__(self, views: Views, snapshots: Snapshots) -> None:
        super().__init__(views.position)
        self._views = views
        self._snapshots = snapshots
        #: jobs that changed, and the statuses they had: several changes become one snapshot
        self._changed: dict[str, set[str]] = {}
        self._more = asyncio.Event()
        views.listen(self._noticed)

    def _noticed(self, touched: Iterable[JobChange]) -> None:
        for each in touched:
            if self._others or each.after.job_id in self._by_job:
                had = self._changed.setdefault(each.after.job_id, set())
                had.update(job.status for job in (each.before, each.after) if job is not None)
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            changed, self._changed = self._changed, {}
            upto = self._views.position
            made = []
            for number, job_id in enumerate(changed):
                if (snapshot := await self._snapshots.get(job_id)) is not None:
                    made.append(snapshot)
                if number % 64 == 63:
                    await asyncio.sleep(0)
            # In order of position: whoever is cut off in the middle has missed none before.
            made.sort(key=lambda each: each.job.position)
            while made:
                part = _fitting(made)
                made = made[len(part) :]
                self._send(part, changed, upto)
                if made:
                    await asyncio.sleep(0)
            self.position = upto

    def _send(self, part: Sequence[Snapshot], changed: dict[str, set[str]], upto: int) -> None:
        """Write *part* to everyone at the head, and move on to its last position."""
        wanted: dict[JobFilter, list[Snapshot]] = {}
        over: set[JobFilter] = set()
        for each in part:
            named = self._by_job.get(each.job.job_id, set())
            if each.job.finished:
                over |= named  # a hidden job has ended, too
            for selection in self._others | named:
                if selection.concerns(each.job, changed[each.job.job_id]):
                    wanted.setdefault(selection, []).append(each)
        for selection, snapshots in wanted.items():
            self._share(snapshots, self._same[selection], upto)
        self.position = max(self.position, min(part[-1].job.position, upto))
        for selection in over:
            for client in self._same[selection]:
                self.detach_with(client, "ended")

    def _share(
        self, snapshots: Sequence[Snapshot], clients: Iterable[Subscriber], upto: int
    ) -> None:
        frames = _frames(snapshots, upto)
        chunk = as_chunk(frames)
        oldest = snapshots[0].job.position
        for client in clients:
            if client.position > upto:
                continue  # it joined meanwhile; what it lacks has been noticed for the next round
            if client.position < oldest:
                self.write_or_detach(client, frames, chunk)
            elif newer := [each for each in snapshots if each.job.position > client.position]:
                own = _frames(newer, upto)
                self.write_or_detach(client, own, as_chunk(own))


def _frames(snapshots: Iterable[Snapshot], upto: int) -> bytes:
    return b"".join(snapshot_frame(each, min(each.job.position, upto)) for each in snapshots)


def _fitting(snapshots: list[Snapshot]) -> list[Snapshot]:
    size = 0
    for number, each in enumerate(snapshots):
        size += len(each.body)
        if size > WRITE_BYTES and number:
            return snapshots[:number]
    return snapshots

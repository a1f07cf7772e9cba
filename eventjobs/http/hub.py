"""Who is at the head of a stream, and how one event reaches all of them.

A client at the head holds no queue and no place of its own: what is new is framed once for all
who want the same, and written to their transports in one turn of the loop. One whose transport is
full is simply one that is behind: it leaves, and reads by position until it is back.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

import orjson
from aiohttp import web

from eventjobs.events import (
    AttemptFailed,
    JobCancelled,
    JobCompleted,
    JobExpired,
    Recorded,
    rfc3339,
)
from eventjobs.http.selection import Known, Selection
from eventjobs.http.snapshot import Snapshot, Snapshots
from eventjobs.job import Job
from eventjobs.log import PAGE_MAX, EventLog
from projections import Views
from projections.touched import Touched

HEARTBEAT = b":\n\n"

#: Written to a client at once; only a single frame may be longer.
WRITE_BYTES = 131_072

#: Between the two writes that find out whether a client that sends no more still reads.
PROBE_S = 1.0

#: Why a client is no longer at the head.
Left = Literal["behind", "gone", "ended", "shutdown"]


class Client:
    """One open stream."""

    def __init__(
        self,
        transport: asyncio.Transport,
        selection: Selection,
        buffer_bytes_max: int,
        *,
        chunked: bool,
    ) -> None:
        self.selection = selection
        #: Everything it wants up to here was written to it; while it is at the head, and the hub
        #: is further, up to the hub's position.
        self.position = 0
        self.written_bytes = 0
        self._transport = transport
        self._chunked = chunked
        self._buffer_bytes_max = buffer_bytes_max
        self._left: asyncio.Future[Left] | None = None

    @property
    def gone(self) -> bool:
        return self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size()

    @property
    def full(self) -> bool:
        return self.unsent > self._buffer_bytes_max

    def abort(self) -> None:
        self._transport.abort()

    def arrive(self) -> asyncio.Future[Left]:
        """It is at the head now; done when it has to do something itself again."""
        self._left = asyncio.get_running_loop().create_future()
        return self._left

    @property
    def listening(self) -> bool:
        return self._left is not None and not self._left.done()

    def leave(self, why: Left) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(why)

    def probe(self) -> None:
        """Write to a client that sends no more: if it has gone, its machine answers the first write
        with a reset, and the second one fails.
        """
        self.write(HEARTBEAT)
        asyncio.get_running_loop().call_later(PROBE_S, self.write, HEARTBEAT)

    def write(self, plain: bytes, chunk: bytes | None = None) -> None:
        """Past the response object, whose own write costs ten times as much."""
        if self.gone:
            return  # asyncio says nothing of what is written then; uvloop raises
        self.written_bytes += len(plain)
        if self._chunked:
            self._transport.write(as_chunk(plain) if chunk is None else chunk)
        else:
            self._transport.write(plain)


#: Of a request that is being answered with a stream.
CLIENT = web.RequestKey("client", Client)


def as_chunk(data: bytes) -> bytes:
    """*data* as one chunk of HTTP/1.1 (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Heads:
    """The clients at the head, together with those who want the same."""

    def __init__(self, position: int) -> None:
        #: everything up to here was written to those at the head, unless they were further
        self.position = position
        self._same: dict[Selection, set[Client]] = {}
        self._by_job: dict[str, set[Selection]] = {}
        self._others: set[Selection] = set()  # those that name no jobs

    def __bool__(self) -> bool:
        return bool(self._same)

    def join(self, client: Client) -> None:
        selection = client.selection
        if (same := self._same.get(selection)) is not None:
            same.add(client)
            return
        self._same[selection] = {client}
        if selection.ids is None:
            self._others.add(selection)
        for job_id in selection.ids or ():
            self._by_job.setdefault(job_id, set()).add(selection)

    def leave(self, client: Client) -> None:
        selection = client.selection
        same = self._same.get(selection, set())
        same.discard(client)
        if same or selection not in self._same:
            return
        del self._same[selection]
        self._others.discard(selection)
        for job_id in selection.ids or ():
            self._by_job[job_id].discard(selection)
            if not self._by_job[job_id]:
                del self._by_job[job_id]

    def everyone(self) -> list[Client]:
        return list(chain.from_iterable(self._same.values()))

    def dismiss(self, client: Client, why: Left) -> None:
        """Let a client go on by itself, from where those at the head are now."""
        if client.listening:
            client.position = max(client.position, self.position)
            client.leave(why)

    def beat(self) -> None:
        chunk = as_chunk(HEARTBEAT)
        for client in self.everyone():
            self._push(client, HEARTBEAT, chunk)

    def _push(self, client: Client, plain: bytes, chunk: bytes) -> None:
        """Write now, or let it go: never wait, never hold more than the transport's bound."""
        if not client.listening:
            return
        if client.gone:
            self.dismiss(client, "gone")
        elif client.full:
            self.dismiss(client, "behind")
        else:
            client.write(plain, chunk)


def fact_frame(recorded: Recorded) -> bytes:
    return b"id: %d\nevent: event\ndata: %s\n\n" % (recorded.position, recorded.json())


def snapshot_frame(snapshot: Snapshot, position: int) -> bytes:
    """The job as it is; of one that is hidden, that it has gone."""
    job = snapshot.job
    if job.expired_us is None:
        return b"id: %d\nevent: job\ndata: %s\n\n" % (position, snapshot.body)
    gone = {"job_id": job.job_id, "expired_at": rfc3339(job.expired_us), "position": job.position}
    return b"id: %d\nevent: gone\ndata: %s\n\n" % (position, orjson.dumps(gone))


def fitting(events: list[Recorded]) -> list[Recorded]:
    """As many as may be written at once; at least one."""
    size = 0
    for number, each in enumerate(events):
        size += len(each.json())
        if size > WRITE_BYTES and number:
            return events[:number]
    return events


def is_end(recorded: Recorded) -> bool:
    """Whether the job has ended by now, if nothing came after this event."""
    event = recorded.event
    return isinstance(event, JobCompleted | JobCancelled | JobExpired) or (
        isinstance(event, AttemptFailed) and event.retry_at_us is None
    )


class FactHub(Heads):
    """Sends every new event to those at the head who want it."""

    def __init__(self, log: EventLog, known: Known) -> None:
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
                self.dismiss(client, "ended")
            await asyncio.sleep(0)  # those who are behind now have their turn, however long this is

    def _send(self, batch: list[Recorded], jobs: dict[str, Job | None]) -> list[Client]:
        """To everyone at the head; returns those for whom it may have been the last."""
        told: dict[str, list[Recorded]] = {}
        for recorded in batch:
            if recorded.job_id in self._by_job:
                told.setdefault(recorded.job_id, []).append(recorded)
        ended: list[Client] = []
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

    def _share(self, events: Sequence[Recorded], clients: Iterable[Client]) -> None:
        if not events:
            return
        frames = b"".join(map(fact_frame, events))
        chunk = as_chunk(frames)
        for client in clients:
            if client.position <= self.position:
                self._push(client, frames, chunk)
            elif newer := [each for each in events if each.position > client.position]:
                # It read a part of this batch by itself, and then joined.
                own = b"".join(map(fact_frame, newer))
                self._push(client, own, as_chunk(own))


def _in_order(parts: Iterable[Iterable[Recorded]]) -> list[Recorded]:
    return sorted(chain.from_iterable(parts), key=lambda each: each.position)


class SnapshotHub(Heads):
    """Sends the newest state of what changed to those at the head who want it."""

    def __init__(self, views: Views, snapshots: Snapshots) -> None:
        super().__init__(views.position)
        self._views = views
        self._snapshots = snapshots
        #: jobs that changed, and the statuses they had: several changes become one snapshot
        self._changed: dict[str, set[str]] = {}
        self._more = asyncio.Event()
        views.listen(self._noticed)

    def _noticed(self, touched: Iterable[Touched]) -> None:
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
        wanted: dict[Selection, list[Snapshot]] = {}
        over: set[Selection] = set()
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
                self.dismiss(client, "ended")

    def _share(self, snapshots: Sequence[Snapshot], clients: Iterable[Client], upto: int) -> None:
        frames = _frames(snapshots, upto)
        chunk = as_chunk(frames)
        oldest = snapshots[0].job.position
        for client in clients:
            if client.position > upto:
                continue  # it joined meanwhile; what it lacks has been noticed for the next round
            if client.position < oldest:
                self._push(client, frames, chunk)
            elif newer := [each for each in snapshots if each.job.position > client.position]:
                own = _frames(newer, upto)
                self._push(client, own, as_chunk(own))


def _frames(snapshots: Iterable[Snapshot], upto: int) -> bytes:
    return b"".join(snapshot_frame(each, min(each.job.position, upto)) for each in snapshots)


def _fitting(snapshots: list[Snapshot]) -> list[Snapshot]:
    size = 0
    for number, each in enumerate(snapshots):
        size += len(each.body)
        if size > WRITE_BYTES and number:
            return snapshots[:number]
    return snapshots

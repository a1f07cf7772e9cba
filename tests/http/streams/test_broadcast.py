"""What is written to a subscriber that joins while a batch is prepared, or that is detached."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import AttemptStarted, LogWritten
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.http.streams.broadcast import EventBroadcaster, SnapshotBroadcaster
from eventjobs.http.streams.frames import Frames
from eventjobs.http.streams.job_filter import JobFilter
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.snapshots import Snapshot, Snapshots
from eventjobs.http.streams.subscriber import DetachReason, EventWait, Follower
from eventjobs.log import PAGE_MAX
from eventjobs.projections import Views
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.memory_log import MemoryLog
from tests.support.stream_reader import Stream
from tests.support.stream_site import Site
from tests.support.view_model import submit
from tests.support.views import quick_folder, running
from tests.support.waiting import turns

JOBS = "/v1/jobs"


async def read(stream: Stream, count: int) -> list[tuple[str, int]]:
    """The ids of the next frames, and the positions of the snapshots in them."""
    return [(each.id, each.json["position"]) for each in await stream.messages(count)]


async def test_the_cursor_of_who_joins_during_a_batch_does_not_go_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch may have a snapshot that is newer than the batch, whose id is of the batch."""
    a, b = await site.submit(), await site.submit()
    await site.start(a, b)
    await site.wait_for_views()
    first = await site.watch(JOBS)
    assert await read(first, 2) == [("3", 3), ("4", 4)]
    await turns()  # it is live
    get, is_read, may_read = Snapshots.get, asyncio.Event(), asyncio.Event()

    async def get_later(snapshots: Snapshots, job_id: str) -> Snapshot | None:
        if not is_read.is_set():
            is_read.set()
            await may_read.wait()
        return await get(snapshots, job_id)

    monkeypatch.setattr(Snapshots, "get", get_later)
    await site.write_lines(a, "in the batch")
    await is_read.wait()
    await site.write_lines(b, "after it")
    second = await site.watch(JOBS, 5)
    assert await read(second, 1) == [("6", 6)]
    await turns()  # it has joined
    await site.write_lines(a, "newer than the batch")
    await site.wait_for_views()
    may_read.set()
    assert await read(first, 3) == [("5", 7), ("6", 6), ("7", 7)]
    assert await read(second, 1) == [("7", 7)]


class Reader(Follower):
    """It takes all that it is offered."""

    def __init__(self, job_filter: JobFilter, position: int) -> None:
        self.job_filter = job_filter
        self.position = position

    def offer(self, frames: Frames) -> DetachReason | None:
        return None

    def beat(self, heartbeat: Frames) -> DetachReason | None:
        return None

    def on_detached(self, reason: DetachReason) -> None:
        raise AssertionError(reason)


async def test_a_follower_that_is_detached_runs_before_the_next_batch() -> None:
    """However many batches there are: a log whose newest events are in memory makes none wait."""
    log = MemoryLog()
    jobs = Jobs(log)
    job = (await jobs.submit(JobSpec("a"), actor="me")).job
    await jobs.start(job.job_id, worker="me")
    broadcaster = EventBroadcaster(log, JobLookup(jobs))
    began = log.head
    for number in range(3 * PAGE_MAX):
        line = LogWritten(1, "info", f"line {number}")
        await log.append(job.job_id, 2 + number, line, actor="me")
    reader, wait = Reader(JobFilter(), began), EventWait(JobFilter(), began)
    broadcaster.join(reader)
    broadcaster.join(wait)

    async def continue_behind() -> int:
        await wait.detached.wait()
        return broadcaster.position

    running = asyncio.create_task(broadcaster.run())
    assert await asyncio.create_task(continue_behind()) == began + PAGE_MAX
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert (broadcaster.leave(reader), broadcaster.leave(wait)) == (True, False)


async def test_what_a_broadcaster_failed_to_read_its_streams_read_by_themselves(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await site.submit()
    await site.wait_for_views()
    stream = await site.watch(JOBS)
    assert await read(stream, 1) == [("1", 1)]
    await turns()  # it is live
    get, failures = Snapshots.get, [OSError("once")]

    async def get_or_fail(snapshots: Snapshots, job_id: str) -> Snapshot | None:
        if failures:
            raise failures.pop()
        return await get(snapshots, job_id)

    monkeypatch.setattr(Snapshots, "get", get_or_fail)
    await site.start(id)
    async with asyncio.timeout(20):
        assert await read(stream, 1) == [("2", 2)]


@asynccontextmanager
async def live(
    job_filter: JobFilter, kind: type[Snapshots] = Snapshots
) -> AsyncIterator[tuple[MemoryLog, Views, SnapshotBroadcaster, EventWait]]:
    """A broadcaster that does not run yet, and its only follower."""
    clock = FakeClock()
    log = MemoryLog(clock)
    with quick_folder() as folder:
        async with running(folder / "views.db", log, clock) as views:
            broadcaster = SnapshotBroadcaster(views, kind(views))
            follower = EventWait(job_filter, 0)
            broadcaster.join(follower)
            yield log, views, broadcaster, follower


async def test_a_follower_goes_on_from_the_head_also_when_nothing_matched() -> None:
    async with live(JobFilter(ids=frozenset({job_id(9)}))) as (log, views, broadcaster, follower):
        task = asyncio.create_task(broadcaster.run())
        await submit(log, 0)
        await views.wait_for_position(log.head)
        await turns()
        broadcaster.detach(follower, "behind")
        assert follower.position == log.head == 1
        task.cancel()
        await asyncio.wait([task])


async def test_other_tasks_run_while_many_snapshots_are_read() -> None:
    turn = 0
    read_in: set[int] = set()

    class CachedSnapshots(Snapshots):
        async def get(self, job_id: str) -> Snapshot | None:
            read_in.add(turn)
            return None

    async with live(JobFilter(), CachedSnapshots) as (log, views, broadcaster, _):
        for number in range(200):
            await submit(log, number)
        await views.wait_for_position(log.head)
        task = asyncio.create_task(broadcaster.run())
        for turn in range(20):  # noqa: B007 the snapshots note it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert len(read_in) >= 3


async def test_the_job_of_an_event_is_read_once(clock: FakeClock) -> None:
    read_ids: list[str] = []

    class CountingJobs(Jobs):
        async def load_even_parked(self, job_id: str) -> Job | None:
            read_ids.append(job_id)
            return await super().load_even_parked(job_id)

    log = MemoryLog(clock)
    id = await submit(log, 0)
    await log.append(id, 1, AttemptStarted(1, "w"), actor="w")
    lookup, events = JobLookup(CountingJobs(log, clock)), await log.read(1)
    for _ in range(2):
        assert [*await lookup.jobs_of(events)] == [id]
    assert read_ids == [id]

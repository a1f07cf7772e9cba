"""The bounds of what is kept in memory hold in bytes of the process, for entries of any size."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import aiosqlite
import orjson
import pytest

from eventjobs.attempts.ready_queue import JOBS_MAX, ReadyQueue
from eventjobs.commands.job_cache import JobCache
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.codec import decode, encode
from eventjobs.domain.events import AttemptStarted, Event, JobCompleted, JobSubmitted
from eventjobs.domain.job import evolve, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import Overloaded
from eventjobs.http.streams.job_lookup import JobLookup
from eventjobs.http.streams.snapshots import Snapshots
from eventjobs.log import EventLog
from eventjobs.log.sqlite_writer import GroupCommitWriter
from eventjobs.log.tail import Tail
from eventjobs.projections import JobView, Views
from eventjobs.projections.queue import WaitingJob
from eventjobs.projections.read_ahead import ReadAhead
from eventjobs.projections.store import Store
from tests.support.clock import FakeClock
from tests.support.view_rows import HEAD, LOG_ID
from tests.test_kept_json import resident_bytes

MIB = 2**20
#: The bytes of a payload, and how many jobs have one: far more than fit.
SMALL, LARGE = (20, 22_000), (200_000, 500)
AT_US = 1_790_000_000_000_000


def read_event(position: int, version: int, event: Event, job: int | None = None) -> Recorded:
    """*event* of a job of its own, or of that *job*, as it is read from the log."""
    type, facts, body = encode(event)
    job_id = f"00000000-0000-4000-8000-{position if job is None else job:012}"
    read = decode(type, facts, body)
    return Recorded(position, job_id, version, AT_US + position, "ann", read, type, facts, body)


def submission(position: int, size: int, **fields: Any) -> Recorded:
    payload = {"number": position, "text": "x" * size}
    return read_event(position, 1, JobSubmitted(JobSpec("resize", payload, owner="ann", **fields)))


def waiting_job(position: int, queue: str, *, later: bool) -> WaitingJob:
    """As it is read from the views: each has texts of its own."""
    type, queue = orjson.loads(orjson.dumps(["resize", queue]))
    due_us = AT_US + position
    return WaitingJob(position, f"{position:036}", type, queue, None, due_us, due_us, later)


# --- what is filled: each returns what it has filled


def fill_commands(size: int, number: int) -> object:
    """The jobs that commands have read."""

    class Log:
        async def read_job(self, job_id: str) -> list[Recorded]:
            return [submission(int(job_id), size)]

    cache = JobCache(cast("EventLog", Log()))

    async def load() -> None:
        for position in range(1, number + 1):
            await cache.load(str(position))

    asyncio.run(load())
    return cache


def fill_views(size: int, number: int) -> object:
    """The jobs that the views have folded."""

    async def apply() -> Store:
        with TemporaryDirectory() as folder:
            store = await Store.open(Path(folder, "views.db"), LOG_ID, HEAD)
            together = min(1_000, 4 * MIB // size)
            for begin in range(1, number, together):
                await store.apply([submission(begin + each, size) for each in range(together)])
            await store.close()
        return store

    return asyncio.run(apply())


def fill_snapshots(size: int, number: int) -> object:
    """The bodies of responses, with results."""
    snapshots = Snapshots(cast("Views", None))
    for position in range(number):
        events = [submission(position, size)]
        events.append(read_event(position, 2, AttemptStarted(1, "w")))
        events.append(read_event(position, 3, JobCompleted(1, "y" * size)))
        job = fold(events)
        assert job is not None
        snapshots.of(JobView(job, None, None))
    return snapshots


def fill_lookup(size: int, number: int) -> object:
    """The jobs that filters of streams are applied to."""
    lookup = JobLookup(cast("Jobs", None))
    tags = tuple(f"{each}" * 100 for each in range(32)) if size > 1_000 else ()

    async def look_up() -> None:
        for position in range(max(number, 22_000)):
            await lookup.jobs_of([submission(position, 0, tags=tags)])

    asyncio.run(look_up())
    return lookup


def fill_tail(size: int, number: int) -> object:
    """The newest events, with their JSON for streams."""
    tail = Tail()
    for position in range(1, number + 1):
        event = submission(position, size)
        event.json()
        tail.publish([event])
    return tail


def fill_tail_with_starts(size: int, number: int) -> object:
    """Small events of jobs whose payloads are large, folded by commands and by the views."""
    tail = Tail()
    for position in range(1, number + 1):
        job = evolve(None, submission(position, size))
        start = read_event(position, 2, AttemptStarted(1, "w"))
        tail.publish([start])
        evolve(job, start)
        evolve(job, start)
    return tail


def fill_waiting(size: int, number: int) -> object:
    """The appends that wait for a commit: as many as are accepted."""
    connection = cast("aiosqlite.Connection", None)
    writer = GroupCommitWriter(Path("log.db"), connection, FakeClock(), Tail(), exclusive=False)

    async def append() -> None:
        with suppress(Overloaded):
            for position in range(number):
                writer.check_accepts()
                writer.enqueue([submission(position, size)])

    asyncio.run(append())
    return writer


def fill_windows(size: int, number: int) -> object:
    """Two windows of a log that the views read, folded."""

    class Log:
        head = number

        async def read(self, after: int, limit: int) -> list[Recorded]:
            events = [submission(after + each, size) for each in range(1, limit + 1)]
            for each in events:
                each.json()
                evolve(None, each)
            return events

    async def read() -> list[list[Recorded]]:
        with ReadAhead(Log()) as ahead:
            first = await ahead.read(0)
            return [first, await ahead.read(len(first))]

    return asyncio.run(read())


def fill_ready_queue(size: int, number: int) -> object:
    """200,000 jobs that wait, in one line or in 1,000."""
    queue = ReadyQueue()
    queue.load([])
    lines = 1 if size < 1_000 else 1_000
    for position in range(200_000):
        queue.put(waiting_job(position, f"queue {position % lines}", later=False))
    return queue


def fill_later(size: int, number: int) -> object:
    """100,000 jobs that wait for a later time."""
    queue = ReadyQueue()
    queue.load([])
    queue.later.horizon = None
    for position in range(100_000):
        queue.put(waiting_job(position, "default", later=True))
    return queue


Fill = Callable[[int, int], object]
#: What is filled, and the bytes that it may have.
BOUNDS: dict[Fill, int] = {
    fill_commands: 64 * MIB,
    fill_views: 64 * MIB,
    fill_snapshots: 64 * MIB,
    fill_lookup: 64 * MIB,
    fill_tail: 64 * MIB,
    fill_tail_with_starts: 64 * MIB,
    fill_waiting: 64 * MIB,
    fill_windows: 2 * 16 * MIB,
    fill_ready_queue: 550 * 10 * JOBS_MAX,
    fill_later: 550 * 2 * JOBS_MAX,
}


def growth(fill: Fill, size: int, number: int) -> int:
    """The bytes by which a process grows that fills it; a new process has no memory to reuse."""
    reader, writer = os.pipe()
    if not os.fork():
        before = resident_bytes()
        filled = fill(size, number)
        os.write(writer, b"%d" % (resident_bytes() - before))
        del filled
        os._exit(0)
    os.close(writer)
    grown = int(os.read(reader, 100))
    os.close(reader)
    os.wait()
    return grown


@pytest.fixture(scope="module")
def growths() -> dict[str, list[int]]:
    output = subprocess.run([sys.executable, "-m", __name__], capture_output=True, check=True)
    by_fill: dict[str, list[int]] = orjson.loads(output.stdout)
    return by_fill


@pytest.mark.parametrize("fill", BOUNDS, ids=lambda fill: fill.__name__)
def test_a_bound_holds_in_bytes_of_the_process(fill: Fill, growths: dict[str, list[int]]) -> None:
    for grown in growths[fill.__name__]:
        assert grown < 1.5 * BOUNDS[fill], "of many small ones, of few large ones"


if __name__ == "__main__":
    print(
        orjson.dumps(
            {fill.__name__: [growth(fill, *size) for size in (SMALL, LARGE)] for fill in BOUNDS}
        ).decode()
    )

"""What is written to a subscriber that joins while a batch is prepared."""

import asyncio

import pytest

from eventjobs.http.streams.snapshots import Snapshot, Snapshots
from tests.support.stream_reader import Stream
from tests.support.stream_site import Site
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

"""Streams of snapshots: the present of each job, then each change; always the newest."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import ProgressReported
from eventjobs.http import requests
from eventjobs.projections.store import Store
from tests.support.histories import job_id
from tests.support.stream_reader import Message, Stream, Wire
from tests.support.stream_site import ME, Site, change, open_site
from tests.support.waiting import turns

JOBS = "/v1/jobs"


class NewestSnapshots:
    """The newest snapshot of each job that a reader has read."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.count = 0

    def take(self, messages: list[Message]) -> None:
        for each in messages:
            if each.event == "job":
                job = each.json
                before = self.jobs.get(job["job_id"], job)
                assert before["version"] <= job["version"], "an older state after a newer one"
                assert int(each.id) <= job["position"], "the cursor is ahead of the snapshot"
                self.jobs[job["job_id"]] = job
                self.count += 1

    def position(self, id: str) -> int:
        position: int = self.jobs[id]["position"] if id in self.jobs else 0
        return position


async def read_until(stream: Stream, seen: NewestSnapshots, id: str, position: int) -> None:
    while seen.position(id) < position:
        assert await stream.more(), "the stream ended"
        seen.take(stream.take())


async def as_now(site: Site, id: str) -> Any:
    """The body of GET, without what changes by itself."""
    return lasting(await site.json(f"{JOBS}/{id}"))


def lasting(job: Any) -> Any:
    return {**job, "remaining_s": None, "pace": None}


async def test_first_comes_the_present_then_every_newer_state(site: Site) -> None:
    ids = [await site.completed_job(), await site.submit("b"), await site.submit()]
    await site.wait_for_views()
    stream = await site.watch(JOBS)
    read = await stream.messages(3)
    assert [each.json["job_id"] for each in read] == ids
    for each in read:
        assert each.event == "job"
        assert each.json == await site.json(f"{JOBS}/{each.json['job_id']}")
        assert int(each.id) == each.json["position"]
    new = await site.submit("c")
    await site.start(ids[1])
    seen = NewestSnapshots()
    await read_until(stream, seen, ids[1], site.head)
    assert seen.jobs[new] == await site.json(f"{JOBS}/{new}")
    assert lasting(seen.jobs[ids[1]]) == await as_now(site, ids[1])


async def test_a_stream_shows_what_was_written_before_it_was_asked_for(site: Site) -> None:
    for _ in range(20):
        id = await site.submit()
        stream = await site.watch(f"{JOBS}/{id}")
        [message] = await stream.messages(1)
        assert message.json["status"] == "queued"
        stream.drop()


async def test_a_stream_ends_after_the_last_state_however_late_the_views_are(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the end of the job before the views show it."""
    id = await site.submit()
    await site.start(id)
    await site.wait_for_views()
    fold, may_fold = Store.fold, asyncio.Event()

    async def fold_later(store: Store, batch: Any, **options: Any) -> Any:
        await may_fold.wait()
        return await fold(store, batch, **options)

    monkeypatch.setattr(Store, "fold", fold_later)
    monkeypatch.setattr(requests, "VIEWS_S", 0.01)
    await site.complete(id)
    stream = await site.watch(f"{JOBS}/{id}")
    assert [each.json["status"] for each in await stream.messages(1)] == ["running"]
    await turns()  # it looks whether the job has ended
    may_fold.set()
    last, end = await stream.rest()
    assert (last.json["status"], end.event) == ("completed", "end")


async def test_a_slow_reader_skips_states_but_gets_the_newest_and_the_last(site: Site) -> None:
    ids = [await site.submit() for _ in range(3)]
    await site.start(*ids)
    slow, fast = await site.watch(JOBS), await site.watch(f"{JOBS}/{ids[0]}")
    seen = NewestSnapshots()
    await read_until(fast, seen, ids[0], 4)
    for number in range(30):
        for each in ids:
            report = ProgressReported(1, number, 30, "stage", "m" * 1000)
            await site.append_many(each, 50, report)
        await site.wait_for_views()
    await site.complete(ids[0], {"n": 1})
    seen_by_slow = NewestSnapshots()
    for each in ids:
        newest = (await site.json(f"{JOBS}/{each}"))["position"]
        await read_until(slow, seen_by_slow, each, newest)
        assert lasting(seen_by_slow.jobs[each]) == await as_now(site, each)
    assert seen_by_slow.count < 1000, "nothing was skipped"
    seen.take(await fast.rest())
    assert seen.jobs[ids[0]] == await site.json(f"{JOBS}/{ids[0]}")


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_snapshot_is_what_get_says_whatever_happened_to_connections(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    written = asyncio.Event()
    ids = [job_id(number) for number in range(8)]
    paths = {
        JOBS: ids,
        f"{JOBS}?type=a": ids[::2],
        f"{JOBS}?tag=t": [ids[1], ids[2], ids[4], ids[5], ids[7]],
        f"{JOBS}?id={','.join(ids[:3])}": ids[:3],
        f"{JOBS}/{ids[1]}": [ids[1]],
        f"{JOBS}?id={','.join(ids[:4])}&type=b": ids[1:4:2],
    }

    async def follow(site: Site, path: str, seen: NewestSnapshots) -> None:
        last_id: int | str | None = None
        while True:
            stream = await site.open(path, last_id)
            while stream.status == 200 and rng.random() > 0.05 and await stream.more():
                seen.take(stream.take())
                if written.is_set() and stream.wire.beats > 1:
                    break
            if stream.status == 204:
                await written.wait()
            last_id = stream.last_id or last_id
            stream.drop()
            wanted = {each for each in paths[path] if site.service.views.cached_job(each)}
            now = {each: await as_now(site, each) for each in wanted}
            if written.is_set() and now == {id: lasting(job) for id, job in seen.jobs.items()}:
                return

    async def write(site: Site, number: int) -> None:
        for _ in range(60):
            await change(site.jobs, rng, number, hide=False)
            await change(site.jobs, rng, rng.randrange(8), hide=False)

    async with open_site(tmp_path, heartbeat_s=0.1, stream_buffer_bytes_max=2048) as site:
        for number in range(8):
            await change(site.jobs, rng, number)
        async with asyncio.TaskGroup() as group:
            for path in paths:
                for _ in range(4):
                    group.create_task(follow(site, path, NewestSnapshots()))
            await asyncio.gather(*(write(site, number) for number in range(8)))
            await site.wait_for_views()
            written.set()


async def test_a_reader_that_is_cut_off_anywhere_goes_on_without_missing_a_job(site: Site) -> None:
    rng = random.Random(5)
    ids = [await site.submit() for _ in range(12)]
    for _ in range(30):
        each = rng.choice(ids)
        job = await site.jobs.load(each)
        assert job is not None
        if job.status == "queued":
            await site.start(each)
        await site.write_lines(each, "line")
    await site.wait_for_views()
    whole = await site.watch(JOBS, keep=True)
    await whole.messages(12)
    moved = rng.sample(ids, 4)  # while the reader is away
    cuts = rng.sample(range(len(whole.raw)), 60)
    newest = {each: (await site.json(f"{JOBS}/{each}"))["position"] for each in ids}
    for cut in cuts:
        seen, wire = NewestSnapshots(), Wire()
        seen.take(wire.feed(whole.raw[:cut]))
        if rng.random() < 0.3 and (each := rng.choice(moved)):
            job = await site.jobs.load(each)
            assert job is not None
            if job.status == "queued":
                await site.start(each)
            await site.write_lines(each, "more")
            await site.wait_for_views()
            newest[each] = site.head
        stream = await site.watch(JOBS, wire.last_id or None)
        for each in sorted(ids, key=lambda id: newest[id]):
            await read_until(stream, seen, each, newest[each])
        stream.drop()


async def test_a_filter_shows_what_fits_and_tells_what_has_left(site: Site) -> None:
    a = await site.submit("a", tags=("x", "y"), owner="ann")
    b = await site.submit("b", tags=("y",))
    c = await site.completed_job("c")
    await site.wait_for_views()
    for query, fits in {
        "type=a": {a},
        "type=a,c": {a, c},
        "tag=y": {a, b},
        "tag=x&type=b": set(),
        "owner=ann": {a},
        "status=queued": {a, b},
        "status=completed,failed": {c},
        "status=queued&type=b,c": {b},
        f"id={a},{c}&status=completed": {c},
    }.items():
        stream = await site.watch(f"{JOBS}?{query}")
        assert {each.json["job_id"] for each in await stream.messages(len(fits))} == fits
        stream.drop()
    queued = await site.watch(f"{JOBS}?status=queued")
    await queued.messages(2)
    await site.start(b)  # leaves
    [left] = await queued.messages(1)
    assert (left.json["job_id"], left.json["status"]) == (b, "running")
    await site.write_lines(b, "a line")
    await site.start(a)
    assert [each.json["job_id"] for each in await queued.messages(1)] == [a]


async def test_who_comes_back_is_told_of_jobs_that_left_the_filter_meanwhile(site: Site) -> None:
    a = await site.submit()
    await site.wait_for_views()
    stream = await site.watch(f"{JOBS}?status=queued")
    await stream.messages(1)
    stream.drop()
    await site.start(a)
    again = await site.watch(f"{JOBS}?status=queued", stream.last_id)
    [left] = await again.messages(1)
    assert left.json["status"] == "running"


async def test_only_the_newest_jobs_are_told_at_first_and_older_ones_when_they_change(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path, page_max=5) as site:
        ids = [await site.submit() for _ in range(12)]
        await site.wait_for_views()
        stream = await site.watch(JOBS)
        assert [each.json["job_id"] for each in await stream.messages(5)] == ids[-5:]
        await site.start(ids[0])
        assert [each.json["job_id"] for each in await stream.messages(1)] == [ids[0]]
        again = await site.watch(JOBS, stream.last_id)
        await site.start(ids[1])
        assert [each.json["job_id"] for each in await again.messages(1)] == [ids[1]]


async def test_hidden_jobs_are_not_shown(site: Site) -> None:
    a, b = await site.completed_job(), await site.completed_job()
    await site.jobs.expire(a, "over", actor=ME)
    await site.wait_for_views()
    stream = await site.watch(JOBS)
    assert [each.json["job_id"] for each in await stream.messages(1)] == [b]
    await site.jobs.expire(b, "over", actor=ME)
    c = await site.submit()
    events = [(each.event, each.json["job_id"]) for each in await stream.messages(2)]
    assert events == [("gone", b), ("job", c)]
    again = await site.watch(JOBS, 1)
    events = [(each.event, each.json["job_id"]) for each in await again.messages(3)]
    assert events == [("gone", a), ("gone", b), ("job", c)]


def matching(query: str) -> dict[str, Any]:
    """The fields of a submission that *query* matches."""
    name, _, value = query.removeprefix("?").partition("=")
    specs: dict[str, dict[str, Any]] = {
        "type": {"type": value},
        "tag": {"tags": (value,)},
        "owner": {"owner": value},
    }
    return specs.get(name, {})


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("", True),
        ("?type=a", True),
        ("?tag=t", True),
        ("?status=completed", True),
        ("?status=queued", False),
        ("?type=b", False),
        ("?tag=u", False),
        ("?owner=o", False),
    ],
)
async def test_who_watches_a_list_learns_that_a_job_was_hidden(
    site: Site, query: str, matches: bool
) -> None:
    """Otherwise it stays in the list for ever."""
    job = await site.completed_job(tags=("t",))
    await site.wait_for_views()
    stream = await site.watch(JOBS + query)
    if matches:
        assert [each.event for each in await stream.messages(1)] == ["job"]
    before = site.service.log.head
    await site.jobs.expire(job, "deleted", actor=ME)
    mark = await (site.completed_job if query == "?status=completed" else site.submit)(
        **matching(query)
    )
    events = await stream.messages(2 if matches else 1)
    assert [each.event for each in events] == (["gone", "job"] if matches else ["job"])
    assert events[-1].json["job_id"] == mark
    if matches:
        gone = events[0].json
        assert (gone.keys(), gone["job_id"]) == ({"job_id", "expired_at", "position"}, job)
        assert int(events[0].id or 0) == gone["position"] == before + 1


async def test_a_named_job_that_was_hidden_has_gone_while_others_run(site: Site) -> None:
    a, b = await site.completed_job(), await site.submit()
    await site.wait_for_views()
    stream = await site.watch(f"{JOBS}?id={a},{b}")
    assert {each.json["job_id"] for each in await stream.messages(2)} == {a, b}
    await site.jobs.expire(a, "deleted", actor=ME)
    [gone] = await stream.messages(1)
    assert (gone.event, gone.json["job_id"]) == ("gone", a)
    again = await site.watch(f"{JOBS}?id={a},{b}", 1)
    assert {(each.event, each.json["job_id"]) for each in await again.messages(2)} == {
        ("gone", a),
        ("job", b),
    }


async def test_who_was_away_for_long_is_told_once_of_each_job_in_order(site: Site) -> None:
    ids = [await site.completed_job() for _ in range(30)]
    running = [await site.submit() for _ in range(3)]
    await site.start(*running)
    for each in running:
        await site.append_many(each, 700)
    ids += [await site.completed_job() for _ in range(30)]
    await site.wait_for_views()
    for path, wanted in ((JOBS, {*ids, *running}), (f"{JOBS}?type=a", {*ids, *running})):
        stream = await site.watch(path, 1)
        read = await stream.messages(len(wanted))
        assert {each.json["job_id"] for each in read} == wanted
        read_positions = [each.json["position"] for each in read]
        assert read_positions == sorted(read_positions) == [int(each.id) for each in read]


async def test_a_large_state_does_not_hold_up_the_others(site: Site) -> None:
    """A write has a few frames, or one of any size."""
    ids = [await site.completed_job(payload="x" * 300_000) for _ in range(8)]
    await site.wait_for_views()
    stream = await site.watch(JOBS)
    read = await stream.messages(8)
    assert [each.json["job_id"] for each in read] == ids
    for each in read:
        assert each.json == await site.json(f"{JOBS}/{each.json['job_id']}")


async def test_streams_go_on_while_the_views_are_rebuilt(site: Site) -> None:
    ids = [await site.completed_job() for _ in range(20)]
    await site.wait_for_views()
    stream = await site.watch(JOBS)
    await stream.messages(20)
    rebuilt = asyncio.create_task(site.service.views.rebuild())
    new = [await site.completed_job() for _ in range(20)]
    await rebuilt
    new += [await site.completed_job() for _ in range(5)]
    seen = NewestSnapshots()
    for each in new:
        newest = (await site.json(f"{JOBS}/{each}"))["position"]
        await read_until(stream, seen, each, newest)
    assert set(seen.jobs) == set(new)
    assert not set(ids) & set(new)

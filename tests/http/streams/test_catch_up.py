"""Streams of events: every event after any position, once, whichever connection breaks."""

import asyncio
import random
from pathlib import Path

import pytest

from eventjobs.domain.events import LogWritten
from eventjobs.domain.recorded import Recorded
from eventjobs.http.streams import streams
from eventjobs.http.streams.frames import Frames
from eventjobs.http.streams.subscriber import Subscriber
from tests.support.histories import job_id
from tests.support.stream_reader import Message, Stream, positions
from tests.support.stream_site import EVENTS, Site, as_messages, change, events_path, open_site


async def submit_three(site: Site) -> list[str]:
    """Three jobs of two types, whose events alternate."""
    ids = [await site.submit("ab"[number % 2]) for number in range(3)]
    for _ in range(3):
        for each in ids:
            job = await site.jobs.load(each)
            assert job is not None
            if job.status == "queued":
                await site.start(each)
            await site.write_lines(each, "line")
    for each in ids[:2]:
        await site.complete(each)
    return ids


def messages_after(facts: list[Recorded], wanted: set[str], after: int) -> list[Message]:
    return as_messages([each for each in facts if each.job_id in wanted and each.position > after])


@pytest.mark.parametrize("by", ["header", "query", "both"])
async def test_a_stream_resumes_at_every_position(site: Site, by: str) -> None:
    a, b, c = await submit_three(site)
    facts = await site.facts()
    selections = {
        EVENTS: {a, b, c},
        events_path(a): {a},
        events_path(c): {c},
        f"{EVENTS}?id={a},{c}": {a, c},
        f"{EVENTS}?id={b}&id={c}": {b, c},
        f"{EVENTS}?type=a": {a, c},
        f"{EVENTS}?type=b": {b},
        f"{EVENTS}?type=a,b": {a, b, c},
        f"{EVENTS}?id={a},{b},{c}&type=a": {a, c},
    }
    for path, wanted in selections.items():
        for after in range(site.head + 1):
            joint = "&" if "?" in path else "?"
            query = {"header": "", "query": f"{joint}after={after}", "both": f"{joint}after=1"}[by]
            last_id = None if by == "query" else after
            expected = messages_after(facts, wanted, after)
            stream = await site.open(path + query, last_id)
            if stream.status == 204:
                assert (expected, last_id is not None, wanted) == ([], True, {a})
                continue
            assert await stream.messages(len(expected)) == expected
            stream.drop()


class Follower:
    """Reads a stream over many connections, until it has all the events of its jobs."""

    def __init__(self, site: Site, rng: random.Random, path: str, wanted: set[str], after: int):
        self.read: list[int] = []
        self.connections = 0
        self._it, self._rng, self._path = site, rng, path
        self._wanted = wanted
        self._after = after

    async def run(self, written: asyncio.Event, patience: float) -> None:
        last_id: int | str | None = self._after or None
        while True:
            stream = await self._it.open(self._path, last_id)
            self.connections += 1
            if stream.status == 200:
                await self._read_one(stream, written, patience)
                last_id = stream.last_id or last_id
            else:
                assert stream.status == 204
                await written.wait()
            stream.drop()
            if written.is_set() and self.read == await self.expected_positions():
                return

    async def _read_one(self, stream: Stream, written: asyncio.Event, patience: float) -> None:
        beats = 2
        while self._rng.random() > patience and await stream.more():
            self.read += positions(stream.take())
            if written.is_set() and stream.wire.beats >= beats:
                break

    async def expected_positions(self) -> list[int]:
        facts = await self._it.facts(self._after)
        return [each.position for each in facts if each.job_id in self._wanted]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_missed_or_repeated_while_many_write_and_connections_break(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    all_ids = [job_id(number) for number in range(8)]
    selections = {
        EVENTS: set(all_ids),
        events_path(all_ids[1]): {all_ids[1]},
        f"{EVENTS}?id={','.join(all_ids[:3])}": set(all_ids[:3]),
        f"{EVENTS}?type=a": set(all_ids[::2]),
        f"{EVENTS}?type=b": set(all_ids[1::2]),
    }
    written = asyncio.Event()

    async def write(writer: int) -> None:
        for _ in range(60):
            await change(site.jobs, rng, writer, hide=False)
            await change(site.jobs, rng, rng.randrange(8), hide=False)

    async with open_site(tmp_path, heartbeat_s=0.1, stream_buffer_bytes_max=2048) as site:
        for number in range(8):
            await change(site.jobs, rng, number)
        followers = [
            Follower(site, rng, path, wanted, rng.randint(0, site.head))
            for path, wanted in selections.items()
            for _ in range(5)
        ]
        async with asyncio.TaskGroup() as group:
            for each in followers:
                group.create_task(each.run(written, 0.05))
            await asyncio.gather(*(write(number) for number in range(8)))
            written.set()
        for each in followers:
            assert each.read == await each.expected_positions()
        assert sum(each.connections for each in followers) > 2 * len(followers)


async def test_clients_that_join_between_two_writes_get_exactly_what_comes_after(
    tmp_path: Path,
) -> None:
    """They connect in the turn of the loop in which an event is written to the others."""
    rng = random.Random(1)
    rounds = 120  # each of at least one fact from either writer

    async def join(site: Site, path: str, wanted: set[str]) -> None:
        moment = rng.randint(1, 2 * rounds)
        if moment > site.head:
            await site.service.log.wait(moment)
        after = rng.choice((0, moment, site.head, rng.randint(0, site.head)))
        stream = await site.watch(path, after or None)
        read: list[Message] = []
        while not finished.is_set() or stream.wire.beats < 2:
            assert await stream.more()
            read += stream.take()
        assert read == messages_after(await site.facts(), wanted, after)

    async def write(site: Site, id: str) -> None:
        for _ in range(rounds):
            if rng.random() < 0.3:
                await site.append_many(id, 3)
            else:
                await site.write_lines(id, "line")

    finished = asyncio.Event()
    async with open_site(tmp_path, heartbeat_s=0.2) as site:
        a, b = [await site.submit(each) for each in "ab"]
        await site.start(a, b)
        paths = [(EVENTS, {a, b}), (events_path(a), {a}), (f"{EVENTS}?type=b", {b})]
        paths += [(f"{EVENTS}?id={a},{b}", {a, b}), (f"{EVENTS}?type=a,b", {a, b})]
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(join(site, *paths[number % len(paths)]))
            await asyncio.gather(write(site, a), write(site, b))
            while len(site.opened) < 200:  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0)
            finished.set()


def count_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of events on the pages that are read from the log."""
    read: list[int] = []
    from_log = site.service.log.read

    async def count(after: int, limit: int = 512) -> list[Recorded]:
        page = await from_log(after, limit)
        read.append(len(page))
        return page

    monkeypatch.setattr(site.service.log, "read", count)
    return read


async def test_a_stream_of_few_jobs_in_a_long_log_reads_nobody_elses_facts(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [await site.submit() for _ in range(3)]
    await site.start(*mine)
    other = await site.submit("b")
    await site.start(other)
    for _ in range(3):
        await site.append_many(other, 2000)
        for each in mine:
            await site.append_many(each, 150)
    facts = await site.facts()
    counts = count_reads(site, monkeypatch)
    for path, wanted in (
        (events_path(mine[0]), {mine[0]}),
        (f"{EVENTS}?id={','.join(mine)}", set(mine)),
    ):
        stream = await site.watch(path)
        expected = messages_after(facts, wanted, 0)
        assert await stream.messages(len(expected)) == expected
    assert sum(counts) < 1000


async def test_the_one_event_of_a_job_at_the_end_of_a_long_log_is_written(site: Site) -> None:
    mine, other = await site.submit(), await site.submit("b")
    await site.start(mine, other)
    after = site.head
    await site.append_many(other, 600)
    await site.write_lines(mine, "the newest")
    stream = await site.watch(events_path(mine), after)
    assert positions(await stream.messages(1)) == [site.head]


async def test_a_stream_of_many_jobs_that_misses_little_does_not_read_each_job(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await site.submit() for _ in range(3)]
    await site.start(*ids)
    await site.append_many(ids[0], 600)
    pages = []
    from_log = site.service.log.read_job

    async def note(id: str, after: int = 0, limit: int | None = None) -> list[Recorded]:
        if limit is not None:  # a load of the job has none
            pages.append(id)
        return await from_log(id, after, limit)

    monkeypatch.setattr(site.service.log, "read_job", note)
    stream = await site.watch(f"{EVENTS}?id={','.join(ids)}", site.head - 2)
    assert positions(await stream.messages(2)) == [site.head - 1, site.head]
    assert pages == []


async def test_a_filter_that_no_named_job_matches_ends_the_stream_of_a_long_log(
    site: Site,
) -> None:
    id = await site.submit()
    await site.start(id)
    await site.append_many(id, 600)
    stream = await site.watch(f"{EVENTS}?id={id}&type=b")
    assert [each.event for each in await stream.rest()] == ["end"]


async def test_pages_are_as_long_as_what_fits_in_a_write(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large events would be read again and again if all pages were long."""
    id = await site.submit()
    await site.start(id)
    await site.append_many(id, 500)
    await site.append_many(id, 40, LogWritten(1, "info", "x" * 50_000))
    await site.append_many(id, 100)
    facts = await site.facts()
    read = count_reads(site, monkeypatch)
    stream = await site.watch(EVENTS)
    assert positions(await stream.messages(len(facts))) == [each.position for each in facts]
    assert sum(read) < 2 * len(facts)
    assert len(read) < 40


async def fill_log(site: Site, others: int = 2000) -> None:
    """A log of several pages in the file: one event of type "b", others of "a", and one of "b"."""
    await site.submit("b")
    other = await site.submit("a")
    await site.start(other)
    for _ in range(3):
        await site.append_many(other, others)
    await site.submit("b")
    await site.wait_for_views()


async def test_a_stream_of_a_type_in_a_long_log_reads_the_pages_of_that_type(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_log(site)
    facts = await site.facts()
    expected = as_messages([facts[0], facts[-1]])
    counts = count_reads(site, monkeypatch)
    stream = await site.watch(f"{EVENTS}?type=b")
    assert await stream.messages(2) == expected
    assert sum(counts) <= 2 * 512
    page = await site.json(f"{EVENTS}?type=b")
    assert [each["position"] for each in page["events"]] == [1, site.head]
    assert sum(counts) <= 4 * 512
    states = await site.watch("/v1/jobs?type=b", 1)
    assert [each.json["position"] for each in await states.messages(1)] == [site.head]
    assert sum(counts) <= 6 * 512 < site.head


async def test_streams_that_catch_up_together_share_what_they_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_log(site)
    expected = as_messages(await site.facts())
    counts = count_reads(site, monkeypatch)
    first, *others = [await site.watch(EVENTS) for _ in range(4)]
    later = await site.watch(EVENTS, 700)
    assert await first.messages(site.head) == expected
    for each in others:
        assert await each.messages(site.head) == expected
    assert await later.messages(site.head - 700) == expected[700:]
    assert sum(counts) < 1.5 * site.head


async def test_few_streams_catch_up_in_one_turn_of_the_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks that are ready run in between."""
    await fill_log(site)
    writes_of_turn: list[int] = [0]
    write = Subscriber.write

    def count(self: Subscriber, frames: Frames) -> None:
        writes_of_turn[-1] += len(frames) > 1000
        write(self, frames)

    async def turn() -> None:
        while True:
            writes_of_turn.append(0)
            await asyncio.sleep(0)

    monkeypatch.setattr(Subscriber, "write", count)
    turning = asyncio.create_task(turn())
    opened = [await site.watch(EVENTS) for _ in range(20)]
    for each in opened:
        assert len(await each.messages(site.head)) == site.head
    turning.cancel()
    assert sum(writes_of_turn) >= 20
    assert max(writes_of_turn) <= streams.CATCH_UPS_MAX


async def test_large_events_are_read_few_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await site.submit("a")
    await site.start(other)
    await site.append_many(other, 100, LogWritten(1, "info", "x" * 100_000))
    await site.append_many(other, 5000)
    expected = as_messages(await site.facts())
    counts = count_reads(site, monkeypatch)
    stream = await site.watch(EVENTS)
    assert await stream.messages(site.head) == expected
    assert max(counts[2:8]) <= 20
    assert counts[-1] > 100, "small ones are read many at a time again"


async def test_large_events_of_a_named_job_are_read_few_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = await site.submit(), await site.submit("b")
    await site.start(mine, other)
    await site.append_many(mine, 200, LogWritten(1, "info", "x" * 50_000))
    await site.append_many(other, 600)
    expected = messages_after(await site.facts(), {mine}, 0)
    counts = []
    from_log = site.service.log.read_job

    async def count(id: str, after: int = 0, limit: int | None = None) -> list[Recorded]:
        page = await from_log(id, after, limit)
        if limit is not None:  # a load of the job has none
            counts.append(len(page))
        return page

    monkeypatch.setattr(site.service.log, "read_job", count)
    stream = await site.watch(events_path(mine))
    assert await stream.messages(len(expected)) == expected
    assert max(counts[1:]) <= 25

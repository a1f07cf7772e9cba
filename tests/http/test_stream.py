"""Streams of facts over HTTP: what is on the wire, where they resume, and how they end."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    JobExpired,
    JobSubmitted,
    LogWritten,
    ProgressReported,
)
from eventjobs.domain.recorded import Recorded
from tests.support.histories import job_id
from tests.support.stream_reader import Message, Stream, positions, whatwg
from tests.support.stream_site import ME, Site, change, site

EVENTS = "/v1/events"


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as made:
        yield made


def of(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/events"


def told(facts: list[Recorded]) -> list[Message]:
    """How facts look to a browser."""
    return [Message("event", each.json().decode(), str(each.position)) for each in facts]


# --- the wire


async def test_the_headers_are_those_of_a_stream_that_proxies_let_through(it: Site) -> None:
    stream = await it.watch(EVENTS, headers={"Accept-Encoding": "gzip, deflate, br"})
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["x-content-type-options"] == "nosniff"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert not {"content-length", "content-encoding", "connection"} & stream.headers.keys()


async def test_something_is_written_at_once_even_when_nothing_ever_happened(it: Site) -> None:
    stream = await it.watch(EVENTS, keep=True)
    await stream.more()
    assert stream.raw == b"retry: 2000\n:\n\n"
    assert stream.wire.retries == [2000]
    assert stream.last_id == ""


NASTY = [
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\r\n\r\n",
    "a\n\nid: 999999\nevent: end\ndata: {}\n\n",
    "\ndata: x\n",
    "\0",
    "id: 5\0",
    "\u0085\u2028\u2029\x0b\x0c\x1c",
    "\ufeff",
    "😀\U0010ffff",
    'quo"te\\n',
    "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
]


@pytest.mark.parametrize("live", [True, False], ids=["live", "afterwards"])
async def test_no_text_of_a_job_breaks_a_frame(it: Site, live: bool) -> None:
    if live:
        facts = await it.watch(EVENTS, keep=True)
        states = await it.watch("/v1/jobs", keep=True)
    id = await it.submit(payload={each: each for each in NASTY}, tags=tuple(NASTY[-3:]))
    await it.start(id)
    await it.say(id, *NASTY)
    for each in NASTY:
        report = ProgressReported(1, 1, 2, each, each, {"data": each})
        await it.jobs.report(id, report, actor=ME)
    failed = AttemptFailed(1, "".join(NASTY), True, 1, "".join(NASTY), NASTY)
    await it.jobs.fail(id, failed, actor="".join(NASTY).replace("\0", ""))
    await it.start(id)
    await it.complete(id, NASTY)
    await it.seen()
    if not live:
        facts = await it.watch(EVENTS, keep=True)
        states = await it.watch("/v1/jobs", keep=True)
    read = await facts.messages(it.head)
    assert read == told(await it.facts()) == whatwg(facts.raw)
    assert [each.json["data"].get("message") for each in read][2 : 2 + len(NASTY)] == NASTY
    newest = await newest_of(states, it.head)
    assert newest.json == await it.json(f"/v1/jobs/{id}")
    assert newest.json["result"] == NASTY
    assert whatwg(states.raw)[-1] == newest


async def newest_of(states: Stream, position: int) -> Message:
    """The snapshot at *position*."""
    while True:
        message = await states.message()
        assert message is not None
        if message.json["position"] == position:
            return message


async def test_an_id_stands_only_on_what_is_in_the_log(it: Site) -> None:
    id = await it.done()
    stream = await it.watch(of(id), "77", keep=True)
    await stream.rest()
    blocks = stream.raw.decode().removesuffix("\n\n").split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "retry: 2000",
        "event: reset",
        "id: 1",
        "id: 2",
        "id: 3",
        "id: 4",
        "id: 4",  # a cursor alone
        "event: end",
    ]


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_a_client_of_http_1_0_reads_until_the_connection_is_closed(
    it: Site, connection: str
) -> None:
    id = await it.submit()
    stream = await it.watch(of(id), version="1.0", headers={"Connection": connection})
    assert "transfer-encoding" not in stream.headers
    assert stream.headers.get("connection", "close") == "close"
    await it.start(id)
    read = await stream.messages(2)
    await it.complete(id)
    read += await stream.rest()
    assert stream.ended
    assert positions(read) == [1, 2, 3]
    assert read[-1].event == "end"


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream;charset=utf-8", True),
        ("text/event-stream; q=0.5", True),
        ("application/json, text/event-stream", True),
        ("text/event-stream, */*;q=0.1", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000, application/json", False),
        ("text/event-streams", False),
        ("application/json", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
    ],
)
async def test_only_who_accepts_a_stream_gets_one(it: Site, accept: str, streams: bool) -> None:
    id = await it.done()
    await it.seen()
    for path in (of(id), f"/v1/jobs/{id}", f"{EVENTS}?id={id}"):
        head, _ = await it.get(path, headers={"Accept": accept})
        assert head.status == 200
        assert (head.headers["content-type"] == "text/event-stream") is streams


async def test_to_ask_for_the_head_of_a_stream_does_not_begin_one(it: Site) -> None:
    id = await it.submit()
    for path in (of(id), EVENTS, "/v1/jobs", f"/v1/jobs/{id}"):
        accept = {"Accept": "text/event-stream"}
        head, body = await it.get(path, method="HEAD", headers=accept)
        assert (head.status, body, len(it.streams)) == (200, b"", 0)


async def test_a_stream_with_a_body_or_another_request_behind_it_goes_on(it: Site) -> None:
    """A request that comes before the answer to the last one has ended waits for that."""
    id = await it.submit()
    stream = await it.watch(of(id), headers={"Content-Length": "3"})
    stream._writer.write(b"abcGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await it.start(id)
    assert positions(await stream.messages(2)) == [1, 2]
    await it.complete(id)
    assert positions(await stream.messages(1)) == [3]


# --- resuming


async def three(it: Site) -> list[str]:
    """Three jobs of two types, whose facts alternate."""
    ids = [await it.submit("ab"[number % 2]) for number in range(3)]
    for _ in range(3):
        for each in ids:
            job = await it.jobs.load(each)
            assert job is not None
            if job.status == "queued":
                await it.start(each)
            await it.say(each, "line")
    for each in ids[:2]:
        await it.complete(each)
    return ids


def chosen(facts: list[Recorded], wanted: set[str], after: int) -> list[Message]:
    return told([each for each in facts if each.job_id in wanted and each.position > after])


@pytest.mark.parametrize("by", ["header", "query", "both"])
async def test_a_stream_resumes_at_every_position(it: Site, by: str) -> None:
    a, b, c = await three(it)
    facts = await it.facts()
    selections = {
        EVENTS: {a, b, c},
        of(a): {a},
        of(c): {c},
        f"{EVENTS}?id={a},{c}": {a, c},
        f"{EVENTS}?id={b}&id={c}": {b, c},
        f"{EVENTS}?type=a": {a, c},
        f"{EVENTS}?type=b": {b},
        f"{EVENTS}?type=a,b": {a, b, c},
        f"{EVENTS}?id={a},{b},{c}&type=a": {a, c},
    }
    for path, wanted in selections.items():
        for after in range(it.head + 1):
            joint = "&" if "?" in path else "?"
            query = {"header": "", "query": f"{joint}after={after}", "both": f"{joint}after=1"}[by]
            last_id = None if by == "query" else after
            expected = chosen(facts, wanted, after)
            stream = await it.open(path + query, last_id)
            if stream.status == 204:
                assert (expected, last_id is not None, wanted) == ([], True, {a})
                continue
            assert await stream.messages(len(expected)) == expected
            stream.drop()


class Follower:
    """Reads on and on, over as many connections as it takes, until it has what it wants."""

    def __init__(self, it: Site, rng: random.Random, path: str, wanted: set[str], after: int):
        self.read: list[int] = []
        self.connections = 0
        self._it, self._rng, self._path = it, rng, path
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
            if written.is_set() and self.read == await self.expected():
                return

    async def _read_one(self, stream: Stream, written: asyncio.Event, patience: float) -> None:
        beats = 2
        while self._rng.random() > patience and await stream.more():
            self.read += positions(stream.taken())
            if written.is_set() and stream.wire.beats >= beats:
                break

    async def expected(self) -> list[int]:
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
        of(all_ids[1]): {all_ids[1]},
        f"{EVENTS}?id={','.join(all_ids[:3])}": set(all_ids[:3]),
        f"{EVENTS}?type=a": set(all_ids[::2]),
        f"{EVENTS}?type=b": set(all_ids[1::2]),
    }
    written = asyncio.Event()

    async def write(writer: int) -> None:
        for _ in range(60):
            await change(here.jobs, rng, writer, hide=False)
            await change(here.jobs, rng, rng.randrange(8), hide=False)

    async with site(tmp_path, heartbeat_s=0.1, stream_buffer_bytes_max=2048) as here:
        for number in range(8):
            await change(here.jobs, rng, number)
        followers = [
            Follower(here, rng, path, wanted, rng.randint(0, here.head))
            for path, wanted in selections.items()
            for _ in range(5)
        ]
        async with asyncio.TaskGroup() as group:
            for each in followers:
                group.create_task(each.run(written, 0.05))
            await asyncio.gather(*(write(number) for number in range(8)))
            written.set()
        for each in followers:
            assert each.read == await each.expected()
        assert sum(each.connections for each in followers) > 2 * len(followers)


async def test_clients_that_join_between_two_writes_get_exactly_what_comes_after(
    tmp_path: Path,
) -> None:
    """They ask in the very turn in which an event is told to those who were there before."""
    rng = random.Random(1)
    rounds = 120  # each of at least one fact from either writer

    async def join(it: Site, path: str, wanted: set[str]) -> None:
        moment = rng.randint(1, 2 * rounds)
        if moment > it.head:
            await it.service.log.wait(moment)
        after = rng.choice((0, moment, it.head, rng.randint(0, it.head)))
        stream = await it.watch(path, after or None)
        read: list[Message] = []
        while not finished.is_set() or stream.wire.beats < 2:
            assert await stream.more()
            read += stream.taken()
        assert read == chosen(await it.facts(), wanted, after)

    async def write(it: Site, id: str) -> None:
        for _ in range(rounds):
            if rng.random() < 0.3:
                await it.talk(id, 3)
            else:
                await it.say(id, "line")

    finished = asyncio.Event()
    async with site(tmp_path, heartbeat_s=0.2) as it:
        a, b = [await it.submit(each) for each in "ab"]
        await it.start(a, b)
        paths = [(EVENTS, {a, b}), (of(a), {a}), (f"{EVENTS}?type=b", {b})]
        paths += [(f"{EVENTS}?id={a},{b}", {a, b}), (f"{EVENTS}?type=a,b", {a, b})]
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(join(it, *paths[number % len(paths)]))
            await asyncio.gather(write(it, a), write(it, b))
            while len(it.opened) < 200:  # noqa: ASYNC110  nobody is told
                await asyncio.sleep(0)
            finished.set()


async def test_a_stream_of_few_jobs_in_a_long_log_reads_nobody_elses_facts(
    it: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [await it.submit() for _ in range(3)]
    await it.start(*mine)
    other = await it.submit("b")
    await it.start(other)
    for _ in range(3):
        await it.talk(other, 2000)
        for each in mine:
            await it.talk(each, 150)
    read = []
    from_log = it.service.log.read

    async def counted(after: int, limit: int = 512) -> list[Recorded]:
        page = await from_log(after, limit)
        read.append(len(page))
        return page

    facts = await it.facts()
    monkeypatch.setattr(it.service.log, "read", counted)
    for path, wanted in ((of(mine[0]), {mine[0]}), (f"{EVENTS}?id={','.join(mine)}", set(mine))):
        stream = await it.watch(path)
        expected = chosen(facts, wanted, 0)
        assert await stream.messages(len(expected)) == expected
    assert sum(read) < 1000


# --- the end


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_a_stream_of_finished_jobs_says_so_and_a_reconnect_is_told_not_to_come_back(
    it: Site, states: bool
) -> None:
    a, b, c = await it.done(), await it.submit(), await it.submit()
    await it.start(b)
    await it.fail(b)
    await it.jobs.cancel(c, actor=ME)
    one, all = (f"/v1/jobs/{b}", "/v1/jobs?id=") if states else (of(b), f"{EVENTS}?id=")
    for path in (one, f"{all}{a},{b},{c}"):
        stream = await it.watch(path)
        read = await stream.rest()
        assert stream.ended
        assert read[-1][:2] == ("end", '{"reason":"finished"}')
        assert [each.event for each in read].count("end") == 1
        again = await it.open(path, stream.last_id)
        assert again.status == 204
        assert "content-type" not in again.headers


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_the_stream_of_a_job_that_runs_ends_when_the_job_does(it: Site, states: bool) -> None:
    id = await it.submit()
    stream = await it.watch(f"/v1/jobs/{id}" if states else of(id))
    both = await it.watch(f"/v1/jobs?id={id},{await it.done()}" if states else EVENTS)
    await it.start(id)
    await stream.messages(1)
    await it.complete(id)
    read = await stream.rest()
    assert read[-1].event == "end"
    assert read[-2].id == read[-1].id == str(it.head)
    if states:
        assert (await both.rest())[-1].event == "end"


async def test_who_begins_at_the_end_of_a_finished_job_is_told_and_then_told_not_to_come_back(
    it: Site,
) -> None:
    """An EventSource with `?after=` would otherwise come back every two seconds, for ever."""
    id = await it.done()
    stream = await it.watch(f"{of(id)}?after={it.head}")
    assert [each.event for each in await stream.rest()] == ["end"]
    assert (await it.open(f"{of(id)}?after={it.head}", stream.last_id)).status == 204


@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/events?id={}"])
async def test_unknown_jobs_are_a_404_and_hidden_ones_a_410(it: Site, path: str) -> None:
    known, hidden = await it.submit(), await it.done()
    await it.jobs.expire(hidden, "over", actor=ME)
    for id, status, code in ((job_id(9), 404, "job_not_found"), (hidden, 410, "job_gone")):
        head, body = await it.get(path.format(id), headers={"Accept": "text/event-stream"})
        assert (head.status, orjson.loads(body)["code"]) == (status, code)
        assert head.headers["content-type"] == "application/problem+json"
    ids = f"{EVENTS}?id={known},{job_id(9)}"
    head, _ = await it.get(ids, headers={"Accept": "text/event-stream"})
    assert head.status == 404


async def test_one_hidden_job_among_others_does_not_end_their_stream_for_good(it: Site) -> None:
    """A browser never comes back after a 410: the list it shows would stand still."""
    known, hidden = await it.submit(), await it.done()
    await it.jobs.expire(hidden, "over", actor=ME)
    await it.seen()
    facts = await it.watch(f"{EVENTS}?id={known},{hidden}")
    states = await it.watch(f"/v1/jobs?id={known},{hidden}")
    assert positions(await facts.messages(it.head)) == list(range(1, it.head + 1))
    assert [each.json["job_id"] for each in await states.messages(1)] == [known]
    await it.jobs.cancel(known, actor=ME)
    assert [each.event for each in await facts.rest()] == ["event", "end"]
    assert [each.event for each in await states.rest()] == ["job", "end"]


async def test_a_job_that_is_hidden_as_it_ends_ends_its_stream(it: Site) -> None:
    id = await it.submit()
    facts, states = await it.watch(of(id)), await it.watch(f"/v1/jobs/{id}")
    await it.start(id)
    job = await it.jobs.load(id)
    assert job is not None
    # In one commit: nobody sees it finished and not hidden.
    completing = it.jobs.complete(id, 1, None, actor=ME)
    hiding = it.service.log.append(id, job.version + 1, JobExpired("over"), actor=ME)
    await asyncio.gather(completing, hiding)
    assert positions(await facts.rest()) == [1, 2, 3, 4]
    assert (await states.rest())[-1].event == "end"


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_a_job_that_was_retried_can_be_watched_again(it: Site, states: bool) -> None:
    id = await it.submit()
    path = f"/v1/jobs/{id}" if states else of(id)
    await it.start(id)
    await it.fail(id)
    stream = await it.watch(path)
    assert (await stream.rest())[-1].event == "end"
    await it.jobs.retry(id, actor=ME)
    again = await it.watch(path, stream.last_id)
    await again.messages(1)
    await it.start(id)
    await it.complete(id)
    read = await again.rest()
    assert read[-1].event == "end"
    assert (await it.open(path, again.last_id)).status == 204


# --- cursors


@pytest.mark.parametrize(
    "cursor",
    ["7", "999999999999999999", "9" * 19, "9" * 1000, "-1", "abc", "1.5", "0x1", "1 2", "٣", "²"],
)
@pytest.mark.parametrize("path", [EVENTS, "/v1/jobs", "one", "one state", f"{EVENTS}?type=a"])
async def test_who_comes_with_a_cursor_of_another_log_begins_anew(
    it: Site, path: str, cursor: str
) -> None:
    id = await it.done()
    path = {"one": of(id), "one state": f"/v1/jobs/{id}"}.get(path, path)
    stream = await it.watch(path, cursor)
    reset, *read = await stream.messages(5 if path.endswith(("events", "type=a")) else 2)
    assert (reset.event, reset.json) == ("reset", {"head": it.head})
    if "events" in path:
        assert positions(read) == [1, 2, 3, 4]
    else:
        assert read[0].json == await it.json(f"/v1/jobs/{id}")
    assert stream.last_id == str(it.head)


async def test_a_future_position_in_the_address_is_a_cursor_of_another_log_too(it: Site) -> None:
    await it.done()
    stream = await it.watch(f"{EVENTS}?after=5")
    assert [each.event for each in await stream.messages(5)] == ["reset"] + ["event"] * 4


@pytest.mark.parametrize("cursor", ["", "0"])
async def test_no_position_is_the_beginning(it: Site, cursor: str) -> None:
    await it.done()
    stream = await it.watch(EVENTS, cursor)
    assert positions(await stream.messages(4)) == [1, 2, 3, 4]


async def test_the_newest_position_is_nothing_special(it: Site) -> None:
    id = await it.submit()
    stream = await it.watch(EVENTS, it.head)
    await it.start(id)
    assert positions(await stream.messages(1)) == [2]


async def test_every_fact_is_told_as_pages_tell_it(it: Site) -> None:
    id = await it.done(payload={"ä": [1, None, "\u2028"]})
    page = await it.json(of(id))
    stream = await it.watch(of(id))
    assert [each.json for each in await stream.messages(4)] == page["events"]
    facts = await it.facts()
    assert isinstance(facts[0].event, JobSubmitted)
    assert isinstance(facts[2].event, LogWritten)

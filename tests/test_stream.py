"""Streams of facts over HTTP: what is on the wire, where they resume, and how they end."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs.events import AttemptFailed, JobSubmitted, LogWritten, ProgressReported, Recorded
from tests.histories import job_id
from tests.test_stream_reader import Message, Stream, positions, whatwg
from tests.test_stream_site import ME, Site, change, site

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

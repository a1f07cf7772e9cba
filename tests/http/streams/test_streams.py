"""Streams over HTTP: the bytes, how they end, and what a cursor means."""

import asyncio
from pathlib import Path

import orjson
import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    JobCompleted,
    JobExpired,
    JobSubmitted,
    LogWritten,
    ProgressReported,
)
from eventjobs.domain.timestamps import rfc3339
from eventjobs.log import NewEvent
from tests.support.clock import FakeClock
from tests.support.histories import job_id
from tests.support.log_lines import capture_logs
from tests.support.stream_reader import Message, Stream, positions, whatwg
from tests.support.stream_site import EVENTS, ME, Site, as_messages, events_path, open_site


async def test_the_headers_are_those_of_a_stream_that_proxies_let_through(site: Site) -> None:
    stream = await site.watch(EVENTS, headers={"Accept-Encoding": "gzip, deflate, br"})
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "private, no-cache, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["x-content-type-options"] == "nosniff"
    assert stream.headers["transfer-encoding"] == "chunked"
    assert not {"content-length", "content-encoding", "connection"} & stream.headers.keys()


async def test_something_is_written_at_once_even_when_nothing_ever_happened(site: Site) -> None:
    stream = await site.watch(EVENTS, keep=True)
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
async def test_no_text_of_a_job_breaks_a_frame(site: Site, live: bool) -> None:
    if live:
        facts = await site.watch(EVENTS, keep=True)
        states = await site.watch("/v1/jobs", keep=True)
    id = await site.submit(payload={each: each for each in NASTY}, tags=tuple(NASTY[-3:]))
    await site.start(id)
    await site.write_lines(id, *NASTY)
    for each in NASTY:
        report = ProgressReported(1, 1, 2, each, each, {"data": each})
        await site.jobs.report(id, report, actor=ME)
    failed = AttemptFailed(1, "".join(NASTY), True, 1, "".join(NASTY), NASTY)
    await site.jobs.fail(id, failed, actor="".join(NASTY).replace("\0", ""))
    await site.start(id)
    await site.complete(id, NASTY)
    await site.wait_for_views()
    if not live:
        facts = await site.watch(EVENTS, keep=True)
        states = await site.watch("/v1/jobs", keep=True)
    read = await facts.messages(site.head)
    assert read == as_messages(await site.facts()) == whatwg(facts.raw)
    assert [each.json["data"].get("message") for each in read][2 : 2 + len(NASTY)] == NASTY
    newest = await newest_of(states, site.head)
    assert newest.json == await site.json(f"/v1/jobs/{id}")
    assert newest.json["result"] == NASTY
    assert whatwg(states.raw)[-1] == newest


async def newest_of(states: Stream, position: int) -> Message:
    """The first snapshot at *position*."""
    while True:
        message = await states.message()
        assert message is not None
        if message.json["position"] == position:
            return message


async def test_an_id_stands_only_on_what_is_in_the_log(site: Site) -> None:
    id = await site.completed_job()
    stream = await site.watch(events_path(id), "77", keep=True)
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
    site: Site, connection: str
) -> None:
    id = await site.submit()
    stream = await site.watch(events_path(id), version="1.0", headers={"Connection": connection})
    assert "transfer-encoding" not in stream.headers
    assert stream.headers.get("connection", "close") == "close"
    await site.start(id)
    read = await stream.messages(2)
    await site.complete(id)
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
async def test_only_who_accepts_a_stream_gets_one(site: Site, accept: str, streams: bool) -> None:
    id = await site.completed_job()
    await site.wait_for_views()
    for path in (events_path(id), f"/v1/jobs/{id}", f"{EVENTS}?id={id}"):
        head, _ = await site.get(path, headers={"Accept": accept})
        assert head.status == 200
        assert (head.headers["content-type"] == "text/event-stream") is streams


async def test_to_ask_for_the_head_of_a_stream_does_not_begin_one(site: Site) -> None:
    id = await site.submit()
    for path in (events_path(id), EVENTS, "/v1/jobs", f"/v1/jobs/{id}"):
        accept = {"Accept": "text/event-stream"}
        head, body = await site.get(path, method="HEAD", headers=accept)
        assert (head.status, body, len(site.streams)) == (200, b"", 0)


async def test_a_stream_with_a_body_or_another_request_behind_it_goes_on(site: Site) -> None:
    """A pipelined request waits until the response before it has ended."""
    id = await site.submit()
    stream = await site.watch(events_path(id), headers={"Content-Length": "3"})
    stream.send(b"abcGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await site.start(id)
    assert positions(await stream.messages(2)) == [1, 2]
    await site.complete(id)
    assert positions(await stream.messages(1)) == [3]


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_a_stream_of_finished_jobs_says_so_and_a_reconnect_is_told_not_to_come_back(
    site: Site, states: bool
) -> None:
    a, b, c = await site.completed_job(), await site.submit(), await site.submit()
    await site.start(b)
    await site.fail(b)
    await site.jobs.cancel(c, actor=ME)
    one, all = (f"/v1/jobs/{b}", "/v1/jobs?id=") if states else (events_path(b), f"{EVENTS}?id=")
    for path in (one, f"{all}{a},{b},{c}"):
        stream = await site.watch(path)
        read = await stream.rest()
        assert stream.ended
        assert read[-1][:2] == ("end", '{"reason":"finished"}')
        assert [each.event for each in read].count("end") == 1
        again = await site.open(path, stream.last_id)
        assert again.status == 204
        assert "content-type" not in again.headers


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_the_stream_of_a_job_that_runs_ends_when_the_job_does(
    site: Site, states: bool
) -> None:
    id = await site.submit()
    stream = await site.watch(f"/v1/jobs/{id}" if states else events_path(id))
    both = await site.watch(f"/v1/jobs?id={id},{await site.completed_job()}" if states else EVENTS)
    await site.start(id)
    await stream.messages(1)
    await site.complete(id)
    read = await stream.rest()
    assert read[-1].event == "end"
    assert read[-2].id == read[-1].id == str(site.head)
    if states:
        assert (await both.rest())[-1].event == "end"


async def test_who_begins_at_the_end_of_a_finished_job_is_told_and_then_told_not_to_come_back(
    site: Site,
) -> None:
    """Otherwise an EventSource with `?after=` reconnects every two seconds, for ever."""
    id = await site.completed_job()
    stream = await site.watch(f"{events_path(id)}?after={site.head}")
    assert [each.event for each in await stream.rest()] == ["end"]
    assert (await site.open(f"{events_path(id)}?after={site.head}", stream.last_id)).status == 204


@pytest.mark.parametrize("path", ["/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/events?id={}"])
async def test_unknown_jobs_are_a_404_and_hidden_ones_a_410(site: Site, path: str) -> None:
    visible, hidden = await site.submit(), await site.completed_job()
    await site.jobs.expire(hidden, "over", actor=ME)
    for id, status, code in ((job_id(9), 404, "job_not_found"), (hidden, 410, "job_gone")):
        head, body = await site.get(path.format(id), headers={"Accept": "text/event-stream"})
        assert (head.status, orjson.loads(body)["code"]) == (status, code)
        assert head.headers["content-type"] == "application/problem+json"
    ids = f"{EVENTS}?id={visible},{job_id(9)}"
    head, _ = await site.get(ids, headers={"Accept": "text/event-stream"})
    assert head.status == 404


async def test_jobs_that_are_all_hidden_are_gone_since_the_last_one_was(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with open_site(tmp_path, clock) as site:
        ids = [await site.completed_job() for _ in range(3)]
        for id in (ids[0], ids[2], ids[1]):
            clock.jump_wall(1)
            await site.jobs.expire(id, "over", actor=ME)
        accept = {"Accept": "text/event-stream"}
        head, body = await site.get(f"{EVENTS}?id={','.join(ids)}", headers=accept)
        assert head.status == 410
        assert orjson.loads(body)["expired_at"] == rfc3339(clock.now_us())


async def test_one_hidden_job_among_others_does_not_end_their_stream_for_good(site: Site) -> None:
    """A browser does not reconnect after a 410: its list would stand still."""
    visible, hidden = await site.submit(), await site.completed_job()
    await site.jobs.expire(hidden, "over", actor=ME)
    await site.wait_for_views()
    facts = await site.watch(f"{EVENTS}?id={visible},{hidden}")
    states = await site.watch(f"/v1/jobs?id={visible},{hidden}")
    assert positions(await facts.messages(site.head)) == list(range(1, site.head + 1))
    assert [each.json["job_id"] for each in await states.messages(1)] == [visible]
    await site.jobs.cancel(visible, actor=ME)
    assert [each.event for each in await facts.rest()] == ["event", "end"]
    assert [each.event for each in await states.rest()] == ["job", "end"]


async def test_a_job_that_is_hidden_as_it_ends_ends_its_stream(site: Site) -> None:
    id = await site.submit()
    facts, states = await site.watch(events_path(id)), await site.watch(f"/v1/jobs/{id}")
    await site.start(id)
    job = await site.jobs.load(id)
    assert job is not None
    # In one commit: no reader sees the job finished and not hidden.
    completed = NewEvent(id, job.version, JobCompleted(1), ME)
    hidden = NewEvent(id, job.version + 1, JobExpired("over"), ME)
    await site.service.log.append_many([completed, hidden])
    assert positions(await facts.rest()) == [1, 2, 3, 4]
    assert (await states.rest())[-1].event == "end"


@pytest.mark.parametrize("states", [False, True], ids=["facts", "states"])
async def test_a_job_that_was_retried_can_be_watched_again(site: Site, states: bool) -> None:
    id = await site.submit()
    path = f"/v1/jobs/{id}" if states else events_path(id)
    await site.start(id)
    await site.fail(id)
    stream = await site.watch(path)
    assert (await stream.rest())[-1].event == "end"
    await site.jobs.retry(id, actor=ME)
    again = await site.watch(path, stream.last_id)
    await again.messages(1)
    await site.start(id)
    await site.complete(id)
    read = await again.rest()
    assert read[-1].event == "end"
    assert (await site.open(path, again.last_id)).status == 204


@pytest.mark.parametrize(
    "cursor",
    ["7", "999999999999999999", "9" * 19, "9" * 1000, "-1", "abc", "1.5", "0x1", "1 2", "٣", "²"],
)
@pytest.mark.parametrize("path", [EVENTS, "/v1/jobs", "one", "one state", f"{EVENTS}?type=a"])
async def test_who_comes_with_a_cursor_of_another_log_begins_anew(
    site: Site, path: str, cursor: str
) -> None:
    id = await site.completed_job()
    path = {"one": events_path(id), "one state": f"/v1/jobs/{id}"}.get(path, path)
    stream = await site.watch(path, cursor)
    reset, *read = await stream.messages(5 if path.endswith(("events", "type=a")) else 2)
    assert (reset.event, reset.json) == ("reset", {"head": site.head})
    if "events" in path:
        assert positions(read) == [1, 2, 3, 4]
    else:
        assert read[0].json == await site.json(f"/v1/jobs/{id}")
    assert stream.last_id == str(site.head)


async def test_a_future_position_in_the_address_is_a_cursor_of_another_log_too(site: Site) -> None:
    await site.completed_job()
    stream = await site.watch(f"{EVENTS}?after=5")
    assert [each.event for each in await stream.messages(5)] == ["reset"] + ["event"] * 4


@pytest.mark.parametrize("cursor", ["", "0"])
async def test_no_position_is_the_beginning(site: Site, cursor: str) -> None:
    await site.completed_job()
    stream = await site.watch(EVENTS, cursor)
    assert positions(await stream.messages(4)) == [1, 2, 3, 4]


async def test_the_newest_position_is_nothing_special(site: Site) -> None:
    id = await site.submit()
    stream = await site.watch(EVENTS, site.head)
    await site.start(id)
    assert positions(await stream.messages(1)) == [2]


async def test_every_fact_is_told_as_pages_tell_it(site: Site) -> None:
    id = await site.completed_job(payload={"ä": [1, None, "\u2028"]})
    page = await site.json(events_path(id))
    stream = await site.watch(events_path(id))
    assert [each.json for each in await stream.messages(4)] == page["events"]
    facts = await site.facts()
    assert isinstance(facts[0].event, JobSubmitted)
    assert isinstance(facts[2].event, LogWritten)


async def test_a_client_that_stops_reading_is_dropped(tmp_path: Path, clock: FakeClock) -> None:
    async with open_site(tmp_path, clock, stall_s=5.0, stream_buffer_bytes_max=4096) as site:
        id = await site.submit()
        await site.start(id)
        large = LogWritten(1, "info", "x" * 100_000)
        await site.append_many(id, 120, large)
        with capture_logs() as lines:
            stream = await site.watch(EVENTS)
            while len(site.streams):
                await clock.advance(5)
            assert [each["event"] for each in lines] == ["reader dropped", "request"]
        assert len(await stream.rest()) < 120
        assert not stream.ended


async def test_nothing_goes_on_after_the_service_is_closed(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with open_site(tmp_path, clock) as site:
        await site.watch(EVENTS)
    before = clock.timers_set
    await clock.advance(1000)
    assert clock.timers_set == before


async def test_a_stream_too_many_ends_at_once_and_is_to_come_back_later(tmp_path: Path) -> None:
    async with open_site(tmp_path, streams_max=1) as site:
        first = await site.watch(EVENTS)
        second = await site.watch(EVENTS)
        async with asyncio.timeout(20):
            assert await second.rest() == []
        [delay_ms] = second.wire.retries
        assert 1_000 <= delay_ms <= 10_000
        await site.submit()
        assert positions(await first.messages(1)) == [1]

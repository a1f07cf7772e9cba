"""Every route over real HTTP: what it answers, and what it refuses."""

import asyncio
import hashlib
import socket
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from eventjobs import errors
from eventjobs.domain.events import ArtifactStored
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import EventjobsError, InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http import problem, request_errors
from eventjobs.http.cursors import cursor
from eventjobs.http.origin_guard import check_loopback, host_error
from eventjobs.http.request_errors import Misdirected
from eventjobs.service import Service
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client, Reply
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when, kinds, time_passing, turns

NOBODY = "00000000-0000-4000-8000-000000000000"
NDJSON = {"Content-Type": "application/x-ndjson"}


class Order(BaseModel):
    amount: int = Field(ge=1)


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("order")
async def order(context: Context, payload: Order) -> int:
    return payload.amount


@handler("wait")
async def wait(context: Context, payload: Any) -> None:
    """Runs until it is told to stop."""
    context.progress(1, 2, stage="waiting")
    await asyncio.Event().wait()


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise ValueError("no")


@handler("draw")
async def draw(context: Context, payload: dict[str, Any]) -> None:
    for name, (content, media_type) in payload.items():
        await context.artifact(name, content.encode(), media_type)


HANDLERS = (echo, order, wait, fail, draw)


async def finished(client: Client, job: Any) -> Any:
    """The job as it is told once it has ended."""
    await client.service.wait(job["job_id"])
    return (await client.get(f"/v1/jobs/{job['job_id']}")).json


async def running(client: Client) -> str:
    """The address of a job that runs, and of which progress is known."""
    job = await client.submit("wait")
    await job_when(client.service, job["job_id"], lambda job: job.version >= 3)
    return f"/v1/jobs/{job['job_id']}"


# --- submitting


async def test_a_submission_is_answered_with_the_job_and_where_it_is(client: Connect) -> None:
    api = await client(*HANDLERS)
    body = {"type": "echo", "payload": {"a": 1}, "tags": ["x"], "priority": 5}
    reply = await api("POST", "/v1/jobs", body)
    assert reply.status == 202
    job = reply.json
    assert reply.headers["Location"] == f"/v1/jobs/{job['job_id']}" == job["links"]["self"]
    assert reply.headers["Retry-After"] == "1"
    assert reply.headers["ETag"] == '"1"'
    assert reply.headers["Content-Type"] == "application/json"
    assert (job["status"], job["version"], job["position"]) == ("queued", 1, 1)
    assert (job["payload"], job["tags"], job["priority"]) == ({"a": 1}, ["x"], 5)
    assert job["max_attempts"] == 3


async def test_what_was_submitted_can_be_read_at_once(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    for _ in range(20):
        job = await api.submit("echo")
        reply = await api.get(job["links"]["self"])
        assert (reply.status, reply.json) == (200, job)
        assert (await api.get("/v1/counts")).json["position"] >= job["position"]


async def test_racing_requests_with_one_key_are_one_job(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    headers = {"Idempotency-Key": "order-7"}
    body = {"type": "echo", "payload": {"n": 7}}
    replies = await asyncio.gather(
        *[api("POST", "/v1/jobs", body, headers=headers) for _ in range(64)]
    )
    assert Counter(each.status for each in replies) == {202: 1, 200: 63}
    assert len({each.json["job_id"] for each in replies}) == 1
    assert api.service.log.head == 1


async def test_a_key_is_the_same_quoted_and_bare(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)

    async def submit(key: str, n: int = 1) -> Reply:
        body = {"type": "echo", "payload": n}
        return await api("POST", "/v1/jobs", body, headers={"Idempotency-Key": key})

    first = await submit("a b")
    assert first.status == 202
    again = await submit('"a b"')
    assert (again.status, again.json["job_id"]) == (200, first.json["job_id"])
    assert again.headers["Location"] == first.headers["Location"]
    assert (await submit('"a \\"b"')).status == 202
    other = await submit("a b", 2)
    assert (other.status, other.code) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "\u00fc", '"half', '"a" "b"', '"a";b=1'])
async def test_a_key_that_is_none_is_refused(client: Connect, key: str) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers={"Idempotency-Key": key})
    assert (reply.status, reply.code) == (400, "bad_request")
    assert api.service.log.head == 0


async def test_a_put_under_an_own_id_can_be_repeated(client: Connect) -> None:
    api = await client(*HANDLERS)
    address = f"/v1/jobs/{uuid4()}"
    body = {"type": "echo", "payload": "x"}
    assert (await api("PUT", address, body)).status == 202
    same = await api("PUT", address.upper().replace("/V1/JOBS", "/v1/jobs"), body)
    assert (same.status, same.headers["Location"]) == (200, address)
    other = await api("PUT", address, {"type": "echo", "payload": "y"})
    assert (other.status, other.code) == (409, "job_exists")
    keyed = await api("PUT", address, body, headers={"Idempotency-Key": "x"})
    assert (keyed.status, keyed.code) == (400, "bad_request")
    nameless = await api("PUT", "/v1/jobs/mine", body)
    assert (nameless.status, nameless.code) == (422, "invalid_input")


MISFITS = [
    ({"type": "echo", "colour": "red"}, "colour"),
    ({"type": "echo", "owner": "me"}, "owner"),
    ({"payload": 1}, "type"),
    ({"type": 5}, "type"),
    ({"type": "unheard"}, "type"),
    ({"type": "order", "payload": {"amount": 0}}, "payload.amount"),
    ({"type": "order", "payload": {}}, "payload.amount"),
    ({"type": "echo", "tags": ["x"] * 33}, "tags"),
    ({"type": "echo", "tags": ["x" * 101]}, "tags.0"),
    ({"type": "echo", "tags": ["a\nb"]}, "tags.0"),
    ({"type": "echo", "priority": 1001}, "priority"),
    ({"type": "echo", "priority": "1"}, "priority"),
    ({"type": "echo", "run_at": "2030-01-01T00:00:00"}, "run_at"),
    ({"type": "echo", "run_at": 1_900_000_000}, "run_at"),
    ({"type": "echo", "run_at": "9999-12-31T23:59:59-23:59"}, "run_at"),
    ({"type": "echo", "run_at": "2030-02-30T00:00:00Z"}, "run_at"),
    ({"type": "echo", "delay_s": -1}, "delay_s"),
    ({"type": "echo", "delay_s": 1e300}, "delay_s"),
    ({"type": "echo", "max_attempts": 0}, "max_attempts"),
    ({"type": "echo", "timeout_s": 0}, "timeout_s"),
    ({"type": "echo", "stall_timeout_s": 1e10}, "stall_timeout_s"),
    ({"type": "echo", "retry_delay_s": -0.1}, "retry_delay_s"),
    ({"type": "echo", "artifacts": {"x": "short"}}, "artifacts.x"),
    ({"type": "echo", "artifacts": {"../x": "0" * 64}}, "artifacts.../x.[key]"),
    ({"type": "echo", "artifacts": {"x": "0" * 64}}, "artifacts.x"),
    (["type", "echo"], ""),
]


async def test_what_does_not_fit_is_named(client: Connect) -> None:
    api = await client(*HANDLERS)
    for body, field in MISFITS:
        reply = await api("POST", "/v1/jobs", body)
        assert reply.status == 422
        assert reply.code in {"invalid_input", "unknown_type", "unknown_artifact"}
        assert reply.fields == [field], body
        assert api.service.log.head == 0


async def test_limits_hold_at_their_value_and_not_above(client: Connect) -> None:
    api = await client(
        *HANDLERS, concurrency=0, body_bytes_max=1024, depth_max=4, keys_max=10, string_chars_max=99
    )

    async def submit(payload: Any) -> tuple[int, str | None]:
        raw = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        reply = await api("POST", "/v1/jobs", b'{"type":"echo","payload":%b}' % raw)
        return reply.status, None if reply.status == 202 else reply.code

    frame = len(b'{"type":"echo","payload":}')
    assert await submit(b"1" + b" " * (1024 - frame - 1)) == (202, None)
    assert await submit(b"1" + b" " * (1024 - frame)) == (413, "too_large")
    assert await submit([[[1]]]) == (202, None)
    assert await submit([[[[1]]]]) == (413, "too_large")
    assert await submit([0] * 8) == (202, None)
    assert await submit([0] * 9) == (413, "too_large")
    assert await submit("x" * 99) == (202, None)
    assert await submit("x" * 100) == (413, "too_large")
    assert await submit({"x" * 100: 1}) == (413, "too_large")
    assert await submit(b"18446744073709551615") == (202, None)
    assert await submit(b"18446744073709551616") == (422, "invalid_input")
    assert await submit(b"-9223372036854775808") == (202, None)
    assert await submit(b"-9223372036854775809") == (422, "invalid_input")
    assert await submit(b"1" * 900) == (400, "malformed_json")  # not even as a float
    assert await submit(b"1" * 300) == (422, "invalid_input")
    assert await submit(b"1e30") == (202, None)
    assert await submit(b'"12345678901234567890123"') == (202, None)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"type":"echo","payload":NaN}', b'{"type":"echo","payload":"\\ud800"}', b"\xff"],
)
async def test_what_is_not_json_is_malformed(client: Connect, body: bytes) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs", body)
    assert (reply.status, reply.code) == (400, "malformed_json")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
async def test_only_plain_json_is_read(client: Connect, headers: dict[str, str]) -> None:
    api = await client(*HANDLERS)
    reply = await api(
        "POST",
        "/v1/jobs",
        data=b'{"type":"echo"}',
        headers=headers,
        skip_auto_headers=["Content-Type"],
    )
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge+json"])
async def test_json_may_be_called_more_exactly(client: Connect, kind: str) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers={"Content-Type": kind})
    assert reply.status == 202


async def test_a_body_without_a_length_is_limited_too(client: Connect) -> None:
    api = await client(*HANDLERS, body_bytes_max=1024)

    async def body() -> Any:
        for _ in range(100):
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    reply = await api("POST", "/v1/jobs", data=body(), headers=headers)
    assert (reply.status, reply.code) == (413, "too_large")


async def test_a_body_that_stops_coming_is_given_up(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    answer = await time_passing(clock, api.raw(head), 10.0)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_timeout"' in answer


async def test_a_broken_body_is_a_bad_request(client: Connect) -> None:
    api = await client(*HANDLERS)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    answer = await api.raw(head)
    assert answer.startswith(b"HTTP/1.0 400 ")  # aiohttp, for what it could not read to its end
    assert b'"code":"bad_request"' in answer
    assert api.service.log.head == 0


async def test_a_start_in_the_future_is_kept(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock)
    job = await api.submit("echo", run_at="2030-01-01T01:00:00.5+01:00")
    assert job["run_at"] == "2030-01-01T00:00:00.500000Z"
    job = await api.submit("echo", delay_s=90)
    assert job["run_at"] == "2025-01-01T00:01:30.000000Z"
    body = {"type": "echo", "delay_s": 90}
    reply = await api("POST", "/v1/jobs", body, headers={"Idempotency-Key": "x"})
    assert (reply.status, reply.code) == (400, "bad_request")


async def test_more_than_the_log_can_take_is_told_and_not_kept(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, log_waiting_max=1)
    replies = await asyncio.gather(*[api("POST", "/v1/jobs", {"type": "echo"}) for _ in range(100)])
    refused = [each for each in replies if each.status != 202]
    assert refused
    for each in refused:
        assert (each.status, each.code, each.headers["Retry-After"]) == (503, "overloaded", "1")
    assert api.service.log.head == 100 - len(refused)


async def test_a_log_that_takes_nothing_says_so_and_reads_go_on(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    await api.service.views.reached(1)
    with capture_logs():  # the views stop, and say so
        await api.service.log.close()
        reply = await api("POST", "/v1/jobs", {"type": "echo"})
    assert (reply.status, reply.code) == (503, "log_unavailable")
    assert reply.headers["Retry-After"] == "1"
    assert (await api.get(job["links"]["self"])).status == 200


# --- reading one job


async def test_a_job_that_is_known_is_not_sent_again(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    for _ in range(2):  # from the file, then from memory
        reply = await api.get(address)
        assert reply.headers["ETag"] == '"1"'
        for known in ('"1"', 'W/"1"', '"7", "1"', "*"):
            same = await api.get(address, If_None_Match=known)
            assert (same.status, same.body, same.headers["ETag"]) == (304, b"", '"1"')
        assert (await api.get(address, If_None_Match='"2"')).status == 200


async def test_head_is_get_without_the_body(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    for _ in range(2):
        got = await api.get(address)
        reply = await api("HEAD", address)
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["Content-Length"] == str(len(got.body))


async def test_a_client_of_http_1_0_is_answered(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"].encode()
    await api.get(address.decode())
    for version in (b"1.0", b"1.1"):
        head = b"GET %b HTTP/%b\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await api.raw(head % (address, version))
        assert b" 200 OK\r\n" in answer
        assert answer.endswith(b"}")


@pytest.mark.parametrize("path", ["", "/events", "/history", "/artifacts/x"])
async def test_a_job_that_is_not_there_is_not_found(client: Connect, path: str) -> None:
    api = await client(*HANDLERS)
    for name in (NOBODY, "mine", "%00", "%ff", "\u0663" * 32):
        reply = await api.get(f"/v1/jobs/{name}{path}")
        assert (reply.status, reply.code) == (404, "job_not_found")


async def test_a_running_job_has_progress_and_a_weak_tag(client: Connect) -> None:
    api = await client(*HANDLERS, drain_s=0)
    reply = await api.get(await running(api))
    assert reply.headers["ETag"].startswith('W/"')
    assert (reply.json["progress"], reply.json["stage"]) == (50, "waiting")


async def test_a_long_poll_returns_when_the_job_changes(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    poll = asyncio.create_task(api.get(address, If_None_Match='"1"', Prefer="wait=20"))
    await api.somebody_waits()
    await api.submit("echo")
    await turns()
    assert not poll.done()
    await api("POST", f"{address}/cancel")
    reply = await poll
    assert (reply.status, reply.json["status"]) == (200, "cancelled")
    assert reply.headers["Preference-Applied"] == "wait=20"


async def test_a_long_poll_ends_when_its_time_is_up(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    began_s = clock.monotonic_s()
    poll = api.get(address, If_None_Match='"1"', Prefer="respond-async, wait=999")
    reply = await time_passing(clock, poll)
    assert (reply.status, reply.body) == (304, b"")
    assert 25 <= clock.monotonic_s() - began_s < 27


async def test_a_long_poll_without_a_tag_or_with_an_old_one_returns_at_once(
    client: Connect,
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    assert (await api.get(address, Prefer="wait=20")).status == 200
    assert (await api.get(address, Prefer="wait=20", If_None_Match='"0"')).status == 200


async def test_closing_ends_long_polls(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    poll = asyncio.create_task(api.get(address, If_None_Match='"1"', Prefer="wait=20"))
    await api.somebody_waits()
    await api.listening.close()
    assert (await poll).status == 304


async def test_a_browser_gets_a_stream_at_the_same_address(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("echo"))
    for path in ("", "/events"):
        reply = await api.get(job["links"]["self"] + path, Accept="text/event-stream")
        assert reply.headers["Content-Type"] == "text/event-stream"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["X-Request-ID"]
        assert b"event: end" in reply.body
    reply = await api.get(f"/v1/jobs/{NOBODY}", Accept="text/event-stream")
    assert (reply.status, reply.code) == (404, "job_not_found")


# --- listing


async def listed(api: Client, query: str) -> list[Any]:
    """Payloads of one page."""
    reply = await api.get(f"/v1/jobs{query}")
    assert reply.status == 200, reply.body
    return [each["payload"] for each in reply.json["jobs"]]


async def test_a_list_can_be_narrowed_down(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, concurrency=0, clock=clock)
    first = await api.submit("echo", 0, tags=["a"])
    await clock.advance(60)
    await api.submit("order", {"amount": 1}, tags=["a", "b"])
    await clock.advance(60)
    last = await api.submit("fail", 2)
    await api("POST", f"{first['links']['self']}/cancel")
    assert await listed(api, "") == [2, {"amount": 1}, 0]
    assert await listed(api, "?order=oldest&limit=2") == [0, {"amount": 1}]
    assert await listed(api, "?tag=a") == [{"amount": 1}, 0]
    assert await listed(api, "?tag=b&status=queued") == [{"amount": 1}]
    assert await listed(api, "?status=cancelled") == [0]
    assert await listed(api, "?status=cancelled,queued&type=echo&type=fail") == [2, 0]
    assert await listed(api, "?since=2025-01-01T00:01:00Z") == [2, {"amount": 1}]
    assert await listed(api, "?until=2025-01-01T01:01:00%2B01:00") == [0]
    assert await listed(api, f"?id={first['job_id']},{last['job_id']}&id={NOBODY}") == [2, 0]
    assert await listed(api, "?owner=me") == []
    assert await listed(api, "?status=") == [2, {"amount": 1}, 0]


async def test_pages_are_stable_while_jobs_arrive(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    for n in range(5):
        await api.submit("echo", n)
    seen = []
    path: str | None = "/v1/jobs?limit=2&type=echo"
    while path is not None:
        reply = await api.get(path)
        seen += [each["payload"] for each in reply.json["jobs"]]
        await api.submit("echo", "new")
        following = reply.json["next"]
        link = reply.headers.get("Link")
        assert (link is None) == (following is None)
        path = link and link.removeprefix("<").removesuffix('>; rel="next"')
        assert path is None or path.endswith(following)
    assert seen == [4, 3, 2, 1, 0]


async def test_a_page_tells_the_position_it_shows(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    reply = await api.get("/v1/jobs")
    assert reply.json == {"jobs": [job], "next": None, "position": 1}


async def test_a_cursor_belongs_to_its_list(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    for n in range(3):
        await api.submit("echo", n)
    following = (await api.get("/v1/jobs?limit=1&type=echo")).json["next"]
    assert await listed(api, f"?limit=1&type=echo&cursor={following}") == [1]
    assert await listed(api, f"?limit=2&type=echo&cursor={following}") == [1, 0]
    huge = cursor(2**63, {}, "newest")
    for query in (
        f"cursor={following}",
        f"type=order&cursor={following}",
        f"type=echo&order=oldest&cursor={following}",
        "cursor=",
        "cursor=x",
        "cursor=%ff",
        f"cursor={huge}",
        f"type=echo&cursor={following}A",
    ):
        reply = await api.get(f"/v1/jobs?{query}")
        assert (reply.status, reply.code) == (400, "bad_cursor"), query


MISASKED = [
    ("colour=red", "colour"),
    ("status=lost", "status.0"),
    ("limit=0", "limit"),
    ("limit=x", "limit"),
    ("limit=1&limit=2", "limit"),
    ("order=best", "order"),
    ("since=yesterday", "since"),
    ("id=mine", "id"),
    ("after=1", "after"),
]


async def test_a_query_that_does_not_fit_is_named(client: Connect) -> None:
    api = await client(*HANDLERS)
    for query, field in MISASKED:
        reply = await api.get(f"/v1/jobs?{query}")
        assert (reply.status, reply.code, reply.fields) == (422, "invalid_input", [field])


async def test_a_page_has_no_more_than_the_service_gives(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, page_max=2, ids_max=1)
    for n in range(3):
        await api.submit("echo", n)
    assert await listed(api, "?limit=1000000") == [2, 1]
    events = (await api.get("/v1/events?limit=1000000")).json
    assert (len(events["events"]), events["next"]) == (2, 2)
    reply = await api.get(f"/v1/jobs?id={NOBODY},{uuid4()}")
    assert (reply.status, reply.fields) == (422, ["id"])


async def test_counts_follow_the_jobs(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    first = await api.submit("echo")
    await api.submit("echo")
    await api.submit("fail")
    await api("POST", f"{first['links']['self']}/cancel")
    reply = await api.get("/v1/counts")
    assert reply.json == {
        "counts": {"echo": {"cancelled": 1, "queued": 1}, "fail": {"queued": 1}},
        "position": 4,
    }


# --- the facts


async def test_facts_come_by_page_and_say_when_they_end(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("echo", "x"))
    address = job["links"]["events"]
    whole = (await api.get(address)).json
    assert [each["type"] for each in whole["events"]] == [
        "JobSubmitted",
        "AttemptStarted",
        "JobCompleted",
    ]
    assert (whole["next"], whole["head"], whole["end"]) == (3, 3, True)
    first = (await api.get(f"{address}?limit=2")).json
    assert (first["events"], first["next"], first["end"]) == (whole["events"][:2], 2, False)
    rest = (await api.get(f"{address}?after=2")).json
    assert (rest["events"], rest["end"]) == (whole["events"][2:], True)
    nothing = (await api.get(f"{address}?after=3&wait=20")).json
    assert (nothing["events"], nothing["next"], nothing["end"]) == ([], 3, True)


async def test_facts_are_the_bytes_that_were_recorded(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    await api.submit("echo", {"b": 1, "a": [1.0, "\u00fc"]})
    recorded = await api.service.log.read(0)
    reply = await api.get("/v1/events")
    assert reply.body.startswith(b'{"events":[' + recorded[0].json() + b'],"next":1')


async def test_facts_of_all_jobs_can_be_narrowed_down(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    ids = [(await api.submit(each))["job_id"] for each in ("echo", "fail", "echo", "fail")]

    async def positions(query: str) -> tuple[list[int], int]:
        page = (await api.get(f"/v1/events?{query}")).json
        assert page["head"] == 4
        assert page["end"] is False
        return [each["position"] for each in page["events"]], page["next"]

    assert await positions("") == ([1, 2, 3, 4], 4)
    assert await positions("after=1&limit=2") == ([2, 3], 3)
    assert await positions("type=fail") == ([2, 4], 4)
    assert await positions("type=fail&limit=1") == ([2], 2)
    assert await positions("type=fail,echo&after=4") == ([], 4)
    assert await positions(f"id={ids[0]},{ids[3]}") == ([1, 4], 4)
    assert await positions(f"id={ids[0]},{ids[3]}&limit=1") == ([1], 1)
    assert await positions(f"id={ids[0]}&type=fail") == ([], 4)
    reply = await api.get(f"/v1/events?id={NOBODY}")
    assert (reply.status, reply.code) == (404, "job_not_found")


@pytest.mark.parametrize("which", ["/v1/events?", "/v1/events?type=fail&", "{self}/events?"])
async def test_facts_can_be_waited_for(client: Connect, which: str) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("fail")
    address = which.replace("{self}", job["links"]["self"])
    poll = asyncio.create_task(api.get(f"{address}after=1&wait=20"))
    await api.somebody_waits()
    await api.submit("echo") if "type" in which else None
    await api("POST", f"{job['links']['self']}/cancel")
    page = (await poll).json
    assert [each["type"] for each in page["events"]] == ["JobCancelled"]


async def test_waiting_for_facts_ends(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    job = await api.submit("echo")
    for address in ("/v1/events", "/v1/events?type=fail", f"{job['links']['self']}/events"):
        join = "&" if "?" in address else "?"
        reply = await time_passing(clock, api.get(f"{address}{join}after=1&wait=3"), 1.0)
        assert (reply.json["events"], reply.json["next"]) == ([], 1)


async def test_a_position_of_another_log_is_refused(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    for address in ("/v1/events", f"{job['links']['self']}/events"):
        for after in (2, 2**62):
            reply = await api.get(f"{address}?after={after}")
            assert (reply.status, reply.code) == (400, "bad_cursor")
        for wrong in ("-1", str(2**80), "x"):
            reply = await api.get(f"{address}?after={wrong}")
            assert (reply.status, reply.fields) == (422, ["after"])


async def test_a_history_is_told(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("fail"))
    history = (await api.get(job["links"]["history"])).json
    assert history["job_id"] == job["job_id"]
    assert history["attempts"][0]["outcome"] == "failed"
    assert history["entries"][0]["text"] == "submitted as fail"


# --- intervening


async def test_a_waiting_job_is_cancelled_and_can_be_retried(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    cancelled = await api("POST", job["links"]["cancel"], {"reason": "a mistake"})
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    again = await api("POST", job["links"]["cancel"])
    assert (again.status, again.json) == (200, cancelled.json)
    retried = await api("POST", job["links"]["retry"], {})
    assert (retried.status, retried.json["status"]) == (200, "queued")
    assert retried.headers["ETag"] == '"3"'
    history = (await api.get(job["links"]["history"])).json
    assert "a mistake" in history["entries"][1]["text"]


async def test_what_has_ended_cannot_be_cancelled(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("echo"))
    reply = await api("POST", job["links"]["cancel"])
    assert (reply.status, reply.code) == (409, "wrong_state")
    reply = await api("POST", job["links"]["retry"])
    assert (reply.status, reply.code) == (409, "wrong_state")


async def test_a_running_job_is_asked_to_stop_and_keeps_its_progress(client: Connect) -> None:
    api = await client(*HANDLERS)
    address = await running(api)
    reply = await api("POST", f"{address}/cancel")
    assert reply.status == 200
    assert reply.json["cancel_requested_at"] is not None
    assert reply.json["progress"] == 50
    ended = await api.service.wait(address.rpartition("/")[2])
    assert ended.status == "cancelled"


@pytest.mark.parametrize("path", ["/cancel", "/retry"])
async def test_a_reason_is_checked_and_the_job_has_to_be_there(client: Connect, path: str) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    address = job["links"]["self"] + path
    reply = await api("POST", address, {"reason": 5})
    assert (reply.status, reply.fields) == (422, ["reason"])
    reply = await api("POST", address, {"why": "x"})
    assert (reply.status, reply.fields) == (422, ["why"])
    reply = await api("POST", f"/v1/jobs/{NOBODY}{path}")
    assert (reply.status, reply.code) == (404, "job_not_found")
    assert api.service.log.head == 1


async def test_a_deleted_job_is_hidden_everywhere(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    address = job["links"]["self"]
    for _ in range(2):
        reply = await api("DELETE", address)
        assert (reply.status, reply.body) == (204, b"")
    assert await kinds(api.service, job["job_id"]) == "JobSubmitted JobCancelled JobExpired"
    [*_, expired] = await api.service.log.read_job(job["job_id"])
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/logs"),
        ("GET", "/history"),
        ("GET", "/receipt"),
        ("GET", "/why"),
        ("GET", "/artifacts/x"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        gone = await api(method, address + path)
        assert (gone.status, gone.code) == (410, "job_gone")
        assert gone.json["expired_at"] == rfc3339(expired.at_us), path
    for path in ("", "/events", "/logs"):
        gone = await api.get(address + path, Accept="text/event-stream")
        assert (gone.code, gone.json["expired_at"]) == ("job_gone", rfc3339(expired.at_us))
    gone = await api("PUT", address, {"type": "echo"})
    assert (gone.status, gone.code) == (410, "job_gone")
    assert gone.json["expired_at"] == rfc3339(expired.at_us)
    assert (await api.get("/v1/jobs")).json["jobs"] == []
    assert (await api.get("/v1/counts")).json["counts"] == {}


async def test_deleting_a_running_job_stops_it_first(client: Connect) -> None:
    api = await client(*HANDLERS)
    address = await running(api)
    reply = await api("DELETE", address)
    assert reply.status == 202
    assert reply.json["cancel_requested_at"] is not None
    await api.service.wait(address.rpartition("/")[2])
    assert (await api("DELETE", address)).status == 204
    assert (await api.get(address)).status == 410


async def test_deleting_what_is_not_there_is_not_found(client: Connect) -> None:
    api = await client(*HANDLERS)
    reply = await api("DELETE", f"/v1/jobs/{NOBODY}")
    assert (reply.status, reply.code) == (404, "job_not_found")


# --- batches


async def batch(api: Client, lines: list[Any] | bytes, **headers: str) -> list[Any]:
    raw = (
        b"\n".join(each if isinstance(each, bytes) else orjson.dumps(each) for each in lines)
        if isinstance(lines, list)
        else lines
    )
    reply = await api("POST", "/v1/jobs/batch", data=raw, headers=NDJSON | headers)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-ndjson")
    return [orjson.loads(line) for line in reply.body.splitlines()]


async def test_each_line_of_a_batch_has_its_own_outcome_in_order(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, body_bytes_max=1024)
    mine = str(uuid4())
    outcomes = await batch(
        api,
        [
            {"type": "echo", "payload": 1},
            b"{broken",
            {"type": "unheard"},
            b"",
            {"type": "echo", "payload": 5, "job_id": mine},
            {"type": "echo", "payload": "x" * 2000},
            {"type": "order", "payload": {"amount": 0}},
            {"type": "echo", "idempotency_key": "k"},
            b"   \r",
            {"type": "echo", "idempotency_key": "k", "job_id": mine},
            {"type": "echo", "job_id": "mine"},
            {"type": "echo", "payload": [[[1]]], "colour": "red"},
            {"type": "echo", "payload": 13},
        ],
    )
    assert [each["line"] for each in outcomes] == [1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    told = [each["status"] for each in outcomes]
    assert told == [202, 400, 422, 202, 413, 422, 202, 422, 422, 422, 202]
    assert outcomes[3]["job_id"] == mine
    assert [each["error"]["code"] for each in outcomes if each["status"] == 400] == [
        "malformed_json"
    ]
    assert outcomes[5]["error"]["errors"][0]["field"] == "payload.amount"
    for each in outcomes:
        if each["status"] == 202:
            job = (await api.get(f"/v1/jobs/{each['job_id']}")).json
            assert job["position"] == each["position"]


async def test_a_batch_can_be_repeated(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    lines = [{"type": "echo", "payload": n, "idempotency_key": f"k{n}"} for n in range(3)]
    first = await batch(api, lines)
    again = await batch(api, lines)
    assert [each["status"] for each in first] == [202] * 3
    assert again == [each | {"status": 200} for each in first]
    lines[1]["payload"] = "other"
    assert (await batch(api, lines))[1]["error"]["code"] == "idempotency_key_reused"
    lone = await api(
        "POST", "/v1/jobs", {"type": "echo", "payload": 0}, headers={"Idempotency-Key": "k0"}
    )
    assert (lone.status, lone.json["job_id"]) == (200, first[0]["job_id"])


async def test_a_batch_too_large_ends_where_it_is_too_large(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, batch_lines_max=2, batch_bytes_max=2048)
    outcomes = await batch(api, [{"type": "echo"}] * 3)
    assert [each["status"] for each in outcomes] == [202, 202, 413]
    assert api.service.log.head == 2
    headers = NDJSON
    reply = await api("POST", "/v1/jobs/batch", data=b" " * 2049, headers=headers)
    assert (reply.status, reply.code) == (413, "too_large")

    async def unmeasured() -> Any:
        yield b'{"type":"echo"}\n'
        yield b" " * 2048

    reply = await api("POST", "/v1/jobs/batch", data=unmeasured(), headers=headers)
    assert [orjson.loads(each)["status"] for each in reply.body.splitlines()] == [202, 413]


async def test_a_batch_that_stops_coming_is_ended(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    head = b"POST /v1/jobs/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/x-ndjson\r\nContent-Length: 100\r\n\r\n"
    answer = await time_passing(clock, api.raw(head + b'{"type":"echo"}\n{"ty'), 10.0)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.index(b'"line":1,"status":202') < answer.index(b'"line":2,"status":408')


async def test_a_client_may_send_a_whole_batch_before_it_reads(client: Connect) -> None:
    """Outcomes are larger than lines: written at once, they would block the reading of lines."""
    api = await client(*HANDLERS)
    lines = 30_000

    def talk() -> list[bytes]:
        connection = HTTPConnection(api.listening.host, api.listening.port)
        connection.sock = socket.socket()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sock.connect((connection.host, connection.port))
        connection.request("POST", "/v1/jobs/batch", b"x\n" * lines, NDJSON)
        told = connection.getresponse().read()
        connection.close()
        return told.splitlines()

    outcomes = await asyncio.to_thread(talk)
    assert [orjson.loads(each)["line"] for each in outcomes] == list(range(1, lines + 1))


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/json"}, NDJSON | {"Content-Encoding": "gzip"}]
)
async def test_a_batch_is_plain_ndjson(client: Connect, headers: dict[str, str]) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs/batch", data=b'{"type":"echo"}', headers=headers)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


# --- files

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
FILES = {
    "my file (1) +x.csv": ["a,b\n1,2\n", "text/csv"],
    "chart.svg": [SVG, "image/svg+xml"],
    "page.html": ["<script>alert(1)</script>", "text/html"],
    "odd": ["x", 'text/plain; charset=x\r\nX-Injected: "1"'],
    "empty": ["", "text/plain"],
}


async def test_an_upload_is_named_by_its_content_and_given_to_a_job(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    content = bytes(range(256)) * 5000

    async def parts() -> Any:
        for begin in range(0, len(content), 100_000):
            yield content[begin : begin + 100_000]

    for data in (BytesIO(content), parts()):
        reply = await api("POST", "/v1/artifacts", data=data)
        assert reply.status == 201
        assert reply.json == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
    job = await api.submit("echo", artifacts={"in put.bin": reply.json["sha256"]})
    [told] = job["artifacts"]
    assert (told["name"], told["size"]) == ("in put.bin", len(content))
    file = await api.get(told["url"].replace(" ", "%20"))
    assert (file.status, file.body) == (200, content)
    assert file.headers["Content-Type"] == "application/octet-stream"


async def test_an_upload_has_a_limit_and_has_to_move_on(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, artifact_bytes_max=10)
    assert (await api("POST", "/v1/artifacts", data=b"x" * 10)).status == 201
    reply = await api("POST", "/v1/artifacts", data=b"x" * 11)
    assert (reply.status, reply.code) == (413, "too_large")

    async def parts() -> Any:
        for _ in range(11):
            yield b"x"

    reply = await api("POST", "/v1/artifacts", data=parts())
    assert (reply.status, reply.code) == (413, "too_large")
    head = b"POST /v1/artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Length: 9\r\n\r\nx"
    answer = await time_passing(clock, api.raw(head), 10.0)
    assert answer.startswith(b"HTTP/1.1 408 ")
    encoded = {"Content-Encoding": "gzip"}
    reply = await api("POST", "/v1/artifacts", data=b"x", headers=encoded)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_a_full_disk_is_told_as_that(small_disk: Path, client: Connect) -> None:
    api = await client(*HANDLERS, data=small_disk / "data")
    reply = await api("POST", "/v1/artifacts", data=BytesIO(b"x" * 4_000_000))
    assert (reply.status, reply.code) == (507, "disk_full")
    assert reply.headers["Retry-After"] == "10"


async def test_files_of_a_job_come_as_what_is_safe(client: Connect) -> None:
    api = await client(*HANDLERS)
    odd = {"odd": FILES["odd"]}
    refused = await finished(api, await api.submit("draw", odd, max_attempts=1))
    assert refused["error"]["code"] == "invalid_input"
    others = {name: each for name, each in FILES.items() if name != "odd"}
    job = await finished(api, await api.submit("draw", others))
    # An earlier version has recorded such a type.
    kept = await asyncio.to_thread(api.service.artifacts.store, FILES["odd"][0].encode())
    recorded = ArtifactStored(1, "odd", *kept, FILES["odd"][1])
    await api.service.log.append(job["job_id"], job["version"], recorded, actor="worker")
    job = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    shown = {
        "my file (1) +x.csv": ("text/csv; charset=utf-8", "attachment"),
        "chart.svg": ("image/svg+xml", "inline"),
        "page.html": ("application/octet-stream", "attachment"),
        "odd": ("text/plain; charset=utf-8", "attachment"),
        "empty": ("text/plain; charset=utf-8", "attachment"),
    }
    assert len(job["artifacts"]) == len(shown)
    for each in job["artifacts"]:
        name = each["name"]
        file = await api.get(each["url"])
        assert (file.status, file.body.decode()) == (200, FILES[name][0])
        media_type, how = shown[name]
        assert file.headers["Content-Type"] == media_type
        assert file.headers["Content-Disposition"] == f'{how}; filename="{name}"'
        assert file.headers["X-Content-Type-Options"] == "nosniff"
        assert file.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert file.headers["ETag"] == f'"{each["sha256"]}"'
        assert "X-Injected" not in file.headers
        head = await api("HEAD", each["url"])
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(each["size"])
        assert (await api.get(each["url"], If_None_Match=file.headers["ETag"])).status == 304


RANGES = [
    ("bytes=0-2", 206, b"a,b", "bytes 0-2/8"),
    ("bytes=4-", 206, b"1,2\n", "bytes 4-7/8"),
    ("bytes=-4", 206, b"1,2\n", "bytes 4-7/8"),
    ("bytes=-99", 200, b"a,b\n1,2\n", None),
    ("bytes=6-99", 206, b"2\n", "bytes 6-7/8"),
    ("bytes=8-", 416, None, "bytes */8"),
    ("bytes=x", 200, b"a,b\n1,2\n", None),
    ("bytes=0-1,4-5", 200, b"a,b\n1,2\n", None),
    ("bytes=3-1", 200, b"a,b\n1,2\n", None),
]


async def test_a_range_of_a_file_can_be_asked_for(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("draw", {"x": FILES["my file (1) +x.csv"]}))
    [file] = job["artifacts"]
    for asked, status, body, told in RANGES:
        reply = await api.get(file["url"], Range=asked)
        assert reply.status == status, asked
        assert reply.headers.get("Content-Range") == told
        assert reply.body == body if body is not None else reply.code == "range_not_satisfiable"
    other = await api.get(file["url"], Range="bytes=0-0", If_Range='"other"')
    assert (other.status, len(other.body)) == (200, 8)
    same = await api.get(file["url"], Range="bytes=0-0", If_Range=f'"{file["sha256"]}"')
    assert (same.status, same.body) == (206, b"a")


NAMES = [
    "nothing",
    "..%2f..%2flog.db",
    "%2e%2e",
    "%2fetc%2fpasswd",
    "x%00",
    "%ff",
    "..%5c..%5clog.db",
]


async def test_a_name_is_looked_up_and_never_a_path(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("draw", {"x": ["x", "text/plain"]}))
    for name in NAMES:
        path = f"{job['links']['self']}/artifacts/{name}".encode()
        head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await api.raw(head % path)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"passwd:" not in answer
        assert b"SQLite" not in answer


async def test_a_client_that_stops_reading_is_dropped(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    content = bytes(24 * 2**20)
    stored = await api("POST", "/v1/artifacts", data=BytesIO(content))
    job = await api.submit("echo", artifacts={"x": stored.json["sha256"]})
    address = job["artifacts"][0]["url"].encode()
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    with closing(writer), capture_logs() as lines:
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % address)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        for _ in range(300):
            await clock.advance(5)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(len(content))
    assert [each["event"] for each in lines] == ["request cut off"]


async def test_a_file_that_was_removed_is_not_found(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await finished(api, await api.submit("draw", {"x": ["x", "text/plain"]}))
    [file] = job["artifacts"]
    await asyncio.to_thread(api.service.artifacts.path(file["sha256"]).unlink)
    reply = await api.get(file["url"])
    assert (reply.status, reply.code) == (404, "artifact_not_found")


# --- the service itself


async def test_views_are_rebuilt_on_request(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job = await api.submit("echo")
    reply = await api("POST", "/v1/views/rebuild")
    assert (reply.status, reply.json) == (200, {"position": 1})
    assert (await api.get(job["links"]["self"])).json == job


async def test_it_is_ready_until_it_closes_and_alive_all_the_time(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    await api.submit("echo")
    await api.service.views.reached(1)
    told = (await api.get("/readyz")).json
    assert told.pop("version")
    assert told == {
        "ready": True,
        "log_position": 1,
        "views_position": 1,
        "lag": 0,
        "running": 0,
        "writable": True,
        "unwritable": None,
        "views_failing": None,
        "recovered": True,
        "parked": {"count": 0, "first": []},
    }
    await api.service.close()
    reply = await api.get("/readyz")
    assert (reply.status, reply.code) == (503, "not_ready")
    assert (await api.get("/healthz")).json == {"status": "ok"}


# --- errors


async def test_every_error_is_a_problem(client: Connect) -> None:
    api = await client(*HANDLERS)
    reply = await api.get("/v1/nothing?secret=1")
    assert (reply.status, reply.code) == (404, "not_found")
    assert reply.json["instance"] == "/v1/nothing"
    assert reply.json["type"] == "about:blank"
    for method, path, allowed in (
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", f"/v1/jobs/{NOBODY}", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
    ):
        reply = await api(method, path)
        assert (reply.status, reply.code) == (405, "method_not_allowed")
        assert reply.headers["Allow"] == allowed
    assert (await api.get("/v1/jobs/")).code == "not_found"


HARDLY_HTTP = [
    (b"not HTTP at all\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 10_000), 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nBad header\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    (b"BREW /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    (b"GET /v1/jobs/\xff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    (b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: magic\r\n\r\n", 417),
]


async def test_what_is_hardly_http_is_answered_with_a_problem_too(client: Connect) -> None:
    api = await client(*HANDLERS)
    for request_bytes, status in HARDLY_HTTP:
        head, _, body = (await api.raw(request_bytes)).partition(b"\r\n\r\n")
        assert head[8:].startswith(b" %d " % status)
        assert b"Content-Type: application/problem+json" in head
        assert b"X-Content-Type-Options: nosniff" in head
        assert b"aiohttp" not in head
        told = orjson.loads(body)
        assert told["status"] == status
        assert told["request_id"].encode() in head


async def test_a_request_has_one_name_everywhere(client: Connect) -> None:
    api = await client(*HANDLERS)
    reply = await api.get("/nothing", X_Request_ID="abc.DEF_1-2")
    assert (reply.code, reply.json["request_id"]) == ("not_found", "abc.DEF_1-2")
    for odd in ("", "a b", "x" * 65, "\u00fc", "a;b"):
        reply = await api.get("/healthz", X_Request_ID=odd)
        assert reply.headers["X-Request-ID"] not in {odd, ""}
    names = {(await api.get("/healthz")).headers["X-Request-ID"] for _ in range(5)}
    assert len(names) == 5


async def test_a_refused_request_leaves_one_line_without_what_it_said(client: Connect) -> None:
    api = await client(*HANDLERS)
    with capture_logs() as lines:
        await api("POST", "/v1/jobs?token=secret", b'{"type":"secret"}')
        await api.get("/healthz?token=secret")
    [refused] = [each for each in lines if each["log_level"] == "info"]
    assert (refused["event"], refused["status"]) == ("request refused", 422)
    assert (refused["method"], refused["path"]) == ("POST", "/v1/jobs")
    assert refused["code"] == "unknown_type"
    assert "secret" not in str(lines)


async def test_an_unexpected_error_is_told_to_us_and_not_to_the_client(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS)

    async def broken(service: Service) -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(type(api.service.views), "counts", broken)
    with capture_logs() as lines:
        reply = await api.get("/v1/counts")
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert any("secret" in str(each.get("exc_info")) for each in lines)


def test_every_error_has_a_status_and_says_no_more_than_it_may() -> None:
    listed = [each for each in vars(errors).values() if isinstance(each, type)]
    for each in [*listed, *vars(request_errors).values()]:
        if isinstance(each, type) and issubclass(each, EventjobsError):
            status, _ = problem.status_of(each)
            assert 400 <= status < 600
    told = problem.members(errors.LogUnavailable("the database failed: /secret"))
    assert told["detail"] == "The log does not accept writes now; nothing was written."
    unknown = problem.response(errors.OutcomeUnknown(), "/v1/jobs", "r", "job")
    assert isinstance(unknown.body, bytes)
    assert orjson.loads(unknown.body)["job_id"] == "job"
    assert (unknown.status, unknown.headers["Retry-After"]) == (503, "1")
    assert problem.members(web.HTTPRequestEntityTooLarge(1))["status"] == 413


# --- who may come in


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", {"Host": "evil.example:8080"}, "misdirected"),
        ("GET", {"Host": "127.0.0.1.evil.example"}, "misdirected"),
        ("POST", {"Origin": "http://evil.example"}, "cross_origin"),
        ("POST", {"Origin": "null"}, "cross_origin"),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, "cross_origin"),
        ("POST", {"Sec-Fetch-Site": "same-site"}, "cross_origin"),
    ],
)
async def test_a_page_of_another_site_is_refused(
    client: Connect, method: str, headers: dict[str, str], code: str
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    await api.get(address)
    reply = await api(method, address + ("/cancel" if method == "POST" else ""), headers=headers)
    assert reply.code == code
    assert api.service.log.head == 1


async def test_our_own_pages_and_programs_may_come_in(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    here = f"127.0.0.1:{api.listening.port}"
    for headers in (
        {"Origin": f"http://{here}"},
        {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{here}"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:1234"},
    ):
        reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=headers)
        assert reply.status == 202


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "example.com", "127.0.0.1 "])
def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(InvalidInput, match="authenticat"):
        check_loopback(host)


def test_loopback_has_several_names() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        check_loopback(host)
    for host in ("127.0.0.1:80", "[::1]:80", "[::1]", "app.localhost:80", "LOCALHOST"):
        assert host_error(host) is None
    for host in ("", "localhost.evil.example", "10.0.0.1:80", "[2001:db8::1]:80"):
        assert host_error(host) is Misdirected

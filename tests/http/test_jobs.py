"""Jobs over HTTP: read, listed, cancelled, retried and deleted."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from eventjobs.domain.timestamps import rfc3339
from eventjobs.http.cursors import cursor
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS, NOBODY, ended_job, running_job
from tests.support.waiting import kinds, time_passing, turns


async def test_a_job_that_is_known_is_not_sent_again(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    for _ in range(2):  # from the database, then from memory
        reply = await api.get(address)
        assert reply.headers["ETag"] == '"1"'
        for etags in ('"1"', 'W/"1"', '"7", "1"', "*"):
            same = await api.get(address, If_None_Match=etags)
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


@pytest.mark.parametrize("query", ["after=-1", "after=x", "colour=red"])
async def test_the_query_of_one_job_is_checked(client: Connect, query: str) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    for _ in range(2):  # from the database, then from memory
        reply = await api.get(f"{address}?{query}")
        assert (reply.status, reply.code) == (422, "invalid_input")
        assert reply.fields == [query.partition("=")[0]]
        assert (await api.get(f"{address}?after=1")).status == 200


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
    reply = await api.get(await running_job(api))
    assert reply.headers["ETag"].startswith('W/"')
    assert (reply.json["progress"], reply.json["stage"]) == (50, "waiting")


async def test_a_long_poll_returns_when_the_job_changes(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    address = (await api.submit("echo"))["links"]["self"]
    poll = asyncio.create_task(api.get(address, If_None_Match='"1"', Prefer="wait=20"))
    await api.wait_for_long_poll()
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
    await api.get(address)  # a job in memory is waited for as well
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
    await api.wait_for_long_poll()
    await api.listening.close()
    assert (await poll).status == 304


async def test_a_browser_gets_a_stream_at_the_same_address(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("echo"))
    for path in ("", "/events"):
        reply = await api.get(job["links"]["self"] + path, Accept="text/event-stream")
        assert reply.headers["Content-Type"] == "text/event-stream"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["X-Request-ID"]
        assert b"event: end" in reply.body
    reply = await api.get(f"/v1/jobs/{NOBODY}", Accept="text/event-stream")
    assert (reply.status, reply.code) == (404, "job_not_found")


async def payloads(api: Client, query: str) -> list[Any]:
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
    assert await payloads(api, "") == [2, {"amount": 1}, 0]
    assert await payloads(api, "?order=oldest&limit=2") == [0, {"amount": 1}]
    assert await payloads(api, "?tag=a") == [{"amount": 1}, 0]
    assert await payloads(api, "?tag=b&status=queued") == [{"amount": 1}]
    assert await payloads(api, "?status=cancelled") == [0]
    assert await payloads(api, "?status=cancelled,queued&type=echo&type=fail") == [2, 0]
    assert await payloads(api, "?since=2025-01-01T00:01:00Z") == [2, {"amount": 1}]
    assert await payloads(api, "?until=2025-01-01T01:01:00%2B01:00") == [0]
    assert await payloads(api, f"?id={first['job_id']},{last['job_id']}&id={NOBODY}") == [2, 0]
    assert await payloads(api, "?owner=me") == []
    assert await payloads(api, "?status=") == [2, {"amount": 1}, 0]


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
    assert await payloads(api, f"?limit=1&type=echo&cursor={following}") == [1]
    assert await payloads(api, f"?limit=2&type=echo&cursor={following}") == [1, 0]
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
    assert await payloads(api, "?limit=1000000") == [2, 1]
    events = (await api.get("/v1/events?limit=1000000")).json
    assert (len(events["events"]), events["next"]) == (2, 2)
    reply = await api.get(f"/v1/jobs?id={NOBODY},{uuid4()}")
    assert (reply.status, reply.fields) == (422, ["id"])


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
    job = await ended_job(api, await api.submit("echo"))
    reply = await api("POST", job["links"]["cancel"])
    assert (reply.status, reply.code) == (409, "wrong_state")
    reply = await api("POST", job["links"]["retry"])
    assert (reply.status, reply.code) == (409, "wrong_state")


async def test_a_running_job_is_asked_to_stop_and_keeps_its_progress(client: Connect) -> None:
    api = await client(*HANDLERS)
    address = await running_job(api)
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
        ("GET", ""),  # from memory
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
    address = await running_job(api)
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

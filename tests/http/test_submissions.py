"""Submissions over HTTP: what is accepted, refused, and safe to repeat."""

import asyncio
from collections import Counter
from uuid import uuid4

import pytest

from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Reply
from tests.support.http_jobs import HANDLERS
from tests.support.log_lines import capture_logs


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
    ({"type": "echo", "owner": ""}, "owner"),
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
    await api.service.views.wait_for_position(1)
    with capture_logs():  # the views stop, with an error in the log
        await api.service.log.close()
        reply = await api("POST", "/v1/jobs", {"type": "echo"})
    assert (reply.status, reply.code) == (503, "log_unavailable")
    assert reply.headers["Retry-After"] == "1"
    assert (await api.get(job["links"]["self"])).status == 200

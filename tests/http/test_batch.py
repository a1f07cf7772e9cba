"""Batches: an outcome for each line, in order, within limits."""

import asyncio
import socket
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import orjson
import pytest

from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS
from tests.support.waiting import time_passing

NDJSON = {"Content-Type": "application/x-ndjson"}


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
    statuses = [each["status"] for each in outcomes]
    assert statuses == [202, 400, 422, 202, 413, 422, 202, 422, 422, 422, 202]
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


async def test_lines_name_jobs_of_earlier_lines(client: Connect) -> None:
    """However many are between them: lines are submitted in groups."""
    api = await client(*HANDLERS, concurrency=0)
    first, last = str(uuid4()), str(uuid4())
    between = [{"type": "echo", "payload": n} for n in range(1200)]
    named = [
        {"type": "echo", "job_id": first},
        *between,
        {"type": "echo", "job_id": last, "after": [first]},
        {"type": "echo", "after": [last, first]},
        {"type": "echo", "after": [str(uuid4())]},
    ]
    statuses = [each["status"] for each in await batch(api, named)]
    assert statuses == [202] * 1203 + [422]
    assert api.service.log.head == 1203


async def test_a_batch_too_large_ends_where_it_is_too_large(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, batch_lines_max=2, batch_bytes_max=2048)
    outcomes = await batch(api, [{"type": "echo"}] * 3)
    assert [each["status"] for each in outcomes] == [202, 202, 413]
    assert api.service.log.head == 2
    headers = NDJSON
    reply = await api("POST", "/v1/jobs/batch", data=b" " * 2049, headers=headers)
    assert (reply.status, reply.code) == (413, "too_large")

    async def body_without_length() -> Any:
        yield b'{"type":"echo"}\n'
        yield b" " * 2048

    reply = await api("POST", "/v1/jobs/batch", data=body_without_length(), headers=headers)
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

    def send_and_read() -> list[bytes]:
        connection = HTTPConnection(api.listening.host, api.listening.port)
        connection.sock = socket.socket()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sock.connect((connection.host, connection.port))
        connection.request("POST", "/v1/jobs/batch", b"x\n" * lines, NDJSON)
        body = connection.getresponse().read()
        connection.close()
        return body.splitlines()

    outcomes = await asyncio.to_thread(send_and_read)
    assert [orjson.loads(each)["line"] for each in outcomes] == list(range(1, lines + 1))


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "application/json"}, NDJSON | {"Content-Encoding": "gzip"}]
)
async def test_a_batch_is_plain_ndjson(client: Connect, headers: dict[str, str]) -> None:
    api = await client(*HANDLERS)
    reply = await api("POST", "/v1/jobs/batch", data=b'{"type":"echo"}', headers=headers)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")

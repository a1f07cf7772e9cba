"""Malformed requests, which are refused before routing."""

import orjson

from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS

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
        members = orjson.loads(body)
        assert members["status"] == status
        assert members["request_id"].encode() in head

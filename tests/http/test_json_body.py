"""The limits of JSON bodies."""

from typing import Any

import orjson
import pytest

from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS


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

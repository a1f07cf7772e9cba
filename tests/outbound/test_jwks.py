"""The keys of an issuer: fetched, cached, replaced, and fetched no more often than they may be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from eventjobs.clock import Clock, SystemClock
from eventjobs.errors import KeysUnavailable
from eventjobs.outbound.jwks import (
    DOCUMENT_BYTES_MAX,
    FIRST_INTERVAL_S,
    INTERVAL_MIN_S,
    INTERVAL_S,
    JWKS,
    TIMEOUT_S,
)
from tests.support.clock import FakeClock
from tests.support.issuer import KeyServer, ec_key, public_jwk, rsa_key, serving_keys
from tests.support.log_lines import capture_logs
from tests.support.waiting import time_passing

ONE, TWO = public_jwk(rsa_key(), kid="one"), public_jwk(ec_key(), kid="two")


@asynccontextmanager
async def fetching(clock: Clock, *keys: dict[str, Any]) -> AsyncIterator[tuple[KeyServer, JWKS]]:
    async with serving_keys(*keys) as server:
        jwks = JWKS(server.url, clock)
        yield server, jwks
        await jwks.close()


async def kids(jwks: JWKS) -> list[str]:
    """Which of the keys are there."""
    one, two = await jwks.find("RS256", "one"), await jwks.find("ES256", "two")
    return [str(each.kid) for each in (*one, *two)]


async def test_keys_are_fetched_when_they_are_needed_and_kept(clock: FakeClock) -> None:
    async with fetching(clock, ONE, TWO) as (server, jwks):
        assert server.requests == 0
        for _ in range(3):
            assert await kids(jwks) == ["one", "two"]
        assert server.requests == 1


async def test_concurrent_requests_share_one_fetch(clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        results = await asyncio.gather(*(jwks.find("RS256", "one") for _ in range(100)))
        assert all(results)
        assert server.requests == 1


async def test_a_request_that_is_cut_off_leaves_the_fetch_to_the_next(clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        server.open.clear()
        first, second = (asyncio.create_task(jwks.find("RS256", "one")) for _ in range(2))
        while server.requests == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        first.cancel()
        server.open.set()
        assert await second


async def test_unknown_keys_cause_one_request_a_minute(clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        for number in range(100):
            assert not await jwks.find("RS256", f"unknown {number}")
        assert server.requests == 1
        await clock.advance(INTERVAL_MIN_S)
        for number in range(100):
            assert not await jwks.find("RS256", f"unknown {number}")
        assert server.requests == 2


async def test_keys_are_rotated(clock: FakeClock) -> None:
    removed: list[str] = []
    async with fetching(clock, ONE) as (server, jwks):
        jwks.on_removed(removed.append)
        [key] = await jwks.find("RS256", "one")
        server.keys = [ONE, TWO]
        assert await kids(jwks) == ["one"]
        await clock.advance(INTERVAL_MIN_S)
        assert await kids(jwks) == ["one", "two"]
        assert removed == []
        server.keys = [TWO]
        await clock.advance(INTERVAL_MIN_S)
        await jwks.refresh()
        assert await kids(jwks) == ["two"]
        assert removed == [key.id]
        assert not await jwks.has(key.id)


async def test_another_key_of_the_same_name_replaces_it(clock: FakeClock) -> None:
    removed: list[str] = []
    async with fetching(clock, ONE) as (server, jwks):
        jwks.on_removed(removed.append)
        [before] = await jwks.find("RS256", "one")
        server.keys = [public_jwk(rsa_key(1), kid="one")]
        await clock.advance(INTERVAL_MIN_S)
        await jwks.refresh()
        [after] = await jwks.find("RS256", "one")
        assert after.id != before.id
        assert removed == [before.id]


async def test_keys_are_fetched_again_in_the_background(clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        loop = asyncio.create_task(jwks.run())
        assert await kids(jwks) == ["one"]
        server.keys = [TWO]
        while await jwks.find("RS256", "one"):
            await clock.advance(INTERVAL_S / 100)
        assert await kids(jwks) == ["two"]
        assert server.requests == 2
        loop.cancel()


RESPONSES = {
    "an error": lambda: web.json_response({"keys": [TWO]}, status=500),
    "a redirect": lambda: web.Response(status=302, headers={"Location": "/other"}),
    "HTML": lambda: web.Response(text="<html>log in</html>", content_type="text/html"),
    "another document": lambda: web.json_response({"jwks_uri": "https://issuer.example/keys"}),
    "too many keys": lambda: web.json_response({"keys": [ONE] * 101}),
    "too many bytes": lambda: web.Response(body=b'{"keys":[]}' + b" " * DOCUMENT_BYTES_MAX),
    "something endless": lambda: web.Response(body=b'{"keys":[' + b"{}," * DOCUMENT_BYTES_MAX),
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
async def test_a_failed_fetch_keeps_the_keys_and_is_logged_once(
    response: Any, clock: FakeClock
) -> None:
    with capture_logs() as lines:
        async with fetching(clock, ONE) as (server, jwks):
            assert await kids(jwks) == ["one"]
            for _ in range(3):
                server.response = response()
                await clock.advance(INTERVAL_MIN_S)
                assert await kids(jwks) == ["one"]
            await clock.advance(INTERVAL_MIN_S)
            assert await kids(jwks) == ["one"]
            assert server.requests == 5
    events = [(each["event"], each["log_level"]) for each in lines]
    assert events == [
        ("keys fetched", "info"),
        ("keys not fetched", "warning"),
        ("keys fetched", "info"),
    ]
    assert lines[1]["error"]


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
async def test_without_keys_a_fetch_is_repeated_soon(response: Any, clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        server.response = response()
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                await jwks.find("RS256", "one")
        assert server.requests == 1
        await clock.advance(FIRST_INTERVAL_S)
        assert await kids(jwks) == ["one"]


async def test_a_server_that_is_down_is_asked_again(clock: FakeClock) -> None:
    with capture_logs() as lines:
        async with serving_keys(ONE) as server:
            pass
        jwks = JWKS(server.url, clock)
        with pytest.raises(KeysUnavailable):
            await jwks.find("RS256", "one")
        await jwks.close()
    [line] = lines
    assert (line["event"], line["error"]) == (
        "keys not fetched",
        "no answer: no connection could be made",
    )


async def test_a_server_that_does_not_answer_is_given_up(clock: FakeClock) -> None:
    async with fetching(clock, ONE) as (server, jwks):
        server.open.clear()
        began_s = clock.monotonic_s()
        with pytest.raises(KeysUnavailable):
            await time_passing(clock, jwks.find("RS256", "one"))
        assert clock.monotonic_s() - began_s < TIMEOUT_S + 1
        server.open.set()


async def test_a_set_without_keys_of_ours_removes_all(clock: FakeClock) -> None:
    """An issuer that has withdrawn its keys accepts no token."""
    removed: list[str] = []
    with capture_logs() as lines:
        async with fetching(clock, ONE, TWO) as (server, jwks):
            jwks.on_removed(removed.append)
            assert await kids(jwks) == ["one", "two"]
            server.keys = []
            await clock.advance(INTERVAL_MIN_S)
            await jwks.refresh()
            assert await kids(jwks) == []
    assert len(removed) == 2
    assert (lines[-1]["event"], lines[-1]["log_level"], lines[-1]["usable"]) == (
        "keys fetched",
        "warning",
        0,
    )


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with fetching(SystemClock(), ONE) as (_, jwks):
        assert await kids(jwks) == ["one"]


async def test_other_addresses_are_not_asked(clock: FakeClock) -> None:
    """Only the host and the port of the setting are reachable."""
    async with serving_keys(ONE) as other, fetching(clock, ONE) as (server, jwks):
        server.response = web.Response(status=301, headers={"Location": other.url})
        with pytest.raises(KeysUnavailable):
            await jwks.find("RS256", "one")
        assert other.requests == 0

"""How many streams and long polls one owner has open is limited."""

import asyncio
import re

import pytest

from eventjobs.auth.principals import LOCAL, USER_SCOPES, Principal
from eventjobs.errors import OwnerLimit
from eventjobs.handlers.declare import remote
from eventjobs.http.owner_limits import OwnerLimits
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import echo
from tests.support.keys import bearer, make_key

STREAM = {"Accept": "text/event-stream"}
Headers = dict[str, str]


async def users(api: Client) -> tuple[Headers, Headers]:
    ann, bob = [bearer(await make_key(api.service, owner=owner)) for owner in ("ann", "bob")]
    return ann, bob


def test_what_is_closed_makes_place() -> None:
    limits = OwnerLimits(1, "streams")
    ann, bob = (Principal(f"user:{name}", name, USER_SCOPES) for name in ("ann", "bob"))
    with limits.hold(ann), limits.hold(bob), limits.hold(LOCAL), limits.hold(LOCAL):
        with pytest.raises(OwnerLimit), limits.hold(ann):
            pass
        with limits.hold(ann, waits=False):
            pass
    with pytest.raises(ValueError, match="x"), limits.hold(ann):
        raise ValueError("x")
    with limits.hold(ann):
        pass
    assert not limits._open


async def test_a_stream_above_the_limit_ends_and_its_client_comes_back(client: Connect) -> None:
    api = await client(echo, concurrency=0, auth="required", owner_streams_max=1)
    ann, bob = await users(api)
    job = (await api("POST", "/v1/jobs", {"type": "echo"}, headers=ann)).json["links"]["self"]
    stream = await api.session.get(job, headers=ann | STREAM)
    assert (await stream.content.readany()).startswith(b"retry: 2000\n")
    for path in ("/v1/jobs", "/v1/events", job, f"{job}/logs"):
        refused = await api("GET", path, headers=ann | STREAM)
        assert (refused.status, refused.headers["Content-Type"]) == (200, "text/event-stream")
        assert re.fullmatch(rb"retry: \d{4,5}\n\n", refused.body)
        assert "Connection" not in refused.headers  # it stays open
    other = await api.session.get("/v1/jobs", headers=bob | STREAM)
    assert (await other.content.readany()).startswith(b"retry: 2000\n")
    assert (await api("GET", "/v1/jobs", headers=ann)).status == 200  # a page
    await api("POST", f"{job}/cancel", headers=ann)
    assert b"event: end" in await stream.read()
    again = await api.session.get("/v1/jobs", headers=ann | STREAM)
    assert (await again.content.readany()).startswith(b"retry: 2000\n")
    again.close()
    other.close()


async def test_long_polls_above_the_limit_are_refused(client: Connect) -> None:
    clock = FakeClock()
    api = await client(
        echo, remote("far"), clock=clock, concurrency=0, auth="required", owner_long_polls_max=1
    )
    ann, _ = await users(api)
    worker = bearer(await make_key(api.service, ["worker:far"], owner="ann"))
    job = await api("POST", "/v1/jobs", {"type": "echo"}, headers=ann)
    address, etag = job.json["links"]["self"], job.headers["ETag"]
    head = api.service.log.head
    waiting = asyncio.create_task(api("GET", f"/v1/events?after={head}&wait=20", headers=ann))
    await api.wait_for_long_poll()
    changed = {"Prefer": "wait=5", "If-None-Match": etag}
    claim = {"worker": "w", "types": ["far"], "max": 1, "wait_s": 5}
    for reply in (
        await api("GET", "/v1/events?after=1&wait=1", headers=ann),
        await api("GET", f"{address}/events?after=1&wait=1", headers=ann),
        await api("GET", f"{address}/logs?wait=1", headers=ann),
        await api("GET", address, headers=ann | changed),
        await api("POST", "/v1/work/claim", claim, headers=worker),
    ):
        assert (reply.status, reply.code, reply.headers["Retry-After"]) == (429, "owner_limit", "5")
    for reply in (
        await api("GET", "/v1/events?after=1", headers=ann),
        await api("GET", address, headers=ann | {"If-None-Match": etag}),
        await api("POST", "/v1/work/claim", claim | {"wait_s": 0}, headers=worker),
    ):
        assert reply.status in (200, 304), reply.body
    await api("POST", "/v1/jobs", {"type": "echo"}, headers=ann)
    assert (await waiting).status == 200

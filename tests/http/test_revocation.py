"""What a credential has open ends when it is revoked or expires, or when its job is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from eventjobs.domain.ids import child_id
from eventjobs.domain.timestamps import parse_rfc3339, rfc3339
from eventjobs.http.streams.streams import GOODBYE_S
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.keys import bearer, id_of, make_key
from tests.support.owners import ANN, Site, job_submitted, open_site, until_contains
from tests.support.stream_reader import request

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def test_an_open_claim_of_a_revoked_worker_gets_no_job(client: Connect) -> None:
    site = await open_site(client)
    key = await site.add("near", "worker:far")
    claim = {"worker": "w", "types": ["far"], "wait_s": 20}
    waiting = asyncio.create_task(site.send("near", "POST", "/v1/work/claim", claim))
    claims = site.api.service.claims
    while "far" not in claims.last_requested_us:  # noqa: ASYNC110  a claim has no event
        await asyncio.sleep(0)
    await site.api.service.api_keys.revoke(id_of(key), actor="test")
    job_id = await site.submit(ANN, "far")
    assert (await waiting).json["jobs"] == []
    assert (await site.get(ANN, f"/v1/jobs/{job_id}")).json["status"] == "queued"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/batch", "/v1/artifacts"])
async def test_a_body_that_arrives_after_the_revocation_counts_no_more(
    client: Connect, path: str
) -> None:
    site = await open_site(client)
    key = await site.add("second")
    service = site.api.service
    line = b'{"type":"echo"}\n'

    async def body() -> AsyncIterator[bytes]:
        yield line
        if path == "/v1/jobs/batch":
            await job_submitted(site)
        await service.api_keys.revoke(id_of(key), actor="test")
        head = service.log.head
        yield line if path != "/v1/jobs" else b" "
        heads.append(head)

    heads: list[int] = []
    kind = "x-ndjson" if path == "/v1/jobs/batch" else "octet-stream"
    headers = {"Content-Type": "application/json" if path == "/v1/jobs" else f"application/{kind}"}
    reply = await site.send("second", "POST", path, data=body(), headers=headers)
    assert reply.body.count(b'"invalid_credential"') == 1, reply.body
    assert [service.log.head] == heads, "nothing was submitted after the revocation"
    assert (reply.status == 401) or reply.body.count(b'"status":202') == 1


async def test_a_long_poll_of_a_revoked_key_is_refused(client: Connect) -> None:
    site = await open_site(client)
    key = await site.add("second")
    job_id = await site.submit("second")
    path = f"/v1/jobs/{job_id}/events"
    after = (await site.get("second", path)).json["next"]
    waiting = asyncio.create_task(site.get("second", f"{path}?after={after}&wait=20"))
    await site.api.wait_for_long_poll()
    service = site.api.service
    await service.api_keys.revoke(id_of(key), actor="test")
    await service.jobs.cancel(job_id, actor="test")
    reply = await waiting
    assert (reply.status, reply.code) == (401, "invalid_credential")


STREAMS = ("/v1/jobs", "/v1/jobs/{}", "/v1/events", "/v1/jobs/{}/events", "/v1/jobs/{}/logs")


@pytest.mark.parametrize("path", STREAMS)
async def test_streams_end_when_their_key_is_revoked(client: Connect, path: str) -> None:
    site = await open_site(client)
    key = await site.add("second")
    site.keys["third"] = await make_key(site.api.service, owner="second")
    job_id = await site.submit("second")
    path = path.format(job_id)
    async with site.stream("second", path) as ending, site.stream("third", path) as staying:
        for each in (ending, staying):
            await until_contains(each, ":" if path.endswith("logs") else job_id)
        await site.api.service.api_keys.revoke(id_of(key), actor="test")
        assert b"event" not in await ending.content.read()  # returns at the end
        refused = await site.get("second", "/v1/jobs")
        assert (refused.status, refused.code) == (401, "invalid_credential")
        await site.send("third", "POST", f"/v1/jobs/{job_id}/cancel")
        await until_contains(staying, "end" if path.endswith("logs") else "ancelled")


async def test_streams_end_when_their_credential_expires(client: Connect) -> None:
    clock = FakeClock()
    site = await open_site(client, clock=clock)
    expiry = parse_rfc3339(rfc3339(clock.now_us() + 60_000_000))
    site.keys["short"] = await make_key(site.api.service, owner=ANN, expires_at=expiry)
    job_id = await site.submit(ANN)
    async with site.stream("short", "/v1/events") as ending:
        await until_contains(ending, job_id)
        await clock.advance(59.0)
        later = await site.submit(ANN)
        await until_contains(ending, later)
        await clock.advance(1.5)
        assert b"event:" not in await ending.content.read()
    assert (await site.get("short", "/v1/jobs")).code == "invalid_credential"


@asynccontextmanager
async def job_stream(site: Site, key: str, job_id: str) -> AsyncIterator[Connection]:
    """A connection on which the stream of a job has begun."""
    listening = site.api.listening
    reader, writer = await asyncio.open_connection(listening.host, listening.port)
    try:
        writer.write(request(f"/v1/jobs/{job_id}/events", headers=bearer(key)))
        await reader.readuntil(b"JobSubmitted")
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def test_the_end_of_a_credential_cuts_off_no_later_request_of_a_connection(
    client: Connect, clock: FakeClock
) -> None:
    """A proxy uses a connection again, for other clients too, when a stream on it has ended."""
    site = await open_site(client, clock=clock)
    expiry = parse_rfc3339(rfc3339(clock.now_us() + 60_000_000))
    key = await make_key(site.api.service, owner=ANN, expires_at=expiry)
    job_id = await site.submit(ANN)
    async with job_stream(site, key, job_id) as (reader, writer):
        await site.send(ANN, "POST", f"/v1/jobs/{job_id}/cancel")
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(request("/v1/events", headers=bearer(site.keys[ANN])))
        await reader.readuntil(b"JobSubmitted")
        await clock.advance(60 + GOODBYE_S)
        later = await site.submit(ANN)
        await reader.readuntil(later.encode())


async def test_a_connection_that_a_revocation_is_to_cut_off_is_closed_with_its_stream(
    client: Connect, clock: FakeClock
) -> None:
    """At once: no later request of a proxy is on it when its time is up."""
    site = await open_site(client, clock=clock)
    key = await site.add("second")
    job_id = await site.submit("second")
    async with job_stream(site, key, job_id) as (reader, _):
        await site.api.service.api_keys.revoke(id_of(key), actor="test")
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b"\r\n0\r\n\r\n")  # up to its close


async def test_a_stream_of_a_worker_ends_when_it_holds_the_job_no_longer(
    client: Connect, clock: FakeClock
) -> None:
    site = await open_site(client, clock=clock)
    await site.add("near", "worker:far")
    far, held = [await site.submit(ANN, "far") for _ in range(2)]
    claim = {"worker": "w", "types": ["far"], "wait_s": 0, "max": 2}
    await site.send("near", "POST", "/v1/work/claim", claim)
    header = f"parent={far}&attempt=1&worker=w&name=part"
    body, child = {"type": "echo", "parent": far}, child_id(far, "part")
    reply = await site.send(
        "near", "PUT", f"/v1/jobs/{child}", body, headers={"Eventjobs-Child": header}
    )
    assert reply.status == 202
    paths = [f"/v1/jobs/{far}", f"/v1/jobs/{far}/events", f"/v1/jobs/{child}", f"/v1/jobs/{held}"]
    async with AsyncExitStack() as stack:
        *lost, kept = [await stack.enter_async_context(site.stream("near", path)) for path in paths]
        for each, path in zip((*lost, kept), paths, strict=True):
            await until_contains(each, path.split("/")[3])
        left = {"worker": "w", "reason": "moved"}
        reply = await site.send("near", "POST", f"/v1/work/{far}/1/release", left)
        assert reply.status == 200, reply.body
        await clock.advance(site.api.service.settings.heartbeat_s)
        for each in lost:
            await each.content.read()
        assert not kept.content.at_eof()
    assert (await site.get("near", paths[2])).status == 404

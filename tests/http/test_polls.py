"""Long polls: what wakes one, and what becomes of one whose client has left."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventjobs.http import held_requests
from eventjobs.http.app_context import APP_CONTEXT
from eventjobs.log.long_poll import LongPolls
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client, half_closed
from tests.support.http_jobs import HANDLERS
from tests.support.waiting import time_passing, turns, until

HOST = b"Host: 127.0.0.1\r\n\r\n"

#: Polls for the job {job}, of type "fail".
POLLS = [
    "/v1/jobs/{job}",
    "/v1/jobs/{job}/events?after=1&wait=20",
    "/v1/jobs/{job}/logs?after=1&wait=20",
    "/v1/events?after=1&wait=20&type=fail",
    "/v1/events?after=1&wait=20&id={job}",
]


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for each lookup of a poll."""
    entries: list[None] = []
    repeat = LongPolls.repeat

    async def repeat_and_count(
        self: LongPolls, lookup: Callable[[], Awaitable[Any]], wait: Any
    ) -> Any:
        async def look() -> Any:
            entries.append(None)
            return await lookup()

        return await repeat(self, look, wait)

    monkeypatch.setattr(LongPolls, "repeat", repeat_and_count)
    return entries


async def submit_polled(api: Client) -> str:
    job = await api.submit("fail", tags=["t"], queue="mail")
    job_id: str = job["job_id"]
    return job_id


def poll(api: Client, path: str, job_id: str) -> "asyncio.Task[Any]":
    headers = {"Prefer": "wait=20", "If_None_Match": '"1"'} if path == POLLS[0] else {}
    return asyncio.create_task(api.get(path.format(job=job_id), **headers))


@pytest.mark.parametrize("path", POLLS)
async def test_events_of_others_cause_no_lookup(
    client: Connect, lookups: list[None], path: str
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    polling = poll(api, path, job_id)
    await api.wait_for_long_poll()
    for _ in range(20):
        await api.submit("echo")
        await turns()
    assert len(lookups) == 1
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    reply = await polling
    assert reply.status == 200
    assert b"cancelled" in reply.body or b"JobCancelled" in reply.body or reply.json["end"]
    assert len(lookups) == 2


@pytest.mark.parametrize(("wait_s", "closed"), [(0, False), (20, True)])
async def test_a_poll_that_may_not_wait_looks_once_however_long_that_takes(
    client: Connect, monkeypatch: pytest.MonkeyPatch, wait_s: int, closed: bool
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    read_job = api.service.log.read_job

    async def read_late(*arguments: Any) -> Any:
        await turns()
        return await read_job(*arguments)

    monkeypatch.setattr(api.service.log, "read_job", read_late)
    if closed:
        api.listening._runner.app[APP_CONTEXT].long_polls.close()
    reply = await api.get(f"/v1/jobs/{job_id}/events?after=0&wait={wait_s}")
    assert [each["type"] for each in reply.json["events"]] == ["JobSubmitted"]
    reply = await api.get(f"/v1/jobs/{job_id}/events?after=1&wait={wait_s}")
    assert (reply.status, reply.json["events"]) == (200, [])


async def test_an_event_of_another_during_a_lookup_causes_no_other_one(
    client: Connect, lookups: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    read_job = api.service.log.read_job

    async def slowly(*arguments: Any) -> Any:
        events = await read_job(*arguments)
        await api.service.submit("echo")
        return events

    monkeypatch.setattr(api.service.log, "read_job", slowly)
    polling = poll(api, "/v1/jobs/{job}/events?after=1&wait=20", job_id)
    await api.wait_for_long_poll()
    monkeypatch.undo()
    await turns()
    assert not polling.done()
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    assert len((await polling).json["events"]) == 1


async def test_the_position_after_a_poll_in_vain_is_past_the_events_of_others(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    polling = asyncio.create_task(api.get("/v1/events?type=fail&wait=3"))
    await api.wait_for_long_poll()
    for _ in range(3):
        await api.submit("echo")
    await until(lambda: api.listening.context.streams._events.broadcaster.position == 3)

    async def answer() -> Any:
        return await polling

    page = (await time_passing(clock, answer(), 1.0)).json
    assert (page["events"], page["next"]) == ([], 3)


@pytest.mark.parametrize("path", POLLS)
@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_poll_whose_client_has_left_is_dropped(
    client: Connect, lookups: list[None], monkeypatch: pytest.MonkeyPatch, path: str, how: str
) -> None:
    monkeypatch.setattr(held_requests, "PROBE_S", 0.02)
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    wanted = b'Prefer: wait=20\r\nIf-None-Match: "1"\r\n' if path == POLLS[0] else b""
    writer.write(b"GET %b HTTP/1.1\r\n%b%b" % (path.format(job=job_id).encode(), wanted, HOST))
    await api.wait_for_long_poll()
    polls = api.listening.context.long_polls
    assert len(polls) == 1
    if how == "reset":
        connected: socket.socket = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: len(polls) == 0)
    await until(lambda: len(api.listening.connections) == 1)  # the one of *submit*
    assert len(lookups) == 1, "a poll that is dropped looks at nothing more"
    assert not await reader.read()


async def test_a_client_that_ended_its_side_is_answered_after_interim_responses(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_requests, "PROBE_S", 0.02)
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    sent = f"GET /v1/jobs/{job_id}/events?after=1&wait=20 HTTP/1.1\r\n".encode() + HOST
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(sent)
    writer.write_eof()
    for _ in range(2):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 102 Processing\r\n\r\n"
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"JobCancelled" in answer
    writer.close()


async def test_a_client_of_http_1_0_gets_no_interim_response(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_requests, "PROBE_S", 0.01)
    api = await client(*HANDLERS, concurrency=0)
    job_id = await submit_polled(api)
    sent = f"GET /v1/jobs/{job_id}/events?after=1&wait=0.2 HTTP/1.0\r\n".encode() + HOST
    assert (await half_closed(api.listening, sent)).startswith(b"HTTP/1.0 200 ")


async def test_polls_that_begin_at_one_moment_read_no_job_that_a_poll_has_seen(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS)
    first = asyncio.create_task(api.get("/v1/events?type=fail&wait=20"))
    await api.wait_for_long_poll()
    job = await api.service.submit("echo")
    await api.service.wait(job.job_id)
    end = api.service.log.head
    await until(lambda: api.listening.context.streams._events.broadcaster.position == end)
    reads: list[str] = []
    read_job = api.service.log.read_job

    async def read_and_note(job_id: str, *arguments: Any) -> Any:
        reads.append(job_id)
        return await read_job(job_id, *arguments)

    monkeypatch.setattr(api.service.log, "read_job", read_and_note)
    path = f"/v1/events?after={end - 1}&type=fail"
    for reply in await asyncio.gather(*(api.get(path) for _ in range(5))):
        assert (reply.json["events"], reply.json["next"]) == ([], end)
    assert not reads
    first.cancel()

"""Polling: what is requested when, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from eventjobs import Service
from eventjobs.client import ApiError, Client, Unreachable, WrongAddress, poll
from eventjobs.clock import SystemClock, Timer
from tests.support.clock import FakeClock

PATH = "/api/job-status/job_1"
RUNNING = {"status": "running"}


class Script:
    """A server with one response after another; the last one is repeated. None never comes."""

    def __init__(self, *replies: int | dict[str, Any] | None, retry_after: str = "0") -> None:
        self.replies = list(replies)
        self.retry_after = retry_after
        self.requests = 0
        self.requested = asyncio.Event()
        self.tokens: list[str | None] = []

    async def respond(self, request: web.Request) -> web.Response:
        reply = self.replies[min(self.requests, len(self.replies) - 1)]
        self.requests += 1
        self.requested.set()
        self.tokens.append(request.headers.get("Authorization"))
        if reply is None:
            await asyncio.Event().wait()
        if isinstance(reply, int):
            headers = {"Retry-After": self.retry_after}
            return web.json_response({"detail": "no"}, status=reply, headers=headers)
        return web.json_response(reply)


@asynccontextmanager
async def connect_to(script: Script, **options: Any) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_get(PATH, script.respond)
    async with (
        TestServer(app, shutdown_timeout=0) as server,
        Client(str(server.make_url("/")), **options) as client,
    ):
        yield client


class RecordingClock(FakeClock):
    """Time passes at once: each delay is recorded and over."""

    def __init__(self, *, longest_s: float = 100.0) -> None:
        super().__init__()
        self.delays: list[float] = []
        self.longest_s = longest_s

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        if delay_s in (10.0, 600.0):  # deadlines
            return super().call_later(delay_s, callback)
        self.delays.append(delay_s)
        return super().call_later(0, callback)


async def test_a_job_is_requested_after_1_2_4_8_and_15_s_until_it_has_ended() -> None:
    script = Script(*[RUNNING] * 7, {"status": "completed", "progress": 1})
    clock, seen = RecordingClock(), list[Any]()
    async with connect_to(script, clock=clock) as client:
        job = await client.poll(PATH, on_status=lambda job: seen.append(job["status"]))
    assert job == {"status": "completed", "progress": 1}
    assert clock.delays == [1, 2, 4, 8, 15, 15, 15]
    assert seen == ["running"] * 7 + ["completed"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_it_stops_at_each_status_that_is_final(status: str) -> None:
    script = Script({"status": status})
    async with connect_to(script, token="secret") as client:
        assert (await client.poll(PATH))["status"] == status
    assert script.requests == 1
    assert script.tokens == ["Bearer secret"]


async def test_every_two_seconds_is_a_schedule() -> None:
    script = Script(*[RUNNING] * 3, {"status": "failed"})
    clock = RecordingClock()
    async with connect_to(script, clock=clock) as client:
        await client.poll(PATH, delays_s=[2])
    assert clock.delays == [2, 2, 2]


@pytest.mark.parametrize("reply", [500, 503, 429])
async def test_a_busy_or_broken_server_is_asked_six_times(reply: int) -> None:
    script, clock = Script(reply), RecordingClock()
    async with connect_to(script, clock=clock) as client:
        with pytest.raises(ApiError) as refused:
            await client.poll(PATH)
    assert refused.value.status == reply
    assert clock.delays == [2, 4, 8, 16, 32]


async def test_after_a_response_the_failures_are_counted_anew() -> None:
    script, clock = Script(500, 500, RUNNING, 500, {"status": "completed"}), RecordingClock()
    async with connect_to(script, clock=clock) as client:
        await client.poll(PATH)
    assert clock.delays == [2, 4, 1, 2]


async def test_a_server_may_ask_for_a_longer_wait() -> None:
    script, clock = Script(503, {"status": "completed"}, retry_after="60"), RecordingClock()
    async with connect_to(script, clock=clock) as client:
        await client.poll(PATH)
    assert clock.delays == [60]


@pytest.mark.parametrize("reply", [400, 401, 403, 404, 410])
async def test_a_refusal_is_final(reply: int) -> None:
    script = Script(reply)
    async with connect_to(script) as client:
        with pytest.raises(ApiError) as refused:
            await client.poll(PATH)
    assert (refused.value.status, script.requests) == (reply, 1)


async def test_what_is_no_job_is_refused() -> None:
    async with connect_to(Script(RUNNING)) as client:
        with pytest.raises(ApiError):
            await client.poll("/other")

        async def page(request: web.Request) -> web.Response:
            return web.Response(text="<html>", content_type="text/html")

        app = web.Application()
        app.router.add_get(PATH, page)
        async with TestServer(app) as server, Client(str(server.make_url("/"))) as other:
            with pytest.raises(WrongAddress):
                await other.poll(PATH)


async def test_a_request_without_a_response_ends_after_ten_seconds(clock: FakeClock) -> None:
    script = Script(None, {"status": "completed"})
    async with connect_to(script, clock=clock) as client:
        task = asyncio.create_task(client.poll(PATH))
        await script.requested.wait()
        await clock.advance(9.9)
        assert script.requests == 1
        await clock.advance(0.2)
        await clock.advance(2)
        assert (await task)["status"] == "completed"


async def test_a_job_that_never_ends_is_given_up(clock: FakeClock) -> None:
    script = Script(RUNNING)
    async with connect_to(script, clock=clock) as client:
        task = asyncio.create_task(client.poll(PATH, delays_s=[1000]))
        await script.requested.wait()
        await clock.advance(599)
        assert not task.done()
        await clock.advance(1)
        with pytest.raises(TimeoutError, match="Job polling timeout"):
            await task


async def test_a_server_that_is_away_is_tried_again() -> None:
    clock = RecordingClock()
    async with Client("http://127.0.0.1:1", clock=clock) as client:
        with pytest.raises(Unreachable):
            await client.poll(PATH)
    assert clock.delays == [2, 4, 8, 16, 32]


async def test_a_stream_shows_the_end_before_the_next_request_is_due(
    client: Client, service: Service
) -> None:
    class Delays(SystemClock):
        def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
            assert delay_s >= 10, "the stream was not there"
            return super().call_later(delay_s, callback)

    async with Client(client.url, clock=Delays()) as watching:
        job_id = (await client.submit("for ever"))["job_id"]
        seen = asyncio.Event()
        polling = watching.poll(
            f"/v1/jobs/{job_id}", on_status=lambda job: seen.set(), delays_s=[60]
        )
        task = asyncio.create_task(polling)
        await seen.wait()
        await client.cancel(job_id)
        assert (await task)["status"] == "cancelled"


async def test_a_script_needs_no_event_loop(client: Client) -> None:
    job_id = (await client.submit("echo", 7))["job_id"]
    url = f"{client.url}/v1/jobs/{job_id}"
    job = await asyncio.to_thread(poll, url, delays_s=[0.01], stream=False)
    assert (job["status"], job["result"]) == ("completed", 7)

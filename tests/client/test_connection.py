"""Connections that break and services that are busy: nothing is lost, nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from eventjobs import Context, Service, handler
from eventjobs.client import ApiError, Client, ConnectionLost, LogChanged
from eventjobs.clock import SystemClock, Timer
from eventjobs.http import serve
from tests.support.external_service import http_server


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    context.progress(1, 2, stage="echoing")
    return payload


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@asynccontextmanager
async def cutting(port: int, after_bytes: int) -> AsyncIterator[int]:
    """The port of a proxy to *port* that breaks each connection after so many bytes of response."""

    tasks = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", port)
        try:
            here.write(await reader.readuntil(b"\r\n\r\n"))
            left = after_bytes
            while left > 0 and (block := await there.read(left)):
                writer.write(block)
                left -= len(block)
            await writer.drain()
        finally:
            for each in (writer, here):
                each.close()
                await each.wait_closed()

    def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(relay(reader, writer)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("after_bytes", [700, 1500, 5000])
async def test_facts_are_complete_however_often_the_connection_breaks(
    tmp_path: Path, after_bytes: int
) -> None:
    service = Service(tmp_path / "data", [echo])
    await service.start()
    listening = await serve(service, "127.0.0.1", 0)
    ids = [(await service.submit("echo", number)).job_id for number in range(20)]
    await asyncio.gather(*map(service.wait, ids))
    async with (
        cutting(listening.port, after_bytes) as port,
        Client(f"http://127.0.0.1:{port}", clock=Hasty()) as client,
    ):
        events = [event async for event in client.events(ids)]
    recorded = await service.log.read(0, 1000)
    assert events == [orjson.loads(each.json()) for each in recorded]
    await listening.close()
    await service.close()


class Hasty(SystemClock):
    """A clock that records every delay, and does not wait."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        self.delays.append(delay_s)
        return asyncio.get_running_loop().call_soon(callback)


#: At the end of an answer: the connection breaks, or stays open without a byte.
BROKEN = b"..."
QUIET = b": quiet\n"


class Scripted:
    """Answers each request with the next of *answers*, and records the requests.

    An answer is a stream's bytes, a response, or None, which breaks the connection.
    """

    def __init__(self, *answers: bytes | web.Response | None) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        cursor = request.headers.get("Last-Event-ID")
        self.requests.append((request.method, request.path, cursor, await request.read()))
        answer = self.answers.pop(0)
        if isinstance(answer, web.Response):
            return answer
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(answer)
        if answer.endswith(BROKEN):
            assert request.transport is not None
            request.transport.close()
        if answer.endswith(QUIET):
            await self.over.wait()
        return response

    @property
    def cursors(self) -> list[str | None]:
        return [cursor for _, _, cursor, _ in self.requests]


@asynccontextmanager
async def script_server(
    *answers: bytes | web.Response | None, **options: Any
) -> AsyncIterator[tuple[Scripted, Client, Hasty]]:
    script, clock = Scripted(*answers), Hasty()
    async with http_server(script.answer) as port:
        try:
            async with Client(f"http://127.0.0.1:{port}", clock=clock, **options) as client:
                yield script, client, clock
        finally:
            script.over.set()
    assert script.answers == []


def fact(position: int) -> bytes:
    return b'id: %d\nevent: event\ndata: {"position":%d}\n\n' % (position, position)


def problem(status: int, code: str, **headers: str) -> web.Response:
    body = orjson.dumps({"status": status, "code": code, "detail": "no"})
    headers["Content-Type"] = "application/problem+json"
    return web.Response(status=status, body=body, headers=headers)


async def test_a_stream_goes_on_after_its_last_whole_event() -> None:
    script: tuple[bytes | web.Response, ...] = (
        fact(1) + fact(2) + b'id: 3\nevent: event\ndata: {"position":3}\n' + BROKEN,
        b": heartbeat\nid: 7\n\n",
        fact(9),
        web.Response(status=204),
    )
    async with script_server(*script) as (server, client, _):
        read = [event["position"] async for event in client.events("x")]
    assert read == [1, 2, 9]
    assert server.cursors == [None, "2", "7", "9"]


async def test_a_fact_that_comes_again_is_told_once() -> None:
    async with script_server(fact(1) + fact(2), fact(2) + fact(3), web.Response(status=204)) as (
        _,
        client,
        _,
    ):
        assert [event["position"] async for event in client.events()] == [1, 2, 3]


async def test_a_stream_that_says_it_has_ended_is_not_asked_again() -> None:
    end = b'event: end\ndata: {"reason":"finished"}\n\n'
    async with script_server(fact(1) + end + fact(2)) as (_, client, _):
        assert [event["position"] async for event in client.events()] == [1]


async def test_reconnecting_waits_as_told_and_longer_each_time() -> None:
    lost: list[float] = []
    busy = [problem(503, "overloaded") for _ in range(6)]
    facts = (fact(1), fact(2), web.Response(status=204))
    script: tuple[bytes | web.Response, ...] = (b"retry: 4000\n\n", *busy, *facts)
    async with script_server(*script, on_connection_lost=lost.append) as (_, client, clock):
        assert [event["position"] async for event in client.events()] == [1, 2]
    assert clock.delays == lost
    expected = [4, 8, 16, 30, 30, 30, 30, 4, 4]
    for delay_s, least_s in zip(lost, expected, strict=True):
        assert least_s <= delay_s <= least_s * 1.5


async def test_a_stream_that_falls_silent_counts_as_broken() -> None:
    script = (fact(1) + QUIET, fact(2) + QUIET, web.Response(status=204))
    async with script_server(*script, silence_s=0.05) as (server, client, _):
        assert [event["position"] async for event in client.events()] == [1, 2]
    assert server.cursors == [None, "1", "2"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_ends_a_stream(status: int) -> None:
    async with script_server(fact(1), problem(status, "because")) as (_, client, _):
        events = client.events()
        assert (await anext(events))["position"] == 1
        with pytest.raises(ApiError) as refused:
            await anext(events)
    assert (refused.value.status, refused.value.code) == (status, "because")


async def test_what_is_no_stream_is_refused() -> None:
    page = web.Response(text="<html>", content_type="text/html")
    async with script_server(page) as (_, client, _):
        with pytest.raises(ApiError) as refused:
            await anext(client.events())
    assert refused.value.code == "not_a_stream"


async def test_a_log_that_changed_ends_facts_but_not_snapshots() -> None:
    reset = b'event: reset\ndata: {"head":1}\n\n'
    async with script_server(reset + fact(1)) as (_, client, _):
        with pytest.raises(LogChanged):
            await anext(client.events(after=9))
    job = b'id: 1\nevent: job\ndata: {"status":"completed"}\n\n'
    async with script_server(reset + job) as (_, client, _):
        assert await anext(client.watch("x", after=9)) == {"status": "completed"}


# --- requests that were not answered


async def test_a_submission_whose_answer_was_lost_is_sent_again_as_the_same_job() -> None:
    accepted = web.json_response({"job_id": "x"}, status=200)
    async with script_server(None, None, accepted) as (server, client, _):
        assert await client.submit("echo", {"a": 1}) == {"job_id": "x"}
    assert len(set(server.requests)) == 1
    method, path, _, body = server.requests[0]
    assert (method, path[:9]) == ("PUT", "/v1/jobs/")
    assert orjson.loads(body) == {"type": "echo", "payload": {"a": 1}}


async def test_what_repeating_would_change_is_not_sent_again() -> None:
    async with script_server(None, None) as (_, client, _):
        with pytest.raises(ConnectionLost):
            await client.retry("x")
        with pytest.raises(ConnectionLost):
            await client.submit("echo", delay_s=5)


async def test_an_overloaded_service_is_asked_again_when_it_says() -> None:
    busy = problem(503, "overloaded", **{"Retry-After": "7"})
    done = web.json_response({"job_id": "x"})
    async with script_server(busy, done) as (_, client, clock):
        assert await client.retry("x") == {"job_id": "x"}
    assert clock.delays == [7.0]


async def test_asking_again_has_an_end() -> None:
    async with script_server(*(problem(503, "disk_full") for _ in range(5))) as (_, client, _):
        with pytest.raises(ApiError) as refused:
            await client.get("x")
    assert refused.value.code == "disk_full"


async def test_an_upload_that_broke_is_sent_again_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 600_000)
    stored = web.json_response({"sha256": "s", "size": 600_000}, status=201)
    async with script_server(None, stored) as (server, client, _):
        assert await client.upload(file) == "s"
    assert [len(body) for _, _, _, body in server.requests] == [600_000, 600_000]


async def test_a_download_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    async with script_server(b"half of it" + BROKEN) as (_, client, _):
        with pytest.raises(ConnectionLost):
            await client.download("x", "file", tmp_path / "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_names_are_told_as_they_are(tmp_path: Path) -> None:
    async with script_server(b"it") as (server, client, _):
        await client.download("x", "a b+(1)/../%2e.txt", tmp_path / "file")
    assert server.requests[0][1] == "/v1/jobs/x/artifacts/a b+(1)/../%2e.txt"

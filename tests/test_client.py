"""The client asks a real service; where connections have to break, a scripted server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from eventjobs import Context, JobError, Service, Settings, handler
from eventjobs.client import Client, ConnectionLost, LogChanged, Problem, Unreachable
from eventjobs.clock import SystemClock, Timer
from eventjobs.errors import InvalidInput
from eventjobs.http import serve


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    context.progress(1, 2, stage="echoing")
    return payload


@handler("sizes")
async def sizes(context: Context, payload: Any) -> Any:
    for each in context.spec.artifacts:
        content = await asyncio.to_thread(context.input(each.name).read_bytes)
        await context.artifact(f"copy of {each.name}", content)
    return {each.name: each.size for each in context.spec.artifacts}


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise JobError("broken", "it does not work")


@handler("for ever")
async def for_ever(context: Context, payload: Any) -> None:
    context.progress(stage="waiting")
    await asyncio.Event().wait()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = Settings(progress_interval_s=0.0, drain_s=0.0, page_max=5)
    handlers = [echo, sizes, fail, for_ever]
    async with Service(tmp_path / "data", handlers, settings=settings) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    listening = await serve(service, "127.0.0.1", 0)
    try:
        async with Client(f"http://127.0.0.1:{listening.port}/") as client:
            yield client
    finally:
        await listening.close()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# --- commands and questions


async def test_a_job_that_was_submitted_is_waited_for(client: Client) -> None:
    job = await client.submit("echo", {"a": [1, 2.5, None]}, tags=["x"], priority=2)
    assert job["status"] == "queued"
    job = await client.wait(job["job_id"])
    assert (job["status"], job["result"]) == ("completed", {"a": [1, 2.5, None]})
    assert (job["tags"], job["priority"]) == (["x"], 2)
    assert await client.wait(job["job_id"]) == job
    assert await client.get(job["job_id"]) == job


async def test_files_are_uploaded_with_a_submission_and_results_downloaded(
    client: Client, tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(range(256)) * 4096)
    sha256 = await client.upload(b"known")
    given: dict[str, Path | bytes | str] = {"big.bin": big, "small": b"xyz", "known": sha256}
    job = await client.submit("sizes", artifacts=given)
    job = await client.wait(job["job_id"])
    assert job["result"] == {"big.bin": 2**20, "small": 3, "known": 5}
    for name, there in (("copy of big.bin", big.read_bytes()), ("copy of small", b"xyz")):
        size = await client.download(job["job_id"], name, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == there
        assert size == len(there)


async def test_what_is_missing_is_not_downloaded_over_what_is_there(
    client: Client, tmp_path: Path
) -> None:
    job = await client.submit("echo")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(Problem) as refused:
        await client.download(job["job_id"], "no such file", tmp_path / "file")
    assert (refused.value.status, refused.value.code) == (404, "artifact_not_found")
    assert "file.part" not in names(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_one_key_is_one_job(client: Client) -> None:
    first = await client.submit("echo", 1, idempotency_key='a "key" \\')
    again = await client.submit("echo", 1, idempotency_key='a "key" \\')
    assert first["job_id"] == again["job_id"]
    with pytest.raises(Problem) as refused:
        await client.submit("echo", 2, idempotency_key='a "key" \\')
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")
    with pytest.raises(InvalidInput):
        await client.submit("echo", 2, idempotency_key="a\r\nX-Header: b")


async def test_a_refusal_names_the_fields(client: Client) -> None:
    with pytest.raises(Problem) as refused:
        await client.submit("echo", priority="high", colour="red")
    assert refused.value.code == "invalid_input"
    assert {each["field"] for each in refused.value.errors} == {"priority", "colour"}
    assert refused.value.request_id
    with pytest.raises(Problem) as refused:
        await client.get("00000000-0000-4000-8000-000000000000")
    assert (refused.value.status, refused.value.code) == (404, "job_not_found")


async def test_what_json_cannot_hold_is_not_sent(client: Client) -> None:
    for value in (float("nan"), 2**70, object()):
        with pytest.raises(InvalidInput, match="JSON"):
            await client.submit("echo", {"a": value})


async def test_a_delay_is_a_time_of_the_service(client: Client) -> None:
    job = await client.submit("echo", delay_s=3600)
    assert (job["status"], job["run_at"] > job["created_at"]) == ("queued", True)


async def test_jobs_are_listed_page_by_page(client: Client) -> None:
    ids = [(await client.submit("echo", tags=["listed"]))["job_id"] for _ in range(12)]
    await client.submit("fail")
    jobs = [job async for job in client.list(type=["echo", "sizes"], order="oldest", limit=5)]
    assert [job["job_id"] for job in jobs] == ids
    page = await client.page(id=ids[:3], limit=2)
    assert [job["job_id"] for job in page["jobs"]] == [ids[2], ids[1]]
    assert page["next"]
    await asyncio.gather(*map(client.wait, ids))
    assert (await client.counts())["echo"] == {"completed": 12}


async def test_a_job_is_cancelled_retried_and_deleted(client: Client) -> None:
    job_id = (await client.submit("for ever"))["job_id"]
    async for job in client.watch(job_id):
        if job["stage"] == "waiting":
            break
    assert (await client.cancel(job_id, "enough"))["cancel_requested_at"]
    assert (await client.wait(job_id))["status"] == "cancelled"
    assert (await client.retry(job_id))["status"] in ("queued", "running")
    await client.cancel(job_id)
    await client.wait(job_id)
    told = await client.history(job_id)
    assert "asked to stop: enough" in [each["text"] for each in told["entries"]]
    assert await client.delete(job_id) is None
    with pytest.raises(Problem) as refused:
        await client.wait(job_id)
    assert refused.value.code == "job_gone"


async def test_where_nobody_listens_is_told_at_once(unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(Unreachable):
            await client.submit("echo")
        with pytest.raises(Unreachable):
            await client.wait("00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://[::"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        Client(url)


async def test_a_session_that_was_given_is_left_open() -> None:
    async with aiohttp.ClientSession() as session:
        async with Client(session=session):
            pass
        assert not session.closed


# --- streams


async def test_facts_come_once_in_order_and_end_with_the_job(
    client: Client, service: Service
) -> None:
    job_id = (await client.submit("echo", 1))["job_id"]
    events = [event async for event in client.events(job_id)]
    recorded = [orjson.loads(each.json()) for each in await service.log.read_job(job_id)]
    assert events == recorded
    last = events[-1]["position"]
    assert [e async for e in client.events(job_id, after=events[1]["position"])] == recorded[2:]
    assert [e async for e in client.events(job_id, after=last)] == []
    assert [e async for e in client.events([], after=last)] == []


async def test_all_facts_up_to_now_are_read_in_pages(client: Client, service: Service) -> None:
    jobs = [await client.submit("echo", number) for number in range(6)]
    await asyncio.gather(*(client.wait(job["job_id"]) for job in jobs))
    positions = [event["position"] async for event in client.events(follow=False)]
    assert positions == list(range(1, service.log.head + 1))
    ids = [job["job_id"] for job in jobs[:2]]
    told = [event["job_id"] async for event in client.events(ids, follow=False)]
    assert set(told) == set(ids)
    one = [event["version"] async for event in client.events(ids[0], follow=False)]
    assert one == list(range(1, len(one) + 1))


async def test_a_position_that_the_log_has_not_reached_is_refused(client: Client) -> None:
    job_id = (await client.submit("echo"))["job_id"]
    await client.wait(job_id)
    with pytest.raises(LogChanged):
        await anext(client.events(after=1_000_000))


async def test_watching_several_jobs_ends_when_all_have_ended(client: Client) -> None:
    ids = [(await client.submit(type))["job_id"] for type in ("echo", "fail", "echo")]
    ended = {job["job_id"]: job["status"] async for job in client.watch(ids)}
    assert list(map(ended.get, ids)) == ["completed", "failed", "completed"]
    assert [job async for job in client.watch([])] == []


@asynccontextmanager
async def cutting(port: int, after_bytes: int) -> AsyncIterator[int]:
    """A way to *port* on which every connection breaks after so many bytes of answer."""

    tasks = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        tasks.append(asyncio.create_task(connected(reader, writer)))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("after_bytes", [700, 1500, 5000])
async def test_facts_are_complete_however_often_the_connection_breaks(
    service: Service, after_bytes: int
) -> None:
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


class Hasty(SystemClock):
    """Notes what is waited for, and does not wait."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        self.delays.append(delay_s)
        return asyncio.get_running_loop().call_soon(callback)


BROKEN = b"..."  # and then the connection breaks
QUIET = b": and then nothing\n"


class Scripted:
    """Answers each request with the next of *answers*: a stream's bytes, a response, or None,
    which breaks the connection. Keeps what was asked."""

    def __init__(self, *answers: bytes | web.Response | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str | None, bytes]] = []
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        cursor = request.headers.get("Last-Event-ID")
        self.asked.append((request.method, request.path, cursor, await request.read()))
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
        return [cursor for _, _, cursor, _ in self.asked]


@asynccontextmanager
async def scripted(
    *answers: bytes | web.Response | None, **options: Any
) -> AsyncIterator[tuple[Scripted, Client, Hasty]]:
    script, clock = Scripted(*answers), Hasty()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with Client(f"http://127.0.0.1:{site.port}", clock=clock, **options) as client:
            yield script, client, clock
    finally:
        script.over.set()
        await runner.cleanup()
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
    async with scripted(*script) as (server, client, _):
        told = [event["position"] async for event in client.events("x")]
    assert told == [1, 2, 9]
    assert server.cursors == [None, "2", "7", "9"]


async def test_a_fact_that_comes_again_is_told_once() -> None:
    async with scripted(fact(1) + fact(2), fact(2) + fact(3), web.Response(status=204)) as (
        _,
        client,
        _,
    ):
        assert [event["position"] async for event in client.events()] == [1, 2, 3]


async def test_a_stream_that_says_it_has_ended_is_not_asked_again() -> None:
    end = b'event: end\ndata: {"reason":"finished"}\n\n'
    async with scripted(fact(1) + end + fact(2)) as (_, client, _):
        assert [event["position"] async for event in client.events()] == [1]


async def test_reconnecting_waits_as_told_and_longer_each_time() -> None:
    lost: list[float] = []
    busy = [problem(503, "overloaded") for _ in range(6)]
    facts = (fact(1), fact(2), web.Response(status=204))
    async with scripted(b"retry: 4000\n\n", *busy, *facts, lost=lost.append) as (_, client, clock):
        assert [event["position"] async for event in client.events()] == [1, 2]
    assert clock.delays == lost
    expected = [4, 8, 16, 30, 30, 30, 30, 4, 4]
    for delay_s, least_s in zip(lost, expected, strict=True):
        assert least_s <= delay_s <= least_s * 1.5


async def test_a_stream_that_falls_silent_counts_as_broken() -> None:
    script = (fact(1) + QUIET, fact(2) + QUIET, web.Response(status=204))
    async with scripted(*script, silence_s=0.05) as (server, client, _):
        assert [event["position"] async for event in client.events()] == [1, 2]
    assert server.cursors == [None, "1", "2"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_ends_a_stream(status: int) -> None:
    async with scripted(fact(1), problem(status, "because")) as (_, client, _):
        events = client.events()
        assert (await anext(events))["position"] == 1
        with pytest.raises(Problem) as refused:
            await anext(events)
    assert (refused.value.status, refused.value.code) == (status, "because")


async def test_what_is_no_stream_is_refused() -> None:
    page = web.Response(text="<html>", content_type="text/html")
    async with scripted(page) as (_, client, _):
        with pytest.raises(Problem) as refused:
            await anext(client.events())
    assert refused.value.code == "not_a_stream"


async def test_a_log_that_changed_ends_facts_but_not_snapshots() -> None:
    reset = b'event: reset\ndata: {"head":1}\n\n'
    async with scripted(reset + fact(1)) as (_, client, _):
        with pytest.raises(LogChanged):
            await anext(client.events(after=9))
    job = b'id: 1\nevent: job\ndata: {"status":"completed"}\n\n'
    async with scripted(reset + job) as (_, client, _):
        assert await anext(client.watch("x", after=9)) == {"status": "completed"}


# --- requests that were not answered


async def test_a_submission_whose_answer_was_lost_is_sent_again_as_the_same_job() -> None:
    accepted = web.json_response({"job_id": "x"}, status=200)
    async with scripted(None, None, accepted) as (server, client, _):
        assert await client.submit("echo", {"a": 1}) == {"job_id": "x"}
    assert len(set(server.asked)) == 1
    method, path, _, body = server.asked[0]
    assert (method, path[:9]) == ("PUT", "/v1/jobs/")
    assert orjson.loads(body) == {"type": "echo", "payload": {"a": 1}}


async def test_what_repeating_would_change_is_not_sent_again() -> None:
    async with scripted(None, None) as (_, client, _):
        with pytest.raises(ConnectionLost):
            await client.retry("x")
        with pytest.raises(ConnectionLost):
            await client.submit("echo", delay_s=5)


async def test_an_overloaded_service_is_asked_again_when_it_says() -> None:
    busy = problem(503, "overloaded", **{"Retry-After": "7"})
    done = web.json_response({"job_id": "x"})
    async with scripted(busy, done) as (_, client, clock):
        assert await client.retry("x") == {"job_id": "x"}
    assert clock.delays == [7.0]


async def test_asking_again_has_an_end() -> None:
    async with scripted(*(problem(503, "disk_full") for _ in range(5))) as (_, client, _):
        with pytest.raises(Problem) as refused:
            await client.get("x")
    assert refused.value.code == "disk_full"


async def test_an_upload_that_broke_is_sent_again_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 600_000)
    stored = web.json_response({"sha256": "s", "size": 600_000}, status=201)
    async with scripted(None, stored) as (server, client, _):
        assert await client.upload(file) == "s"
    assert [len(body) for _, _, _, body in server.asked] == [600_000, 600_000]


async def test_a_download_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    async with scripted(b"half of it" + BROKEN) as (_, client, _):
        with pytest.raises(ConnectionLost):
            await client.download("x", "file", tmp_path / "file")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


async def test_names_are_told_as_they_are(tmp_path: Path) -> None:
    async with scripted(b"it") as (server, client, _):
        await client.download("x", "a b+(1)/../%2e.txt", tmp_path / "file")
    assert server.asked[0][1] == "/v1/jobs/x/artifacts/a b+(1)/../%2e.txt"

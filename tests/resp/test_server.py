"""The listener: hostile, slow and many clients, and its close."""

import asyncio
import subprocess

import pytest

from eventjobs.resp import server
from tests.conftest import Connect, program
from tests.support.clock import FakeClock
from tests.support.http_jobs import HANDLERS
from tests.support.resp import serving_redis
from tests.support.waiting import time_passing


async def test_pipelined_commands_are_answered_in_order(client: Connect) -> None:
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        redis = await site.connect()
        for number in range(2000):
            redis.send("PING", str(number))
        assert [await redis.reply() for _ in range(2000)] == [str(each) for each in range(2000)]


async def test_an_error_of_the_protocol_ends_the_connection_and_no_other(client: Connect) -> None:
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        redis, other = await site.connect(), await site.connect()
        redis.writer.write(b"*1\r\n+OK\r\n")
        assert (await redis.reader.read()).startswith(b"-ERR Protocol error: expected '$'")
        assert await other("PING") == "PONG"


async def test_a_line_of_text_is_a_command_and_http_ends_the_connection(client: Connect) -> None:
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        redis = await site.connect()
        redis.writer.write(b'ping "a b"\r\n')
        assert await redis.reply() == "a b"
        redis.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nPING\r\n")
        answer = await redis.reader.read()
        assert answer.count(b"-ERR ") == 2
        assert b"PONG" not in answer
        page = await site.connect()
        page.writer.write(b"POST / HTTP/1.1\r\n\r\nKEYS *\r\n")
        assert await page.reader.read() == b"-ERR this is not HTTP\r\n"


async def test_a_fault_of_one_command_is_logged_and_answered(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS)

    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(api.service.views, "counts", fail)
    async with serving_redis(api) as site:
        redis = await site.connect()
        assert await redis.error("LLEN", "data_jobs") == "ERR internal error; see the log"
        assert await redis("PING") == "PONG"


async def test_only_so_many_connections_are_open(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 2)
    api = await client(*HANDLERS)
    async with serving_redis(api) as site:
        first, second = await site.connect(), await site.connect()
        assert [await each("PING") for each in (first, second)] == ["PONG"] * 2
        third = await site.connect()
        assert await third.reader.read() == b"-ERR max number of clients reached\r\n"
        await first("QUIT")
        assert await first.is_closed()
        assert await (await site.connect())("PING") == "PONG"


@pytest.mark.parametrize(
    ("sent", "auth", "seconds"),
    [
        (b"", "off", server.IDLE_S),
        (b"", "required", 15.0),
        (b"*2\r\n$3\r\nGET\r\n$5\r\njo", "off", 15.0),
    ],
)
async def test_a_client_that_sends_too_slowly_is_disconnected(
    client: Connect, clock: FakeClock, sent: bytes, auth: str, seconds: float
) -> None:
    api = await client(*HANDLERS, clock=clock, auth=auth)
    async with serving_redis(api) as site:
        redis = await site.connect()
        redis.writer.write(b"QUIET\r\n" + sent)
        await redis.reader.readuntil(b"\r\n")
        await clock.advance(seconds - 1)
        assert not redis.reader.at_eof()
        await clock.advance(2)
        assert await redis.is_closed()


async def test_a_client_that_reads_nothing_is_disconnected(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock)
    async with serving_redis(api) as site:
        redis = await site.connect()
        redis.reader._transport.pause_reading()  # type: ignore[attr-defined]
        text = b"x" * 16_000
        for _ in range(2000):
            redis.send("PING", text)
        while not redis.writer.transport.is_closing():
            await clock.advance(5)


async def test_a_close_answers_what_was_begun(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS)
    begun, go_on = asyncio.Event(), asyncio.Event()
    views = api.service.views
    counts = views.counts

    async def count_later() -> dict[str, dict[str, int]]:
        begun.set()
        await go_on.wait()
        return await counts()

    monkeypatch.setattr(views, "counts", count_later)
    async with serving_redis(api) as site:
        idle, busy = await site.connect(), await site.connect()
        await idle("PING")
        busy.send("LLEN", "data_jobs")
        await begun.wait()
        closing = asyncio.create_task(site.listening.close())
        assert await idle.is_closed()
        go_on.set()
        assert await busy.reply() == 0
        assert await busy.is_closed()
        await closing


async def test_a_close_does_not_wait_for_ever(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS, clock=clock)
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(api.service.views, "counts", never)
    async with serving_redis(api) as site:
        redis = await site.connect()
        redis.send("LLEN", "data_jobs")
        await begun.wait()
        await time_passing(clock, site.listening.close())
        assert await redis.is_closed()


async def test_redis_cli_prints_what_is_printed(client: Connect) -> None:
    path = program("redis-cli")
    api = await client(*HANDLERS, concurrency=0, upload_type="echo")
    job = await api.submit("echo", 1)
    async with serving_redis(api) as site:

        async def redis_cli(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                path, "-p", str(site.listening.port), *arguments, stdout=subprocess.PIPE
            )
            out, _ = await process.communicate()
            return out.decode()

        assert await redis_cli("LLEN", "data_jobs") == "1\n"
        [key] = (await redis_cli("KEYS", "job:*")).split()
        assert '"status":"submitted"' in await redis_cli("GET", key)
        assert job["job_id"].replace("-", "") in key
        assert await redis_cli("GET", "job:job_abc123") == "\n"

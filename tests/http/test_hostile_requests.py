"""Each shape of the hostile corpus has its answers, and leaves nothing in the service.

eventjobs.tools.soak.hostile has the corpus, and the campaign that sends more than the shapes.
"""

import asyncio
import gc
import logging
import re
from pathlib import Path

import orjson
import pytest

from eventjobs.http.server import Listening
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.tools.soak.hostile import message_ends, message_syntax
from eventjobs.tools.soak.hostile.answers import Malformed, read_answers
from tests.conftest import Connect
from tests.support.http_client import connect_client, half_closed
from tests.support.http_jobs import echo
from tests.support.waiting import turns, until

SHAPES = message_ends.SHAPES | message_syntax.SHAPES


async def wait_until_idle(listening: Listening) -> None:
    """Return when no connection is open, and their tasks have ended."""
    await listening.connections.wait_closed(20)
    assert len(listening.connections) == 0
    await turns()


async def check_shapes(service: Service, listening: Listening) -> None:
    """Each shape has its statuses, and no request that was hidden in another one is carried out."""
    for name, shape in SHAPES.items():
        received = await half_closed(listening, shape.sent)
        answers = read_answers(received, heads=shape.sent.startswith(b"HEAD"))
        assert (name, [each.status for each in answers]) == (name, list(shape.statuses))
    for recorded in await service.log.read(0, 100_000):
        assert message_ends.MARK.encode() not in recorded.json()


async def test_every_shape_has_its_answers(
    client: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    api = await client(echo, concurrency=0)
    assert (await api.get("/healthz")).status == 200
    await api.session.close()
    await wait_until_idle(api.listening)
    tasks = len(asyncio.all_tasks())
    await check_shapes(api.service, api.listening)
    await wait_until_idle(api.listening)
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


async def test_a_refused_request_leaves_nothing_large_to_the_garbage_collector(
    client: Connect,
) -> None:
    """Frames of the parser's error held what was received: half a megabyte for each connection,
    until fifty thousand objects were garbage.
    """
    api = await client(echo, concurrency=0)
    gc.collect()
    gc.disable()
    try:
        for name in ("an extension that never ends", "a field that never ends", "100,000 fields"):
            await half_closed(api.listening, SHAPES[name].sent)
        await wait_until_idle(api.listening)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        held = {id(each): each for each in gc.get_referents(*gc.garbage)}
        sizes = [len(each) for each in held.values() if isinstance(each, bytes | bytearray | str)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert max(sizes, default=0) < 10_000


def test_every_shape_has_its_answers_on_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        settings = Settings(data=tmp_path / "data", concurrency=0)
        async with (
            Service(None, [echo], settings=settings) as service,
            connect_client(service) as api,
        ):
            await check_shapes(service, api.listening)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_the_request_after_an_upgrade_is_not_carried_out(client: Connect) -> None:
    """aiohttp drops the rest of the segment: a part of a request was taken for a whole one."""
    api = await client(echo, concurrency=0)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    upgrade = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
    hiding = message_ends.POST + b"Content-Length: %d\r\n\r\n" % len(message_ends.HIDDEN)
    writer.write(message_syntax.GET.replace(message_ends.CLOSE, upgrade) + hiding)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    writer.write(message_ends.HIDDEN)
    writer.write_eof()
    assert (await reader.read()).startswith(b'{"status":')
    writer.close()
    assert api.service.log.head == 0


# --- the strict reader of responses

FINE = b"HTTP/1.1 200 OK\r\nServer: eventjobs\r\nX-Content-Type-Options: nosniff\r\n"
FINE += b"X-Request-ID: a\r\n"
PROBLEM = orjson.dumps({"status": 404, "code": "not_found", "request_id": "a"})
REFUSED = (
    FINE.replace(b"200 OK", b"404 Not Found")
    + b"Content-Type: application/problem+json\r\n"
    + b"Content-Length: %d\r\n\r\n" % len(PROBLEM)
    + PROBLEM
)


def test_it_reads_responses_of_all_framings() -> None:
    chunked = FINE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    length = FINE + b"Content-Length: 2\r\n\r\nde"
    last = FINE + b"\r\nf"
    answers = read_answers(b"HTTP/1.1 100 Continue\r\n\r\n" + chunked + length + REFUSED + last)
    assert [each.body for each in answers] == [b"abc", b"de", PROBLEM, b"f"]
    head = FINE + b"Content-Length: 2\r\n\r\n"
    assert len(read_answers(head * 2, heads=True)) == 2


@pytest.mark.parametrize(
    ("received", "why"),
    [
        (b"OK\r\n\r\n", "no status line"),
        (FINE, "no status line"),
        (FINE + b"X: a\rb\r\n\r\n", "no header"),
        (FINE + b"X: a\x1bb\r\n\r\n", "no header"),
        (FINE + b"server: eventjobs\r\n\r\n", "a header twice"),
        (FINE + b"Content-Length: 3\r\n\r\nab", "fewer bytes than 3"),
        (FINE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "no size of a chunk"),
        (FINE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "no end of a chunk"),
        (FINE.replace(b"200 OK", b"500 Error") + b"\r\n", "a failure"),
        (FINE.replace(b"nosniff", b"sniff") + b"\r\n", "no nosniff"),
        (FINE.replace(b"eventjobs", b"aiohttp") + b"\r\n", "another server"),
        (FINE.replace(b"ID: a", b"ID: a b") + b"\r\n", "no request id"),
        (REFUSED.replace(b"problem+json", b"json"), "no problem"),
        (REFUSED.replace(b'"status":404', b'"status":405'), "another status in the problem"),
        (REFUSED.replace(b"ID: a", b"ID: b"), "another request id"),
        (REFUSED.replace(b"not_found", b"not-found"), "no code"),
    ],
)
def test_it_refuses_responses_that_are_not_as_documented(received: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=re.escape(why)):
        read_answers(received)

"""Connections, byte by byte: every request is answered with its status, and none hangs."""

import asyncio
import logging
import random
import resource
import socket
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs import Context, handler
from eventjobs.http import held_requests
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client, connect_client, half_closed
from tests.support.waiting import until

HOST = b"Host: 127.0.0.1\r\n"
CLOSE = HOST + b"Connection: close\r\n\r\n"
POST = b"POST /v1/jobs HTTP/1.1\r\nContent-Type: application/json\r\n"
BATCH = b"POST /v1/jobs/batch HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n"
ECHO = b'{"type":"echo"}'
LENGTH = b"Content-Length: %d\r\n" % len(ECHO)
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


def get(target: bytes, version: bytes = b"HTTP/1.1", headers: bytes = b"") -> bytes:
    return b"GET %s %s\r\n%s" % (target, version, headers + CLOSE)


#: A request, its status, and the code of the problem.
REQUESTS: dict[str, tuple[bytes, int, str | None]] = {
    # absolute-form, RFC 9112, 3.2.2
    "a host that is no name": (get(b"http://xn--/"), 400, "bad_host"),
    "a host with bytes that are no UTF-8": (get(b"http://\xff\xfe/"), 400, "bad_request"),
    "a host of another machine": (get(b"http://evil.example/healthz"), 421, "misdirected"),
    "a host that decodes to another one": (get(b"http://%ff%fe/"), 421, "misdirected"),
    "no host": (get(b"http:///healthz"), 400, "bad_request"),
    "a port too high": (get(b"http://127.0.0.1:99999/"), 400, "bad_request"),
    "a port that is no number": (get(b"http://127.0.0.1:http/"), 400, "bad_request"),
    "a zone of IPv6": (get(b"http://[::1%25lo]/healthz"), 400, "bad_host"),
    "half an address of IPv6": (get(b"http://[::1/healthz"), 400, "bad_request"),
    "an address of IPv6": (get(b"http://[::1]/healthz"), 200, None),
    "an address of IPv4": (get(b"http://127.0.0.1/healthz"), 200, None),
    "a user": (get(b"http://a:b@127.0.0.1/healthz"), 400, "bad_request"),
    "another scheme": (get(b"ftp://127.0.0.1/healthz"), 400, "bad_request"),
    # the other forms
    "all of the server": (b"OPTIONS * HTTP/1.1\r\n" + CLOSE, 404, "not_found"),
    "a tunnel": (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + CLOSE, 404, "not_found"),
    "a tunnel to nothing": (b"CONNECT xn--:80 HTTP/1.1\r\n" + CLOSE, 400, "bad_host"),
    # the header Host
    "an empty Host": (
        b"GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        421,
        "misdirected",
    ),
    "a Host that is no UTF-8": (
        b"GET /healthz HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n",
        400,
        "bad_host",
    ),
    "a Host with a port too high": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost:99999\r\nConnection: close\r\n\r\n",
        400,
        "bad_host",
    ),
    "a Host with a user": (
        b"GET /healthz HTTP/1.1\r\nHost: a@localhost\r\nConnection: close\r\n\r\n",
        400,
        "bad_host",
    ),
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "two Hosts": (get(b"/healthz", headers=HOST), 400, "bad_request"),
    # paths and queries that are not text
    "a path that is no UTF-8": (get(b"/v1/jobs/%ff%00"), 404, "job_not_found"),
    "a query that is no UTF-8": (get(b"/v1/jobs?tag=%ff%00"), 200, None),
    "a file's name with a null": (get(b"/v1/jobs/%00/artifacts/%00%ff"), 404, "job_not_found"),
    # versions
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200, None),
    "HTTP/2.0": (get(b"/healthz", b"HTTP/2.0"), 505, "http_version_not_supported"),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 505, "http_version_not_supported"),
    # expectations, RFC 9110, 10.1.1
    "an expectation that is no UTF-8": (
        get(b"/healthz", headers=b"Expect: \xff\r\n"),
        417,
        "expectation_failed",
    ),
    "an expectation at no address": (
        get(b"/nothing", headers=b"Expect: \xff\r\n"),
        417,
        "expectation_failed",
    ),
    "one expectation of two": (
        get(b"/healthz", headers=b"Expect: 100-continue\r\nExpect: more\r\n"),
        417,
        "expectation_failed",
    ),
    "an expectation of HTTP/1.0": (b"GET /healthz HTTP/1.0\r\nExpect: \xff\r\n\r\n", 200, None),
    # transfer codings, RFC 9112, 6.1 and 6.3
    "gzip in chunks": (
        POST + b"Transfer-Encoding: gzip, chunked\r\n" + CLOSE + b"0\r\n\r\n",
        501,
        "unknown_transfer_coding",
    ),
    "a coding of no name in chunks": (
        POST + b"Transfer-Encoding: \xff, chunked\r\n" + CLOSE + b"0\r\n\r\n",
        501,
        "unknown_transfer_coding",
    ),
    "gzip without an end": (POST + b"Transfer-Encoding: gzip\r\n" + CLOSE, 400, "bad_request"),
    "chunks and a length": (POST + CHUNKED + LENGTH + CLOSE + b"0\r\n\r\n", 400, "bad_request"),
    "chunks of HTTP/1.0": (
        POST.replace(b"1.1", b"1.0") + CHUNKED + CLOSE + b"0\r\n\r\n",
        400,
        "bad_request",
    ),
    "chunks by another case": (
        POST + b"Transfer-Encoding: CHUNKED\r\n" + CLOSE + b"f\r\n" + ECHO + b"\r\n0\r\n\r\n",
        202,
        None,
    ),
    # too long, RFC 6585, 5 and RFC 9112, 3
    "a long header": (
        get(b"/healthz", headers=b"Cookie: a=" + b"x" * 9000 + b"\r\n"),
        431,
        "headers_too_large",
    ),
    "a long name of a header": (
        get(b"/healthz", headers=b"x" * 9000 + b": a\r\n"),
        431,
        "headers_too_large",
    ),
    "many headers": (
        get(b"/healthz", headers=b"".join(b"x%d: a\r\n" % number for number in range(200))),
        431,
        "headers_too_large",
    ),
    "headers that never end": (
        get(b"/healthz", headers=b"Cookie: a=" + b"x" * 2_000_000 + b"\r\n"),
        431,
        "headers_too_large",
    ),
    "a long address": (get(b"/v1/jobs?tag=" + b"x" * 9000), 414, "uri_too_long"),
    "an address that never ends": (get(b"/" + b"x" * 2_000_000), 414, "uri_too_long"),
}


def read(answer: bytes) -> tuple[int, str | None]:
    """The status of an answer, and the code of a problem."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"Content-Type: application/problem+json" not in head:
        return status, None
    problem = orjson.loads(body)
    assert problem["status"] == status
    return status, problem["code"]


async def test_every_request_is_answered_as_the_rfcs_have_it(client: Connect) -> None:
    api = await client(echo)
    for name, (sent, status, code) in REQUESTS.items():
        assert (name, *read(await half_closed(api.listening, sent))) == (name, status, code)


async def test_what_is_too_long_says_the_limit(client: Connect) -> None:
    api = await client(echo)
    long = await api.raw(get(b"/healthz", headers=b"Cookie: a=" + b"x" * 9000 + b"\r\n"))
    assert b"a header field has at most 8192 bytes" in long
    assert b"an address" not in long
    assert b"has at most 8190 bytes" in await api.raw(get(b"/" + b"x" * 9000))
    fits = get(b"/healthz", headers=b"Cookie: a=" + b"x" * 8000 + b"\r\n")
    assert (await api.raw(fits)).startswith(b"HTTP/1.1 200 ")


LISTED = (
    b"Prefer",
    b"Accept",
    b"If-Match",
    b"If-None-Match",
    b"Idempotency-Key",
    b"Last-Event-ID",
    b"Content-Type",
    b"Content-Encoding",
    b"Authorization",
    b"Cookie",
    b"Range",
    b"If-Range",
    b"Forwarded",
    b"X-Request-ID",
    b"Origin",
    b"Connection",
    b"TE",
)


@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b'"\xe9"', b"q=\xa0;,=", b'"', b",,;;=", b"\xc3\xa9"]
)
async def test_no_header_makes_an_error_of_ours(client: Connect, value: bytes) -> None:
    api = await client(echo, concurrency=0)
    job = await api.submit("echo")
    here = job["links"]["self"].encode()
    for name in LISTED:
        extra = b"%s: %s\r\n" % (name, value)
        plain = b"" if name == b"Content-Type" else b"Content-Type: application/json\r\n"
        for line in (
            b"GET %s HTTP/1.1\r\n" % here,
            b"GET /v1/jobs HTTP/1.1\r\n",
            b"GET %s/artifacts/a HTTP/1.1\r\n" % here,
            b"POST /v1/jobs HTTP/1.1\r\n" + LENGTH + plain,
            b"POST %s/callback HTTP/1.1\r\n" % here + LENGTH + plain,
            b"POST /v1/artifacts HTTP/1.1\r\n" + LENGTH,
        ):
            status, _ = read(await api.raw(line + extra + CLOSE + ECHO))
            assert status < 500, (name, line)


async def test_random_bytes_are_answered_or_closed(client: Connect) -> None:
    """A request with a few bytes changed, left out or repeated."""
    api = await client(echo, concurrency=0)
    drawn = random.Random(7)
    seeds = [sent for sent, *_ in REQUESTS.values() if len(sent) < 1000]
    seeds.append(POST + LENGTH + CLOSE + ECHO)
    for _ in range(300):
        sent = bytearray(drawn.choice(seeds))
        for _ in range(drawn.randint(1, 4)):
            place = drawn.randrange(len(sent))
            match drawn.randrange(4):
                case 0:
                    sent[place] = drawn.randrange(256)
                case 1:
                    del sent[place]
                case 2:
                    sent[place:place] = drawn.choice([b"\r\n", b"\0", b"\xff", b":", b" ", b","])
                case _:
                    sent[place:place] = sent[max(0, place - 9) : place]
        answer = await half_closed(api.listening, bytes(sent))
        assert answer == b"" or int(answer.split()[1]) != 500, bytes(sent)


# --- half-closed: the client ends its side, and reads (aiohttp#3659)


async def test_a_client_that_ends_its_side_is_answered(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    answer = await half_closed(api.listening, POST + LENGTH + HOST + b"\r\n" + ECHO)
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "echo"


async def test_every_request_of_a_pipeline_is_answered_before_the_end(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    sent = POST + LENGTH + HOST + b"\r\n" + ECHO
    answers = await half_closed(
        api.listening, sent * 40 + b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    assert answers.count(b"HTTP/1.1 202 ") == 40
    assert answers.count(b"HTTP/1.1 200 ") == 1


async def test_a_long_poll_is_answered_to_a_client_that_ended_its_side(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    job = await api.submit("echo")
    here = job["links"]["self"]
    waits = f'GET {here} HTTP/1.1\r\nPrefer: wait=20\r\nIf-None-Match: "1"\r\n'.encode()
    polling = asyncio.create_task(half_closed(api.listening, waits + HOST + b"\r\n"))
    await api.wait_for_long_poll()
    await api("POST", f"{here}/cancel")
    assert (await polling).startswith(b"HTTP/1.1 200 ")


async def test_a_stream_goes_on_for_a_client_that_ended_its_side(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    job = await api.submit("echo")
    here = job["links"]["self"]
    sent = f"GET {here}/events HTTP/1.1\r\nAccept: text/event-stream\r\n".encode()
    streaming = asyncio.create_task(half_closed(api.listening, sent + HOST + b"\r\n"))
    await until(lambda: any(each.input_ended for each in api.listening.connections.held))
    await api("POST", f"{here}/cancel")
    answer = await streaming
    assert b"JobCancelled" in answer
    assert b"event: end" in answer


async def test_a_client_that_has_gone_does_not_keep_its_stream(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks like a client that still reads: only a failed write shows that it has gone."""
    monkeypatch.setattr(held_requests, "PROBE_S", 0.05)
    api = await client(echo, concurrency=0)
    job = await api.submit("echo")
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    here = job["links"]["self"]
    writer.write(f"GET {here} HTTP/1.1\r\nAccept: text/event-stream\r\n".encode() + HOST + b"\r\n")
    await reader.readuntil(b"event: job")
    assert len(api.listening.connections) == 2  # the other connection is of *submit*
    writer.close()
    await until(lambda: len(api.listening.connections) == 1)


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 50\r\n" + HOST + b"\r\n" + ECHO,
        POST + CHUNKED + HOST + b"\r\nf\r\n" + ECHO[:5],
        b"POST /v1/artifacts HTTP/1.1\r\nContent-Length: 50\r\n" + HOST + b"\r\n" + ECHO,
    ],
)
async def test_a_body_that_ends_early_is_refused_and_told(client: Connect, sent: bytes) -> None:
    api = await client(echo, concurrency=0)
    assert read(await half_closed(api.listening, sent)) == (400, "bad_request")
    assert api.service.log.head == 0


async def test_nothing_keeps_a_connection_on_which_nothing_was_asked(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    for sent in (b"", b"GET /healthz HTTP/1.1\r\nHos"):
        assert await half_closed(api.listening, sent) == b""


async def test_a_worker_that_ended_its_side_gets_no_job(client: Connect) -> None:
    """It may be dead: the job would wait until its lease expires."""
    api = await client(worker_types="far")
    await api.submit("far")
    asked = b'{"worker":"w","types":["far"],"max":1,"wait_s":0}'
    head = b"POST /v1/work/claim HTTP/1.1\r\nContent-Type: application/json\r\n"
    answer = await half_closed(
        api.listening, head + b"Content-Length: %d\r\n" % len(asked) + HOST + b"\r\n" + asked
    )
    assert answer.endswith(b'{"jobs":[]}')
    assert (await api("GET", "/v1/jobs?status=queued")).json["jobs"]


# --- a body that breaks


@pytest.mark.parametrize(
    "broken", [b"zz\r\n", b"1\r\n{XX", b"0\r\nX: " + b"y" * 9000 + b"\r\n\r\n"]
)
async def test_a_body_that_breaks_later_is_answered_at_once(client: Connect, broken: bytes) -> None:
    """aiohttp's parser does not end the body: its reader waited until the timeout."""
    api = await client(echo, concurrency=0)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(POST + b"Expect: 100-continue\r\n" + CHUNKED + HOST + b"\r\n1\r\n{\r\n")
    await reader.readuntil(b"100 Continue\r\n\r\n")
    writer.write(broken)
    assert read(await asyncio.wait_for(reader.read(), 20)) == (400, "bad_request")
    writer.close()


# --- slow clients


@pytest.mark.parametrize(
    "head",
    [
        POST + b"Content-Length: 1000\r\n",
        POST + CHUNKED,
        b"POST /v1/artifacts HTTP/1.1\r\nContent-Length: 1000\r\n",
        BATCH + b"Content-Length: 1000\r\n",
    ],
)
async def test_a_body_that_comes_too_slowly_is_given_up(
    client: Connect, clock: FakeClock, head: bytes
) -> None:
    """A byte now and then kept each pause short, and the connection open for ever."""
    api = await client(echo, clock=clock, concurrency=0, body_timeout_s=30)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(head + b"Expect: 100-continue\r\n" + CLOSE)
    await reader.readuntil(b"100 Continue\r\n\r\n")
    [connection] = api.listening.connections
    for number in range(1, 4):
        assert connection._request is not None
        content = connection._request.content
        writer.write(b"1\r\n{\r\n" if CHUNKED in head else b"{")
        await until(lambda: content.total_bytes == number)  # noqa: B023
        await clock.advance(25.0)
    answer = await asyncio.wait_for(reader.read(), 20)
    assert b'"code":"body_timeout"' in answer
    writer.close()
    assert api.service.log.head == 0


async def test_a_large_body_has_the_time_it_needs(client: Connect, clock: FakeClock) -> None:
    """A second more for each 64 KiB: a slow network is not a slow client."""
    api = await client(echo, clock=clock, body_timeout_s=30)
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    size = 40 * 131_072
    length = b"Content-Length: %d\r\n" % size
    writer.write(b"POST /v1/artifacts HTTP/1.1\r\nExpect: 100-continue\r\n" + length + CLOSE)
    await reader.readuntil(b"100 Continue\r\n\r\n")
    [connection] = api.listening.connections
    for number in range(1, 41):
        assert connection._request is not None
        content = connection._request.content
        writer.write(b"z" * 131_072)
        await until(lambda: content.total_bytes == number * 131_072)  # noqa: B023
        await clock.advance(2.5)
    assert read(await asyncio.wait_for(reader.read(), 20)) == (201, None)
    writer.close()


# --- descriptors


async def test_a_connection_that_takes_the_last_descriptors_is_answered_503(
    client: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    api = await client(echo)
    assert (await api.get("/healthz")).status == 200
    with socket.socket() as one:
        highest = one.fileno()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (highest + 2, highest + 2))
    for _ in range(5):
        head, _, body = (await api.raw(get(b"/healthz"))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1" in head
        assert orjson.loads(body)["code"] == "out_of_descriptors"
    monkeypatch.undo()
    assert (await api.raw(get(b"/healthz"))).startswith(b"HTTP/1.1 200 ")
    assert caplog.text.count("connections refused") == 1


async def test_a_request_that_finds_no_descriptor_is_answered_503(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(echo)

    def full(*arguments: Any) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("eventjobs.storage.artifacts.os.open", full)
    reply = await api("POST", "/v1/artifacts", data=b"a")
    assert (reply.status, reply.code) == (503, "out_of_descriptors")
    assert reply.headers["Retry-After"] == "1"


async def already_sent(api: Client, sent: bytes) -> bytes:
    """The response to a request that was sent before its connection was accepted."""
    with socket.create_connection((api.listening.host, api.listening.port)) as connection:
        connection.sendall(sent)
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            return await reader.read()
        finally:
            writer.close()


def test_all_of_it_holds_on_the_loop_that_the_server_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop reports the end of a connection and failed writes in other ways than asyncio."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        settings = Settings(data=tmp_path / "data", concurrency=0)
        async with (
            Service(None, [echo], settings=settings) as service,
            connect_client(service) as api,
        ):
            for name, (sent, status, code) in REQUESTS.items():
                assert (name, *read(await half_closed(api.listening, sent))) == (name, status, code)
            sent = POST + LENGTH + HOST + b"\r\n" + ECHO
            assert (await half_closed(api.listening, sent * 40)).count(b"HTTP/1.1 202 ") == 40
            assert read(await half_closed(api.listening, sent[:-1])) == (400, "bad_request")
            assert await half_closed(api.listening, b"") == b""
            monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
            for _ in range(5):
                assert read(await already_sent(api, get(b"/healthz")))[0] == 503
            monkeypatch.undo()
            assert read(await half_closed(api.listening, get(b"/healthz"))) == (200, None)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    errors = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert all(each.startswith(("connections refused", "request failed")) for each in errors)


# --- resets


async def test_a_reset_leaves_nothing(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    for sent in (b"", POST, POST + LENGTH + CLOSE + ECHO[:3], get(b"/v1/jobs")):
        _, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
        writer.write(sent)
        await writer.drain()
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await until(lambda: not api.listening.connections)

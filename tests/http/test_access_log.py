"""Each request has a line in the log: method, path, status, bytes and seconds."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from eventjobs import Context, handler
from eventjobs.errors import DiskFull
from eventjobs.http.app_context import AppContext
from tests.conftest import Connect
from tests.observability.test_logging import configuration, parse_lines
from tests.support.clock import FakeClock
from tests.support.log_lines import capture_logs


@handler("echo")
async def echo(ctx: Context, payload: Any) -> Any:
    return payload


async def line_of(asking: Callable[[], Any]) -> dict[str, Any]:
    """The only line of a request."""
    with capture_logs() as lines:
        await asking()
    [line] = [each for each in lines if each["event"].startswith("request")]
    assert line.pop("s") >= 0
    return dict(line)


async def test_a_served_request_is_a_debug_line_with_path_and_bytes(client: Connect) -> None:
    api = await client(echo)
    line = await line_of(lambda: api.get("/healthz?token=secret", X_Request_ID="mine"))
    assert line == {
        "event": "request",
        "log_level": "debug",
        "method": "GET",
        "path": "/healthz",
        "status": 200,
        "bytes": line["bytes"],
        "request_id": "mine",
        "client": "127.0.0.1",
    }


async def test_a_line_has_the_job_of_the_path_or_of_the_submission(client: Connect) -> None:
    api = await client(echo, concurrency=0)
    with capture_logs() as lines:
        job = await api.submit("echo")
        await api.get(f"/v1/jobs/{job['job_id']}/history")
        await api("POST", f"/v1/jobs/{job['job_id']}/cancel")
        await api.get("/v1/counts")
    requests = [each for each in lines if each["event"] == "request"]
    assert [each.get("job") for each in requests] == [job["job_id"]] * 3 + [None]
    assert {each.get("principal") for each in requests} == {"http"}


@pytest.mark.parametrize(
    ("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.7")]
)
async def test_a_line_has_the_client_as_trusted_proxies_name_it(
    client: Connect, trusted: str, address: str
) -> None:
    api = await client(echo, trusted_proxies=trusted)
    headers = {"X-Forwarded-For": "1.1.1.1, 203.0.113.7"}
    line = await line_of(lambda: api("GET", "/v1/counts", headers=headers))
    assert line["client"] == address
    away = b"GET http://x/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    line = await line_of(lambda: api.raw(away))
    assert (line["status"], line["client"]) == (421, address)
    line = await line_of(lambda: api.raw(b"BREW / HTTP/1.1\r\n X-Forwarded-For: x\r\n\r\n"))
    assert (line["status"], line["client"]) == (400, "127.0.0.1")


async def test_a_line_has_the_principal_also_where_it_may_not(client: Connect) -> None:
    api = await client(echo, auth="optional")
    line = await line_of(lambda: api.get("/v1/counts"))
    assert (line["status"], line["principal"]) == (401, "anonymous")
    line = await line_of(lambda: api.get("/v1/counts", Authorization="Bearer ej_key_x"))
    assert (line["status"], line["code"]) == (401, "invalid_credential")
    assert "principal" not in line


REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/jobs?key=secret", {"type": "secret"}, 422, "unknown_type"),
    ("POST", "/v1/jobs", b'{"secret', 400, "malformed_json"),
    ("GET", "/v1/jobs/00000000-0000-4000-8000-000000000000", None, 404, "job_not_found"),
    ("GET", "/v1/nothing", None, 404, "not_found"),
    ("DELETE", "/v1/jobs", None, 405, "method_not_allowed"),
    ("GET", "/v1/jobs?cursor=secret", None, 400, "bad_cursor"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REFUSED)
async def test_a_refused_request_has_its_code(
    client: Connect, method: str, path: str, body: Any, status: int, code: str
) -> None:
    """A missing job is ordinary; other refusals may be attempts to get in."""
    api = await client(echo)
    replies = []

    async def ask() -> None:
        replies.append(await api(method, path, body))

    line = await line_of(ask)
    level = "info" if status == 404 else "warning"
    assert (line["event"], line["log_level"]) == ("request refused", level)
    assert (line["method"], line["path"]) == (method, path.partition("?")[0])
    assert (line["status"], line["code"]) == (status, code)
    assert 0 < line["bytes"] - len(replies[0].body) < 1_000
    assert line["request_id"] == replies[0].headers["X-Request-ID"]
    assert "secret" not in str(line)


async def test_a_failed_request_is_an_error_with_its_code(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(echo)

    async def broken(site: AppContext) -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(api.service.views, "counts", broken)
    line = await line_of(lambda: api.get("/v1/counts"))
    assert (line["event"], line["log_level"]) == ("request failed", "error")
    assert (line["path"], line["status"], line["code"]) == ("/v1/counts", 500, "internal")


async def test_a_request_that_the_service_cannot_serve_now_is_a_warning(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(echo)

    async def full(*_: Any) -> None:
        raise DiskFull

    monkeypatch.setattr(api.service.views, "counts", full)
    line = await line_of(lambda: api.get("/v1/counts"))
    assert (line["event"], line["log_level"]) == ("request refused", "warning")
    assert (line["status"], line["code"]) == (507, "disk_full")


async def test_a_request_that_is_refused_before_any_route_has_a_line(client: Connect) -> None:
    api = await client(echo)
    line = await line_of(lambda: api.raw(b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert (line["event"], line["status"]) == ("request refused", 400)


async def test_a_stream_says_at_its_end_how_long_and_how_much(client: Connect) -> None:
    api = await client(echo)
    job = await api.submit("echo", 1)
    await api.service.wait(job["job_id"])
    got = []

    async def read() -> None:
        path = f"/v1/jobs/{job['job_id']}/events"
        got.append(await api.get(path, Accept="text/event-stream"))

    line = await line_of(read)
    assert (line["event"], line["stream"], line["status"]) == ("request", True, 200)
    assert 0 < line["bytes"] - len(got[0].body) < 1_000


async def test_a_long_poll_says_at_its_end_how_long_it_was(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(echo, wait_max_s=0.2)
    with capture_logs() as lines:
        await api.get(f"/v1/events?after={api.service.log.head}&wait=20")
    [line] = [each for each in lines if each["event"] == "request"]
    assert line["s"] >= 0.2


async def test_what_is_cut_off_has_a_line(client: Connect, clock: FakeClock) -> None:
    api = await client(echo, clock=clock, concurrency=0)
    stored = await api("POST", "/v1/artifacts", data=io.BytesIO(bytes(24 * 2**20)))
    job = await api.submit("echo", artifacts={"x": stored.json["sha256"]})
    path = job["artifacts"][0]["url"]

    async def ask() -> None:
        async with api.session.get(path) as response:
            for _ in range(300):
                await clock.advance(5)
            with pytest.raises(ClientPayloadError):
                await response.read()

    with capture_logs() as lines:
        await ask()
    [line] = lines
    assert (line["event"], line["path"], line["job"]) == ("request cut off", path, job["job_id"])
    assert (line["client"], line["principal"], line["s"] > 0) == ("127.0.0.1", "http", True)


async def test_a_stream_that_its_client_leaves_has_a_line(client: Connect) -> None:
    api = await client(echo, concurrency=0, heartbeat_s=0.05)
    job = await api.submit("echo")
    path = f"/v1/jobs/{job['job_id']}/events"
    with capture_logs() as lines:
        async with api.session.get(path, headers={"Accept": "text/event-stream"}) as response:
            await response.content.readline()
        while not lines:  # noqa: ASYNC110  a line of the log has no event
            await asyncio.sleep(0)
    [line] = lines
    assert line["event"] in ("request", "request cut off")
    assert (line["path"], line["job"]) == (path, job["job_id"])


@pytest.mark.parametrize("log_requests", ["failed", "all"])
async def test_requests_that_succeed_have_a_line_where_all_are_logged(
    client: Connect, log_requests: str
) -> None:
    """Otherwise such a request has no line, and a read uses the fast path."""
    stream = io.StringIO()
    with configuration(stream):
        api = await client(echo, log_requests=log_requests)
        job = await api.submit("echo", 1)
        await api.service.wait(job["job_id"])
        assert (await api.get(f"/v1/jobs/{job['job_id']}")).status == 200
        assert (await api.get("/v1/nothing")).status == 404
        lines = [each for each in parse_lines(stream) if each["logger"] == "eventjobs.http"]
    shown = [(each["event"], each["level"], each["status"]) for each in lines]
    refused = ("request refused", "info", 404)
    if log_requests == "failed":
        assert shown == [refused]
        return
    assert shown == [("request", "info", 202), ("request", "info", 200), refused]
    assert [each.get("job") for each in lines] == [job["job_id"], job["job_id"], None]

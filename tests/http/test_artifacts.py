"""Uploads, and downloads of jobs' artifacts."""

import asyncio
import hashlib
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import ArtifactStored
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_jobs import HANDLERS, ended_job
from tests.support.log_lines import capture_logs
from tests.support.waiting import time_passing

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

FILES = {
    "my file (1) +x.csv": ["a,b\n1,2\n", "text/csv"],
    "chart.svg": [SVG, "image/svg+xml"],
    "page.html": ["<script>alert(1)</script>", "text/html"],
    "odd": ["x", 'text/plain; charset=x\r\nX-Injected: "1"'],
    "empty": ["", "text/plain"],
}


async def test_an_upload_is_named_by_its_content_and_given_to_a_job(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0)
    content = bytes(range(256)) * 5000

    async def parts() -> Any:
        for begin in range(0, len(content), 100_000):
            yield content[begin : begin + 100_000]

    for data in (BytesIO(content), parts()):
        reply = await api("POST", "/v1/artifacts", data=data)
        assert reply.status == 201
        assert reply.json == {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
    job = await api.submit("echo", artifacts={"in put.bin": reply.json["sha256"]})
    [artifact] = job["artifacts"]
    assert (artifact["name"], artifact["size"]) == ("in put.bin", len(content))
    file = await api.get(artifact["url"].replace(" ", "%20"))
    assert (file.status, file.body) == (200, content)
    assert file.headers["Content-Type"] == "application/octet-stream"


async def test_an_upload_has_a_limit_and_has_to_move_on(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, artifact_bytes_max=10)
    assert (await api("POST", "/v1/artifacts", data=b"x" * 10)).status == 201
    reply = await api("POST", "/v1/artifacts", data=b"x" * 11)
    assert (reply.status, reply.code) == (413, "too_large")

    async def parts() -> Any:
        for _ in range(11):
            yield b"x"

    reply = await api("POST", "/v1/artifacts", data=parts())
    assert (reply.status, reply.code) == (413, "too_large")
    head = b"POST /v1/artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Length: 9\r\n\r\nx"
    answer = await time_passing(clock, api.raw(head), 10.0)
    assert answer.startswith(b"HTTP/1.1 408 ")
    encoded = {"Content-Encoding": "gzip"}
    reply = await api("POST", "/v1/artifacts", data=b"x", headers=encoded)
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_a_full_disk_is_told_as_that(small_disk: Path, client: Connect) -> None:
    api = await client(*HANDLERS, data=small_disk / "data")
    reply = await api("POST", "/v1/artifacts", data=BytesIO(b"x" * 4_000_000))
    assert (reply.status, reply.code) == (507, "disk_full")
    assert reply.headers["Retry-After"] == "10"


async def test_files_of_a_job_come_as_what_is_safe(client: Connect) -> None:
    api = await client(*HANDLERS)
    odd = {"odd": FILES["odd"]}
    refused = await ended_job(api, await api.submit("draw", odd, max_attempts=1))
    assert refused["error"]["code"] == "invalid_input"
    others = {name: each for name, each in FILES.items() if name != "odd"}
    job = await ended_job(api, await api.submit("draw", others))
    # An earlier version has recorded such a type.
    kept = await asyncio.to_thread(api.service.artifacts.store, FILES["odd"][0].encode())
    recorded = ArtifactStored(1, "odd", *kept, FILES["odd"][1])
    await api.service.log.append(job["job_id"], job["version"], recorded, actor="worker")
    job = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    shown = {
        "my file (1) +x.csv": ("text/csv; charset=utf-8", "attachment"),
        "chart.svg": ("image/svg+xml", "attachment"),
        "page.html": ("application/octet-stream", "attachment"),
        "odd": ("text/plain; charset=utf-8", "attachment"),
        "empty": ("text/plain; charset=utf-8", "attachment"),
    }
    assert len(job["artifacts"]) == len(shown)
    for each in job["artifacts"]:
        name = each["name"]
        file = await api.get(each["url"])
        assert (file.status, file.body.decode()) == (200, FILES[name][0])
        media_type, how = shown[name]
        assert file.headers["Content-Type"] == media_type
        assert file.headers["Content-Disposition"] == f'{how}; filename="{name}"'
        assert file.headers["X-Content-Type-Options"] == "nosniff"
        assert file.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert file.headers["ETag"] == f'"{each["sha256"]}"'
        assert "X-Injected" not in file.headers
        head = await api("HEAD", each["url"])
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(each["size"])
        assert (await api.get(each["url"], If_None_Match=file.headers["ETag"])).status == 304


RANGES = [
    ("bytes=0-2", 206, b"a,b", "bytes 0-2/8"),
    ("bytes=4-", 206, b"1,2\n", "bytes 4-7/8"),
    ("bytes=-4", 206, b"1,2\n", "bytes 4-7/8"),
    ("bytes=-99", 200, b"a,b\n1,2\n", None),
    ("bytes=6-99", 206, b"2\n", "bytes 6-7/8"),
    ("bytes=8-", 416, None, "bytes */8"),
    ("bytes=x", 200, b"a,b\n1,2\n", None),
    ("bytes=0-1,4-5", 200, b"a,b\n1,2\n", None),
    ("bytes=3-1", 200, b"a,b\n1,2\n", None),
]


async def test_a_range_of_a_file_can_be_asked_for(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("draw", {"x": FILES["my file (1) +x.csv"]}))
    [file] = job["artifacts"]
    for requested, status, body, content_range in RANGES:
        reply = await api.get(file["url"], Range=requested)
        assert reply.status == status, requested
        assert reply.headers.get("Content-Range") == content_range
        assert reply.body == body if body is not None else reply.code == "range_not_satisfiable"
    other = await api.get(file["url"], Range="bytes=0-0", If_Range='"other"')
    assert (other.status, len(other.body)) == (200, 8)
    same = await api.get(file["url"], Range="bytes=0-0", If_Range=f'"{file["sha256"]}"')
    assert (same.status, same.body) == (206, b"a")


NAMES = [
    "nothing",
    "..%2f..%2flog.db",
    "%2e%2e",
    "%2fetc%2fpasswd",
    "x%00",
    "%ff",
    "..%5c..%5clog.db",
]


async def test_a_name_is_looked_up_and_never_a_path(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("draw", {"x": ["x", "text/plain"]}))
    for name in NAMES:
        path = f"{job['links']['self']}/artifacts/{name}".encode()
        head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await api.raw(head % path)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"passwd:" not in answer
        assert b"SQLite" not in answer


async def test_a_client_that_stops_reading_is_dropped(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, concurrency=0)
    content = bytes(24 * 2**20)
    stored = await api("POST", "/v1/artifacts", data=BytesIO(content))
    job = await api.submit("echo", artifacts={"x": stored.json["sha256"]})
    address = job["artifacts"][0]["url"].encode()
    reader, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    with closing(writer), capture_logs() as lines:
        writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % address)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        for _ in range(300):
            await clock.advance(5)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(len(content))
    assert [each["event"] for each in lines] == ["request cut off"]


async def test_a_file_that_was_removed_is_not_found(client: Connect) -> None:
    api = await client(*HANDLERS)
    job = await ended_job(api, await api.submit("draw", {"x": ["x", "text/plain"]}))
    [file] = job["artifacts"]
    await asyncio.to_thread(api.service.artifacts.path(file["sha256"]).unlink)
    reply = await api.get(file["url"])
    assert (reply.status, reply.code) == (404, "artifact_not_found")

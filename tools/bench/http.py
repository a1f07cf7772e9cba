"""Requests over HTTP, beside bare aiohttp."""

import re
import shutil
import subprocess
from http.client import HTTPConnection
from pathlib import Path

import orjson

from .processes import Answer, Bench, Child, Sample, now_s, say
from .report import JOBS, REQUESTS, Floor, Row

HOST = "127.0.0.1"
JOB = {"type": "noop", "payload": {"n": 1}}
TIMEOUT_S = 60
BATCH_HEADERS = {"Content-Type": "application/x-ndjson"}

POST = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"type":"noop","payload":{"n":1}}'
"""
MISSING = "wrk is missing: apt-get install wrk"


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def wrk(
    bench: Bench,
    server: tuple[Child, Answer],
    path: str,
    script: Path | None = None,
    headers: dict[str, str] | None = None,
) -> Sample:
    """Requests a second, all with a 2xx response."""
    child, at = server
    size = bench.size
    command = ["wrk", "-t1", f"-c{size.connections}", f"-d{size.wrk_s}s"]
    command += [] if script is None else ["-s", str(script)]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    cpu_s = child.cpu_s()
    output = subprocess.run(
        [*command, f"http://{HOST}:{at['port']}{path}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    ).stdout
    cpu_s = child.cpu_s() - cpu_s
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    count = re.search(r"(\d+) requests in", output)
    assert rate is not None, output
    assert count is not None, output
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    return Sample(float(rate[1]), cpu_s / max(1, int(count[1])) * 1e6)


def posts(bench: Bench) -> list[Row]:
    what = f"POST /v1/jobs, one per request, {bench.size.connections} connections"
    limit = "aiohttp's empty POST that reads the body"
    kept = Row(what, REQUESTS, limit, Floor(share=0.38))
    run = Row("the same while the jobs run too", REQUESTS, limit, Floor(share=0.28))
    if not has_wrk():
        return [Row(what, REQUESTS, MISSING)]
    script = bench.directory / "post.lua"
    script.write_text(POST)
    queueing, running, bare = bench.service(0), bench.service(1000), bench.server("bare")
    for number in range(bench.size.runs):
        say(f"posts, run {number + 1}")
        raw = wrk(bench, bare, "/post", script)
        kept.add(wrk(bench, queueing, "/v1/jobs", script), raw)
        run.add(wrk(bench, running, "/v1/jobs", script), raw)
    return [kept, run]


def gets(bench: Bench) -> list[Row]:
    row = Row("GET /v1/jobs/{id}", REQUESTS, "aiohttp's empty GET", Floor(share=0.9))
    if not has_wrk():
        return [Row(row.what, REQUESTS, MISSING)]
    ours, bare = bench.service(0), bench.server("bare")
    path = f"/v1/jobs/{submit(ours[1])}"
    for number in range(bench.size.runs):
        say(f"gets, run {number + 1}")
        raw = wrk(bench, bare, "/get")
        row.add(wrk(bench, ours, path), raw)
    return [row]


def batches(bench: Bench) -> list[Row]:
    lines = bench.size.lines
    limit = "aiohttp, each line read by orjson and answered"
    # 1.5 times the share at commit f3f01b3, of which the other floors are, too.
    row = Row(f"POST /v1/jobs/batch, {lines:,} lines each", JOBS, limit, Floor(share=0.042))
    ours, bare = bench.service(0), bench.server("bare")
    body = (orjson.dumps(JOB) + b"\n") * lines
    for number in range(bench.size.runs):
        say(f"batches, run {number + 1}")
        row.add(batch(ours, "/v1/jobs/batch", body, lines), batch(bare, "/batch", body, lines))
    return [row]


def batch(server: tuple[Child, Answer], path: str, body: bytes, lines: int) -> Sample:
    """Lines a second, all answered with 202."""
    child, at = server
    cpu_s = child.cpu_s()
    began_s = now_s()
    response = request(at, path, body, BATCH_HEADERS)
    seconds = now_s() - began_s
    cpu_s = child.cpu_s() - cpu_s
    accepted = response.count(b'"status":202')
    assert accepted == lines, f"{accepted} of {lines} lines were accepted"
    return Sample(lines / seconds, cpu_s / lines * 1e6)


def submit(at: Answer, headers: dict[str, str] | None = None) -> str:
    sent = {"Content-Type": "application/json", **(headers or {})}
    response = request(at, "/v1/jobs", orjson.dumps(JOB), sent)
    job_id: str = orjson.loads(response)["job_id"]
    return job_id


def request(at: Answer, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    connection = HTTPConnection(HOST, at["port"], timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().read()
    finally:
        connection.close()

"""Remote workers: jobs a second through them, and the time of a claim."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import orjson

from .http import BATCH_HEADERS, HOST, JOB, TIMEOUT_S, request
from .processes import ROOT, Answer, Bench, Child, Children, Sample, now_s, run, say
from .report import JOBS, MILLISECONDS, Row, percentile

#: Concurrent jobs of a worker with its default settings.
AT_ONCE = 256
JSON_HEADERS = {"Content-Type": "application/json"}


def workers(bench: Bench) -> list[Row]:
    limit = "bare aiohttp: as many clients, one POST a job"
    rows = {
        count: Row(f"no-op jobs through `eventjobs worker`, {count} of them", JOBS, limit)
        for count in bench.size.workers
    }
    for number in range(bench.size.runs):
        for count, row in rows.items():
            say(f"workers, run {number + 1}")
            row.add(jobs_rate(bench, count), post_rate(bench, count))
    return list(rows.values())


def jobs_rate(bench: Bench, count: int) -> Sample:
    """Jobs a second through *count* workers, from the first end to the last."""
    with bench.fresh("serve_http", **bench.parameters(0)) as (child, at), ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(worker(at["port"]))
        cpu_s = child.cpu_s()
        child.send("ending_rate", count=bench.size.worked)
        queue(at, bench.size.worked)
        rate: float = child.answer()["rate"]
        cpu_s = child.cpu_s() - cpu_s
    return Sample(rate, cpu_s / bench.size.worked * 1e6)


@contextmanager
def worker(port: int) -> Iterator[None]:
    """A running worker."""
    url = f"http://{HOST}:{port}"
    options = ["--url", url, "--app", "eventjobs.tools.bench.__main__:noop", "--log-level", "error"]
    with subprocess.Popen(
        [sys.executable, "-m", "eventjobs", "worker", *options], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline(), "the worker did not start"
            yield
        finally:
            process.kill()


def post_rate(bench: Bench, count: int) -> Sample:
    """POSTs a second of *count* processes to bare aiohttp."""
    child, at = bench.server("bare")
    load = {"port": at["port"], "seconds": bench.size.seconds, "in_flight": AT_ONCE}
    cpu_s = child.cpu_s()
    with ExitStack() as stack:
        clients = [stack.enter_context(Child("poster", load)) for _ in range(count)]
        answers = [each.answer() for each in clients]
    cpu_s = child.cpu_s() - cpu_s
    rate = sum(each["rate"] for each in answers)
    return Sample(rate, cpu_s / sum(each["count"] for each in answers) * 1e6)


def poster(port: int, seconds: float, in_flight: int) -> Answer:
    """Requests a second, always *in_flight* concurrently."""
    import aiohttp

    async def work() -> Answer:
        body = orjson.dumps({"worker": "worker-1", "result": None})
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(f"http://{HOST}:{port}", connector=connector) as session:

            async def post() -> int:
                count = 0
                while now_s() < until_s:
                    async with session.post("/post", data=body, headers=JSON_HEADERS) as answer:
                        await answer.read()
                    count += 1
                return count

            began_s = now_s()
            until_s = began_s + seconds
            count = sum(await asyncio.gather(*(post() for _ in range(in_flight))))
        return {"rate": count / (now_s() - began_s), "count": count}

    return run(work())


def claims(bench: Bench) -> list[Row]:
    limit = "aiohttp's empty POST that reads the body"
    what = "POST /v1/work/claim with work waiting, one at a time"
    half = Row(f"{what}, p50", MILLISECONDS, limit)
    most = Row(f"{what}, p99", MILLISECONDS, limit)
    body = orjson.dumps({"worker": "bench", "types": [JOB["type"]]})
    bare = bench.server("bare")[1]
    for number in range(bench.size.runs):
        say(f"claims, run {number + 1}")
        with bench.fresh("serve_http", **bench.parameters(0)) as (_, at):
            queue(at, bench.size.claims)
            ours = one_by_one(at, "/v1/work/claim", body, bench.size.claims, b'"attempt":1')
        raw = one_by_one(bare, "/post", body, bench.size.claims, b"")
        half.add(percentile(ours, 0.5), percentile(raw, 0.5))
        most.add(percentile(ours, 0.99), percentile(raw, 0.99))
    return [half, most]


def one_by_one(at: Answer, path: str, body: bytes, times: int, expected: bytes) -> list[float]:
    """The milliseconds of each request; every response must contain *expected*."""
    connection = HTTPConnection(HOST, at["port"], timeout=TIMEOUT_S)
    spent = []
    try:
        for _ in range(times):
            began_s = now_s()
            connection.request("POST", path, body, JSON_HEADERS)
            response = connection.getresponse().read()
            spent.append((now_s() - began_s) * 1000)
            assert expected in response, response
    finally:
        connection.close()
    return spent


def queue(at: Answer, count: int) -> None:
    """Submit *count* jobs."""
    body = (orjson.dumps(JOB) + b"\n") * count
    accepted = request(at, "/v1/jobs/batch", body, BATCH_HEADERS).count(b'"status":202')
    assert accepted == count, f"{accepted} of {count} jobs were accepted"


CHILDREN: Children = {"poster": poster}

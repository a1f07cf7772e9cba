"""Workers elsewhere: how many jobs a second come through them, and how long a claim takes."""

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

#: What a worker runs at once, unless it is told otherwise.
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
            row.add(worked(bench, count), posted(bench, count))
    return list(rows.values())


def worked(bench: Bench, count: int) -> Sample:
    """From the first job that ends to the last one, while *count* workers are at it."""
    with bench.fresh("served", **bench.parameters(0)) as (child, at), ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(worker(at["port"]))
        cpu_s = child.cpu_s()
        child.tell("ended", count=bench.size.worked)
        queue(at, bench.size.worked)
        rate: float = child.hear()["rate"]
        cpu_s = child.cpu_s() - cpu_s
    return Sample(rate, cpu_s / bench.size.worked * 1e6)


@contextmanager
def worker(port: int) -> Iterator[None]:
    """One that is at work."""
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


def posted(bench: Bench, count: int) -> Sample:
    """The same with nothing to do: so many processes post as fast as they are answered."""
    child, at = bench.server("bare")
    told = {"port": at["port"], "seconds": bench.size.seconds, "in_flight": AT_ONCE}
    cpu_s = child.cpu_s()
    with ExitStack() as stack:
        clients = [stack.enter_context(Child("poster", told)) for _ in range(count)]
        answers = [each.hear() for each in clients]
    cpu_s = child.cpu_s() - cpu_s
    rate = sum(each["rate"] for each in answers)
    return Sample(rate, cpu_s / sum(each["count"] for each in answers) * 1e6)


def poster(port: int, seconds: float, in_flight: int) -> Answer:
    """Requests a second, always so many at once."""
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
    asked = orjson.dumps({"worker": "bench", "types": [JOB["type"]]})
    bare = bench.server("bare")[1]
    for number in range(bench.size.runs):
        say(f"claims, run {number + 1}")
        with bench.fresh("served", **bench.parameters(0)) as (_, at):
            queue(at, bench.size.claims)
            ours = one_by_one(at, "/v1/work/claim", asked, bench.size.claims, b'"attempt":1')
        raw = one_by_one(bare, "/post", asked, bench.size.claims, b"")
        half.add(percentile(ours, 0.5), percentile(raw, 0.5))
        most.add(percentile(ours, 0.99), percentile(raw, 0.99))
    return [half, most]


def one_by_one(at: Answer, path: str, body: bytes, times: int, told: bytes) -> list[float]:
    """How many milliseconds each answer took; every one has *told* in it."""
    connection = HTTPConnection(HOST, at["port"], timeout=TIMEOUT_S)
    spent = []
    try:
        for _ in range(times):
            began_s = now_s()
            connection.request("POST", path, body, JSON_HEADERS)
            answer = connection.getresponse().read()
            spent.append((now_s() - began_s) * 1000)
            assert told in answer, answer
    finally:
        connection.close()
    return spent


def queue(at: Answer, count: int) -> None:
    """Submit so many jobs."""
    body = (orjson.dumps(JOB) + b"\n") * count
    accepted = request(at, "/v1/jobs/batch", body, BATCH_HEADERS).count(b'"status":202')
    assert accepted == count, f"{accepted} of {count} jobs were accepted"


CHILDREN: Children = {"poster": poster}

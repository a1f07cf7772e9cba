"""Measures the speed of eventjobs, each figure beside a raw limit of the libraries.

    python -m eventjobs.tools.bench [SECTION ...] [--runs N] [--quick] [--json | --markdown]

A shared machine may be half as fast a minute later. So a figure and its raw limit are measured in
turns, each in a process of its own. Printed are the median of the runs with the least and the most,
and the median share of the limit, pair by pair.

This module and auth.py import the service; the other measurements stand beside it.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from eventjobs import gc_tuning
from eventjobs.domain.events import JobCompleted
from eventjobs.domain.ids import new_id
from eventjobs.domain.spec import JobSpec
from eventjobs.log import follow
from eventjobs.observability.logging import configure
from eventjobs.service import Service
from eventjobs.settings import Settings

from . import auth, baseline_http, baseline_pool, beside, http, log, sse, workers
from .handlers import noop, noop_in_a_process
from .processes import (
    ROOT,
    Answer,
    Bench,
    Children,
    Sample,
    Size,
    Stopwatch,
    act,
    now_s,
    obey,
    raise_descriptor_limit,
    run,
    say,
)
from .report import (
    JOBS,
    MILLISECONDS,
    SECONDS,
    Conditions,
    Floor,
    Row,
    machine,
    machine_lines,
    percentile,
    table,
)

HOST = "127.0.0.1"
READY_S = 60.0

QUICK = Size(
    runs=3,
    seconds=0.4,
    writers=(64, 1000),
    plain=15_000,
    rebuilt=20_000,
    wrk_s=1,
    lines=4_000,
    paced=50,
    bursts=40,
    idle_runs=1,
    broadcasts=3,
    started=100_000,
    worked=1_500,
    claims=300,
    beside=(10_000,),
    waiters=300,
)


# --- in a process of its own


@asynccontextmanager
async def service(data: str, **settings: Any) -> AsyncIterator[Service]:
    """The service as `eventjobs serve` sets it up, with handlers that do nothing."""
    configure("WARNING")
    merged = Settings(data=Path(data), **settings)
    async with Service(handlers=[noop, noop_in_a_process], settings=merged) as started:
        gc_tuning.freeze_startup_objects()
        yield started
        gc.unfreeze()


def jobs(
    directory: str, seconds: float, in_flight: int, type: str = "noop", data: str | None = None
) -> Answer:
    """Jobs a second from submission to the end, always *in_flight* concurrently; in a new data
    directory, or in *data*.
    """

    async def work() -> Answer:
        with TemporaryDirectory(dir=directory) as new, log.seen_commits() as seen:
            async with service(data or new, concurrency=in_flight) as started:
                await through(started, seconds / 4, in_flight, type)
                seen.clear()
                with Stopwatch() as watch:
                    count = await through(started, seconds, in_flight, type)
                batch = mean(size for _, size in seen)
        return {"batch": batch, **watch.sample(count)}

    return run(work())


async def through(started: Service, seconds: float, in_flight: int, type: str) -> int:
    """Submit for *seconds*, always *in_flight* concurrently; the number of ended jobs."""
    loop = asyncio.get_running_loop()
    until_s = now_s() + seconds
    after = started.log.head
    ended: dict[str, asyncio.Future[None]] = {}

    async def submit() -> None:
        while now_s() < until_s:
            job_id = new_id(started.clock.now_us())
            ended[job_id] = loop.create_future()
            await started.submit(type, {"n": 1}, job_id=job_id)
            await ended[job_id]

    async def see() -> None:
        async for batch in follow(started.log, after):
            for recorded in batch:
                if isinstance(recorded.event, JobCompleted):
                    ended[recorded.job_id].set_result(None)

    seeing = asyncio.create_task(see())
    try:
        await asyncio.gather(*(submit() for _ in range(in_flight)))
    finally:
        seeing.cancel()
    return len(ended)


def latency(directory: str, seconds: float) -> Answer:
    """Milliseconds of one job on an idle service."""

    async def work() -> Answer:
        spent = []
        with TemporaryDirectory(dir=directory) as data:
            async with service(data) as started:
                until_s = now_s() + seconds
                while now_s() < until_s:
                    began_s = now_s()
                    job = await started.submit("noop", {"n": 1})
                    await started.wait(job.job_id)
                    spent.append(now_s() - began_s)
                    await started.views.wait_for_position(started.log.head)
        return {"p50": percentile(spent, 0.5) * 1000, "p99": percentile(spent, 0.99) * 1000}

    return run(work())


def serve_http(directory: str, concurrency: int, required: bool = False) -> None:
    """The service over HTTP, until stdin ends; where *required*, with authentication."""
    from eventjobs.http import serve

    async def work() -> None:
        raise_descriptor_limit()
        with TemporaryDirectory(dir=directory) as data, log.seen_commits() as seen:
            # Heartbeats would be uncounted deliveries.
            more = {"heartbeat_s": 3600, "worker_types": (log.REMOTE,)}
            more |= auth.settings() if required else {}
            async with service(data, concurrency=concurrency, **more) as started:
                listening = await serve(started, HOST, 0)

                async def send(number: int, job: str) -> float:
                    seen.clear()
                    await started.jobs.report(job, sse.event(number), actor="bench")
                    return seen[-1][0]

                async def job() -> Answer:
                    outcome = await started.jobs.submit(JobSpec("watched"), actor="bench")
                    await started.jobs.start(outcome.job.job_id, worker="bench")
                    return {"job": outcome.job.job_id, "head": started.log.head}

                async def rate(count: int) -> Answer:
                    return {"rate": await ending_rate(started, count)}

                async def waiters() -> Answer:
                    return {"count": len(listening.context.long_polls)}

                publisher = sse.Publisher(send)
                commands = publisher.commands | auth.commands(started)
                commands |= {"job": job, "ending_rate": rate, "waiters": waiters}
                ready = {"port": listening.port, "acks": await publisher.listen(HOST)}
                await obey(ready, commands)

    run(work())


async def ending_rate(started: Service, count: int) -> float:
    """Ends of jobs a second, from the first to the last of the next *count*."""
    times_us = list[int]()
    async for batch in follow(started.log, started.log.head):
        times_us += [each.at_us for each in batch if isinstance(each.event, JobCompleted)]
        if len(times_us) >= count:
            break
    return (len(times_us) - 1) / max(1, times_us[-1] - times_us[0]) * 1e6


CHILDREN: Children = {
    "jobs": jobs,
    "latency": latency,
    "serve_http": serve_http,
    **baseline_http.CHILDREN,
    **baseline_pool.CHILDREN,
    **beside.CHILDREN,
    **log.CHILDREN,
    **workers.CHILDREN,
}


# --- the sections that need the service


def no_ops(bench: Bench) -> list[Row]:
    size = bench.size
    what = f"no-op jobs end to end in process, {size.in_flight:,} in flight"
    limit = "plain sqlite3: three rows a job, same batches"
    row = Row(what, JOBS, limit, Floor(share=0.3))
    for number in range(size.runs):
        say(f"jobs, run {number + 1}")
        ours = bench.once("jobs", seconds=size.seconds, in_flight=size.in_flight)
        batch = round(ours["batch"])
        raw = bench.once("plain", events=size.plain, batch=batch, writers=0)
        row.what = f"{what}, {batch} events a commit"
        row.add(Sample(ours["rate"], ours["cpu_us"]), Sample(raw["rate"] / 3, raw["cpu_us"] * 3))
    return [row]


def in_processes(bench: Bench) -> list[Row]:
    row = Row("no-op jobs in processes, one for each CPU", JOBS, "a spawned ProcessPoolExecutor")
    load = {"seconds": bench.size.seconds, "in_flight": 64}
    for number in range(bench.size.runs):
        say(f"processes, run {number + 1}")
        ours = bench.once("jobs", type=noop_in_a_process.type, **load)
        raw = bench.once("pool", **load)
        row.add(Sample(ours["rate"], ours["cpu_us"]), Sample(raw["rate"], raw["cpu_us"]))
    return [row]


def latencies(bench: Bench) -> list[Row]:
    limit = "plain sqlite3: three commits in a row"
    what = "submit to finished, one at a time, idle service, in process"
    half = Row(f"{what}, p50", MILLISECONDS, limit, Floor(share=0.55))
    most = Row(f"{what}, p99", MILLISECONDS, limit)
    seconds = bench.size.seconds
    for number in range(bench.size.runs):
        say(f"latency, run {number + 1}")
        ours = bench.once("latency", seconds=seconds)
        raw = bench.once("commits", seconds=seconds / 2)
        half.add(ours["p50"], raw["p50"])
        most.add(ours["p99"], raw["p99"])
    return [half, most]


def starts(bench: Bench) -> list[Row]:
    say("start: making a log")
    data = bench.data()
    events = bench.once("make", data=data, events=bench.size.started)["events"]
    limit = "the same libraries, both databases opened, nothing else"
    what = f"start of `eventjobs serve` with {events:,} events, until it serves"
    row = Row(what, SECONDS, limit, Floor(1))
    ours = [sys.executable, "-m", "eventjobs", "serve", "--data", data, "--port", "0"]
    raw = [sys.executable, "-m", "eventjobs.tools.bench", "--child", "bare_with_databases"]
    raw.append(orjson.dumps({"data": data}).decode())
    for number in range(bench.size.runs):
        say(f"start, run {number + 1}")
        row.add(first_line(ours, Path(data) / "serve.log"), first_line(raw, Path(data) / "raw.log"))
    return [row]


def first_line(command: list[str], log: Path) -> float:
    """Seconds from the start of a process to its first line."""
    began_s = now_s()
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
    with process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            spent_s = now_s() - began_s
            assert line, f"{command} did not start:\n{log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return spent_s


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "jobs": no_ops,
    "beside": beside.jobs,
    "waiters": beside.waiters,
    "processes": in_processes,
    "workers": workers.workers,
    "claim": workers.claims,
    "append": log.appends,
    "rebuild": log.rebuilds,
    "post": http.posts,
    "get": http.gets,
    "auth": auth.rates,
    "batch": http.batches,
    "watched": sse.watch,
    "idle": sse.idle,
    "latency": latencies,
    "start": starts,
}


# --- the command


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--child"]:
        act(CHILDREN, arguments)
        return 0
    options = parse(arguments)
    size = QUICK if options.quick else Size()
    if options.runs:
        size = replace(size, runs=options.runs)
    with Bench(size, CHILDREN) as bench:
        properties = machine(bench.directory)
        conditions = Conditions()
        rows = []
        for name in options.sections or SECTIONS:
            conditions.measure()
            rows += SECTIONS[name](bench)
        conditions.measure()
    properties |= conditions.summary()
    say("\n")
    if options.json:
        print(
            orjson.dumps({"machine": properties, "rows": [row.as_json() for row in rows]}).decode()
        )
    else:
        print(machine_lines(properties, markdown=options.markdown), end="\n\n")
        print(table(rows, markdown=options.markdown))
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eventjobs.tools.bench", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--runs", type=int, help="of each measurement; 5")
    parser.add_argument(
        "--quick", action="store_true", help="take about a minute, and measure less exactly"
    )
    parser.add_argument("--json", action="store_true", help="print every figure, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    options = parser.parse_args(arguments)
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(
            f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}"
        )
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

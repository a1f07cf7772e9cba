"""Work beside what does not concern it: jobs that have finished or wait, and clients that wait."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from . import http
from .log import KINDS, REMOTE, sample
from .processes import (
    Answer,
    Bench,
    Child,
    Children,
    now_s,
    print_answer,
    raise_descriptor_limit,
    say,
)
from .report import JOBS, REQUESTS, Floor, Row

WAIT_S = 25
READY_S = 30.0
#: Longest time in which a data directory is made.
MAKE_S = 900.0

CLAIM = orjson.dumps({"worker": "bench", "types": [REMOTE], "wait_s": WAIT_S}).decode()
HOST_HEADER = f"Host: {http.HOST}\r\n"
#: By kind of waiters: a request that waits for what does not come.
REQUESTS_OF_WAITERS = {
    "workers": f"POST /v1/work/claim HTTP/1.1\r\n{HOST_HEADER}Content-Type: application/json\r\n"
    f"Content-Length: {len(CLAIM)}\r\n\r\n{CLAIM}",
    "long-polls": f"GET /v1/events?type={REMOTE}&wait={WAIT_S} HTTP/1.1\r\n{HOST_HEADER}\r\n",
}


def jobs(bench: Bench) -> list[Row]:
    """No-op jobs in process. Those of earlier runs stay in the same log."""
    load = {"seconds": bench.size.seconds, "in_flight": bench.size.in_flight}
    rows = {}
    for kind in ("finished", "waiting"):
        for count in bench.size.beside:
            say(f"beside: making {count:,} {kind} jobs")
            data = bench.data()
            _, events_of_job = KINDS[kind]
            events = round(count * events_of_job)
            bench.once("make", timeout_s=MAKE_S, data=data, events=events, kind=kind)
            what = f"no-op jobs in process, beside {count:,} {kind} ones"
            rows[data] = Row(what, JOBS, "the same beside none", Floor(cpu_share=0.9))
    for number in range(bench.size.runs):
        say(f"beside, run {number + 1}")
        alone = sample(bench.once("jobs", **load))
        for data, row in rows.items():
            row.add(sample(bench.once("jobs", data=data, **load)), alone)
    return list(rows.values())


def waiters(bench: Bench) -> list[Row]:
    """Submissions beside workers and long-polls that wait for jobs of another type."""
    what = f"POST /v1/jobs while the jobs run too, beside {bench.size.waiters:,} waiting"
    rows = {
        kind: Row(f"{what} {kind}", REQUESTS, "the same beside none", Floor(share=0.8))
        for kind in REQUESTS_OF_WAITERS
    }
    if not http.has_wrk():
        return [Row(row.what, REQUESTS, http.MISSING) for row in rows.values()]
    script = bench.directory / "post.lua"
    script.write_text(http.POST)
    server = bench.service(1000)
    for number in range(bench.size.runs):
        say(f"waiters, run {number + 1}")
        alone = http.wrk(bench, server, "/v1/jobs", script)
        for kind, row in rows.items():
            with waiting(server, kind, bench.size.waiters):
                row.add(http.wrk(bench, server, "/v1/jobs", script), alone)
            await_waiters(server[0], 0)
    return list(rows.values())


@contextmanager
def waiting(server: tuple[Child, Answer], kind: str, clients: int) -> Iterator[None]:
    """So many clients that wait."""
    child, at = server
    with Child("wait", {"port": at["port"], "kind": kind, "clients": clients}) as process:
        process.answer()
        await_waiters(child, clients)
        yield


def await_waiters(server: Child, count: int) -> None:
    """Return when so many requests wait."""
    until_s = now_s() + READY_S
    while (waiters := server.call("waiters")["count"]) != count:
        assert now_s() < until_s, f"{waiters} requests wait, and not {count}"


def wait(port: int, kind: str, clients: int) -> None:
    """Send the requests of *clients*, and keep their connections until stdin ends."""
    raise_descriptor_limit()
    request = REQUESTS_OF_WAITERS[kind].encode()
    connections = []
    for _ in range(clients):
        connections.append(socket.create_connection((http.HOST, port)))
        connections[-1].sendall(request)
    print_answer({"clients": len(connections)})
    sys.stdin.read()


CHILDREN: Children = {"wait": wait}

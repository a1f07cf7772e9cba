"""One event for many clients over HTTP: how late the last one gets it, and what each one costs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from eventjobs.domain.events import ProgressReported

from .processes import Answer, Bench, Child, Sample, Size, cpu, now_s, rss, say
from .report import DELIVERIES, KIBIBYTES, MILLISECONDS, Floor, Row, percentile
from .sse_readers import MARK

#: Events a second of a job that is watched while it works.
RATE = 50
BARE = "bare aiohttp, the same bytes to the same clients"
#: A quiet time before anything is timed.
SETTLE_S = 0.2


def marked(number: int) -> ProgressReported:
    """An event that readers count."""
    return ProgressReported(1, number, 1_000_000, "reading", f"line {number} {MARK.decode()}")


class Publisher:
    """Inside a server: publishes events at a set rate, or each once the last has arrived."""

    def __init__(self, send: Callable[..., Awaitable[float]]) -> None:
        self._send = send  # returns when the event was there to be sent
        self._number = 0
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        #: what a server does that has one
        self.commands: dict[str, Callable[..., Awaitable[Answer]]] = {
            "publish": self.publish,
            "cpu": cpu,
            "rss": rss,
        }

    async def listen(self, host: str) -> int:
        """Where the readers tell what has reached all of them; the port."""
        self._server = await asyncio.start_server(self._hear, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while told := await reader.read(4096):
            for _ in told:
                self._arrived.put_nowait(1)

    async def publish(self, events: int, every_s: float = 0.0, **to: str) -> Answer:
        """When each event was there, and how long all took; without a rate each waits."""
        while not self._arrived.empty():
            self._arrived.get_nowait()
        await asyncio.sleep(SETTLE_S)
        at_s = []
        began_s = now_s()
        for number in range(events):
            self._number += 1
            if every_s:
                await asyncio.sleep(max(0.0, began_s + number * every_s - now_s()))
            at_s.append(await self._send(self._number, **to))
            if not every_s:
                await asyncio.wait_for(self._arrived.get(), 30)
        return {"at": at_s, "seconds": now_s() - began_s}


# --- the sections


def watched(bench: Bench) -> list[Row]:
    """One job with many watchers: at the rate of a busy job, then as fast as it goes."""
    size = bench.size
    clients = f"{size.watchers:,} SSE clients of one job"
    late = f"{clients}, {RATE} events/s, commit to the last client"
    half = Row(f"{late}, p50", MILLISECONDS, BARE)
    most = Row(f"{late}, p99", MILLISECONDS, BARE, Floor(30))
    fast = Row(f"{clients}, each event waits for the last", DELIVERIES, BARE, Floor(100_000))
    states = Row("the same, snapshots instead of facts", DELIVERIES, BARE)
    with ExitStack() as stack:
        ours, at = stack.enter_context(bench.fresh("served", **bench.parameters(0)))
        bare, bare_at = stack.enter_context(bench.fresh("bare"))
        state, fact = ours.ask("job"), ours.ask("job")
        facts_path = f"/v1/jobs/{fact['job']}/events?after={fact['head']}"
        say(f"watched: connecting 3 times {size.watchers} clients")
        facts = stack.enter_context(readers(at, facts_path, size.watchers))
        snapshots = stack.enter_context(readers(at, f"/v1/jobs/{state['job']}", size.watchers))
        others = stack.enter_context(readers(bare_at, "/events", size.watchers))
        for number in range(size.runs):
            say(f"watched, run {number + 1}")
            told = lateness(facts, ours, size.paced, every_s=1 / RATE, job=fact["job"])
            raw = lateness(others, bare, size.paced, every_s=1 / RATE)
            for row, share in ((half, 0.5), (most, 0.99)):
                row.add(percentile(told, share) * 1000, percentile(raw, share) * 1000)
            limit = deliveries(others, bare, size)
            fast.add(deliveries(facts, ours, size, job=fact["job"]), limit)
            states.add(deliveries(snapshots, ours, size, job=state["job"]), limit)
    return [half, most, fast, states]


def idle(bench: Bench) -> list[Row]:
    """Very many clients for whom nearly nothing happens."""
    clients = f"{bench.size.idle:,} idle SSE clients"
    cost = Row(f"{clients}, memory for each", KIBIBYTES, BARE, Floor(16))
    late = Row(f"{clients}, one broadcast to the last", MILLISECONDS, BARE, Floor(200))
    for number in range(min(bench.size.idle_runs, bench.size.runs)):
        say(f"idle, run {number + 1}")
        with bench.fresh("served", **bench.parameters(0)) as (server, at):
            job = server.ask("job")
            path = f"/v1/events?after={job['head']}"
            ours = quiet(bench.size, server, at, path, job=job["job"])
        with bench.fresh("bare") as (server, at):
            bare = quiet(bench.size, server, at, "/events")
        for row, figures, others in zip((cost, late), ours, bare, strict=True):
            for figure, other in zip(figures, others, strict=True):
                row.add(figure, other)
    return [cost, late]


def quiet(
    size: Size, server: Child, at: Answer, path: str, **to: Any
) -> tuple[list[float], list[float]]:
    """KiB for each client, and the milliseconds that broadcasts took."""
    before = server.ask("rss")["bytes"]
    with readers(at, path, size.idle) as reader:
        after = server.ask("rss")["bytes"]
        spent = lateness(reader, server, size.broadcasts, **to)
    return [(after - before) / size.idle / 1024], [each * 1000 for each in spent]


# --- what they share


def readers(at: Answer, path: str, clients: int) -> Child:
    """A process of so many connected clients."""
    parameters = {"port": at["port"], "path": path, "clients": clients, "acks": at["acks"]}
    child = Child("readers", parameters, "eventjobs.tools.bench.sse_readers")
    try:
        child.hear()
    except BaseException:
        child.close()
        raise
    return child


def lateness(reader: Child, server: Child, events: int, **to: Any) -> list[float]:
    """Seconds from when each event was there until the last client had it."""
    reader.ask("count", events=events)
    published = server.ask("publish", events=events, **to)["at"]
    return [last - first for first, last in zip(published, reader.hear()["at"], strict=True)]


def deliveries(reader: Child, server: Child, size: Size, **to: Any) -> Sample:
    """A second, when no event is published before the one before has reached everybody."""
    reader.ask("count", events=size.bursts)
    cpu_s = server.cpu_s()
    seconds = server.ask("publish", events=size.bursts, **to)["seconds"]
    cpu_s = server.cpu_s() - cpu_s
    reader.hear()
    delivered = size.bursts * size.watchers
    return Sample(delivered / seconds, cpu_s / delivered * 1e6)

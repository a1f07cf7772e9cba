"""One event for many SSE clients: the latency of the last one, and the cost of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

from eventjobs.domain.events import ProgressReported

from .processes import Answer, Bench, Child, Sample, Size, cpu, now_s, rss, say
from .report import DELIVERIES, KIBIBYTES, MILLISECONDS, SECONDS, Floor, Row, percentile
from .sse_readers import MARK

#: Events a second of the watched job.
RATE = 50
BARE = "bare aiohttp, the same bytes to the same clients"
#: Events of one job that are reported at the same time.
TOGETHER = 64
#: A pause before each measurement.
SETTLE_S = 0.2


def event(number: int) -> ProgressReported:
    """A progress event with the MARK that readers count."""
    return ProgressReported(1, number, 1_000_000, "reading", f"line {number} {MARK.decode()}")


class Publisher:
    """Inside a server: publishes events at a fixed rate, or each after the last has arrived."""

    def __init__(self, send: Callable[..., Awaitable[float]]) -> None:
        self._send = send  # returns the time at which the event could be sent
        self._number = 0
        self._arrived: asyncio.Queue[int] = asyncio.Queue()
        #: for processes.obey
        self.commands: dict[str, Callable[..., Awaitable[Answer]]] = {
            "publish": self.publish,
            "cpu": cpu,
            "rss": rss,
        }

    async def listen(self, host: str) -> int:
        """Listen for acknowledgements of readers; the port."""
        self._server = await asyncio.start_server(self._read_acks, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _read_acks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while acks := await reader.read(4096):
            for _ in acks:
                self._arrived.put_nowait(1)

    async def publish(
        self, events: int, every_s: float = 0.0, together: int = 1, **to: str
    ) -> Answer:
        """The time of each event, and the seconds of all. Without *every_s* so many are sent
        *together* once those before have arrived.
        """
        while not self._arrived.empty():
            self._arrived.get_nowait()
        await asyncio.sleep(SETTLE_S)
        at_s: list[float] = []
        began_s = now_s()
        for first in range(0, events, together):
            if every_s:
                await asyncio.sleep(max(0.0, began_s + first * every_s - now_s()))
            numbers = range(self._number + 1, self._number + together + 1)
            self._number += together
            at_s += await asyncio.gather(*(self._send(number, **to) for number in numbers))
            for _ in numbers if not every_s else ():
                await asyncio.wait_for(self._arrived.get(), 30)
        return {"at": at_s, "seconds": now_s() - began_s}


# --- the sections


def watch(bench: Bench) -> list[Row]:
    """One job with many clients: at the rate of a busy job, then as fast as possible."""
    size = bench.size
    clients = f"{size.watchers:,} SSE clients of one job"
    what = f"{clients}, {RATE} events/s, commit to the last client"
    half = Row(f"{what}, p50", MILLISECONDS, BARE)
    most = Row(f"{what}, p99", MILLISECONDS, BARE, Floor(share=1))
    fast = Row(f"{clients}, each event waits for the last", DELIVERIES, BARE, Floor(share=0.9))
    burst = Row(f"the same, {TOGETHER} events in flight", DELIVERIES, BARE, Floor(1_000_000))
    states = Row("the same, snapshots instead of facts", DELIVERIES, BARE)
    with ExitStack() as stack:
        ours, at = stack.enter_context(bench.fresh("serve_http", **bench.parameters(0)))
        bare, bare_at = stack.enter_context(bench.fresh("bare"))
        state, fact = ours.call("job"), ours.call("job")
        facts_path = f"/v1/jobs/{fact['job']}/events?after={fact['head']}"
        say(f"watched: connecting 3 times {size.watchers} clients")
        facts = stack.enter_context(readers(at, facts_path, size.watchers))
        snapshots = stack.enter_context(readers(at, f"/v1/jobs/{state['job']}", size.watchers))
        others = stack.enter_context(readers(bare_at, "/events", size.watchers))
        for number in range(size.runs):
            say(f"watched, run {number + 1}")
            late = lateness(facts, ours, size.paced, every_s=1 / RATE, job=fact["job"])
            raw = lateness(others, bare, size.paced, every_s=1 / RATE)
            for row, share in ((half, 0.5), (most, 0.99)):
                row.add(percentile(late, share) * 1000, percentile(raw, share) * 1000)
            limit = deliveries(others, bare, size)
            fast.add(deliveries(facts, ours, size, job=fact["job"]), limit)
            limit_of_bursts = deliveries(others, bare, size, together=TOGETHER)
            burst.add(
                deliveries(facts, ours, size, together=TOGETHER, job=fact["job"]), limit_of_bursts
            )
            states.add(deliveries(snapshots, ours, size, job=state["job"]), limit)
    return [half, most, fast, burst, states]


def idle(bench: Bench) -> list[Row]:
    """Very many clients that receive almost nothing."""
    clients = f"{bench.size.idle:,} idle SSE clients"
    begin = Row(f"{bench.size.idle:,} SSE clients connect", SECONDS, BARE, Floor(2))
    cost = Row(f"{clients}, memory for each", KIBIBYTES, BARE, Floor(12))
    late = Row(f"{clients}, one broadcast to the last", MILLISECONDS, BARE, Floor(200))
    for number in range(min(bench.size.idle_runs, bench.size.runs)):
        say(f"idle, run {number + 1}")
        with bench.fresh("serve_http", **bench.parameters(0)) as (server, at):
            job = server.call("job")
            path = f"/v1/events?after={job['head']}"
            ours = quiet(bench.size, server, at, path, job=job["job"])
        with bench.fresh("bare") as (server, at):
            bare = quiet(bench.size, server, at, "/events")
        for row, figures, others in zip((begin, cost, late), ours, bare, strict=True):
            for figure, other in zip(figures, others, strict=True):
                row.add(figure, other)
    return [begin, cost, late]


def quiet(
    size: Size, server: Child, at: Answer, path: str, **to: Any
) -> list[Sequence[float | Sample]]:
    """The seconds in which all connect, KiB of each client, and milliseconds of each broadcast."""
    before, cpu_s = server.call("rss")["bytes"], server.cpu_s()
    reader, seconds = connect(at, path, size.idle)
    with reader:
        cpu_s = server.cpu_s() - cpu_s
        after = server.call("rss")["bytes"]
        spent = lateness(reader, server, size.broadcasts, **to)
    connected = Sample(seconds, cpu_s / size.idle * 1e6)
    return [[connected], [(after - before) / size.idle / 1024], [each * 1000 for each in spent]]


# --- readers


def readers(at: Answer, path: str, clients: int) -> Child:
    """A process with *clients* connected clients."""
    return connect(at, path, clients)[0]


def connect(at: Answer, path: str, clients: int) -> tuple[Child, float]:
    """A process with *clients* connected clients, and the seconds in which they connected."""
    parameters = {"port": at["port"], "path": path, "clients": clients, "acks": at["acks"]}
    child = Child("readers", parameters, "eventjobs.tools.bench.sse_readers")
    try:
        return child, child.answer()["seconds"]
    except BaseException:
        child.close()
        raise


def lateness(reader: Child, server: Child, events: int, **to: Any) -> list[float]:
    """Seconds from each event to its arrival at the last client."""
    reader.call("count", events=events)
    published = server.call("publish", events=events, **to)["at"]
    return [last - first for first, last in zip(published, reader.answer()["at"], strict=True)]


def deliveries(reader: Child, server: Child, size: Size, together: int = 1, **to: Any) -> Sample:
    """Deliveries a second when so many events are sent *together*, once the previous ones have
    reached all clients.
    """
    events = size.bursts * together
    reader.call("count", events=events)
    cpu_s = server.cpu_s()
    seconds = server.call("publish", events=events, together=together, **to)["seconds"]
    cpu_s = server.cpu_s() - cpu_s
    reader.answer()
    delivered = events * size.watchers
    return Sample(delivered / seconds, cpu_s / delivered * 1e6)

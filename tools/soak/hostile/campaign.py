"""Sends hostile requests to a service in a process of its own, and checks it afterwards.

In a round all shapes of the corpus are sent, some of TEXTS in every field, and requests with random
mutations, while slow clients keep connections open. Every answer has to be well-formed, and after a
round a job completes, the stream of events is exact, and the log of the service has no unexpected
error. In the end its sockets are closed, and requests that it refuses leave its memory flat.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from eventjobs.clock import SystemClock

from ..kills.server import Died, Servers
from . import message_ends, message_syntax, texts
from .answers import Answer, Malformed, read_answers
from .event_stream import read_events
from .mutations import mutate
from .process import open_sockets, resident_bytes

APP = "eventjobs.tools.soak.hostile.handlers:HANDLERS"
SHAPES = message_ends.SHAPES | message_syntax.SHAPES
#: The requests that leave nothing in the log.
REFUSED = [each.sent for each in SHAPES.values() if 202 not in each.statuses]
#: Short times, so that slow clients are disconnected soon.
SETTINGS = {f"EVENTJOBS_{name}": "3" for name in ("HEAD_TIMEOUT_S", "BODY_TIMEOUT_S", "STALL_S")}
CONNECTIONS = 16
#: Repetitions of the refused requests before the memory is measured.
WARM_UP = 2
#: The growth of the resident memory after the warm-up. A repetition sends some 10 MB.
GROWTH_BYTES_MAX = 5_000_000
#: An answer takes longer only when the service hangs.
PATIENCE_S = 30.0

now_s = SystemClock().monotonic_s


class Plan(NamedTuple):
    rounds: int
    seed: int
    #: of a round
    texts: int = len(texts.TEXTS)
    mutations: int = 500
    slow_clients: int = 40
    #: repetitions of the refused requests
    repeats: int = 10
    app: str = APP


@dataclass
class Outcome:
    plan: Plan
    connections: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    #: bytes in memory after each repetition of the refused requests
    resident: list[int] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {each}" for each, count in sorted(self.statuses.items()))
        memory = ", ".join(f"{each / 1e6:.1f}" for each in self.resident)
        return (
            f"{self.connections} connections in {self.plan.rounds} rounds, answers {statuses};"
            f" memory in MB {memory}; {self.seconds:.1f} s, seed {self.plan.seed}:"
            f" {'FAILED' if self.faults else 'all promises kept'}"
        )


class Campaign:
    """Rounds of requests to one service."""

    def __init__(self, data: Path, plan: Plan) -> None:
        self._data = data
        self._plan = plan
        self._drawn = random.Random(plan.seed)
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._outcome = Outcome(plan)
        self._port = 0

    async def run(self) -> Outcome:
        began_s = now_s()
        try:
            async with Servers(self._data, self._plan.app, 0, SETTINGS) as servers:
                await self._attack(servers)
        except* (Died, Malformed, OSError, TimeoutError) as group:
            self._outcome.faults += [f"the service: {each!r}" for each in group.exceptions]
        self._outcome.seconds = now_s() - began_s
        return self._outcome

    async def _attack(self, servers: Servers) -> None:
        life = await servers.command()
        self._port = int((await life.ready()).rpartition(":")[2])
        pid = await life.pid
        sockets = open_sockets(pid)
        async with asyncio.TaskGroup() as group:
            for number in range(self._plan.slow_clients):
                group.create_task(self._send_slowly(number))
            for _ in range(self._plan.rounds):
                await self._round()
        await self._check_memory(pid)
        await self._check_sockets(pid, sockets)
        self._outcome.faults += servers.complaints()

    def _fault(self, fault: str) -> None:
        self._outcome.faults.append(fault)

    # --- a round

    async def _round(self) -> None:
        _, head = await self._events(0, 1)
        async with asyncio.TaskGroup() as group:
            for name, shape in SHAPES.items():
                group.create_task(self._send_shape(name, shape))
            for text in self._drawn.sample(texts.TEXTS, self._plan.texts):
                group.create_task(self._send_text(text))
            for sent in self._mutations():
                group.create_task(self._send(sent))
        await self._check_health()
        await self._check_stream(head)

    async def _send_shape(self, name: str, shape: message_ends.Shape) -> None:
        statuses = [each.status for each in await self._send(shape.sent)]
        if statuses != list(shape.statuses):
            self._fault(f"{name!r} was answered {statuses[:5]}, and not {shape.statuses[:5]}")

    async def _send_text(self, text: str) -> None:
        ended = await self._submit("echo", None)
        waits = await self._submit("echo", None, delay_s=3600)
        for each in (
            texts.submissions(text),
            texts.reads(text, ended),
            texts.commands(text, waits),
        ):
            await self._send_all(each)
        far = await self._submit("far", None)
        claim = {"worker": texts.WORKER, "types": ["far"], "max": 1_000}
        await self._send(texts.with_json("POST", "/v1/work/claim", claim))
        await self._send_all(texts.reports(text, far, 1))

    async def _send_all(self, requests: Iterable[bytes]) -> None:
        for sent in requests:
            await self._send(sent)

    def _mutations(self) -> list[bytes]:
        """Requests of the corpus with a few bytes changed, left out or repeated."""
        shapes = [each.sent for each in SHAPES.values()]
        seeds = [each for each in shapes if 0 < len(each) < 2_000 and not each.startswith(b"HEAD")]
        seeds += [sent for text in texts.TEXTS[:9] for sent in texts.submissions(text)]
        return [mutate(self._drawn, self._drawn.choice(seeds)) for _ in range(self._plan.mutations)]

    async def _send_slowly(self, number: int) -> None:
        """A client that sends a part of a request, and then resets, waits, or sends a byte now and
        then; or one that disconnects while it is answered.
        """
        whole = message_ends.POST + b"Content-Length: 15\r\n\r\n" + message_ends.JOB
        part = whole[: self._drawn.randrange(1, len(whole))]
        disconnects, resets, trickles = (number % 4 == each for each in range(3))
        async with self._turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._outcome.connections += 1
        try:
            with suppress(ConnectionError):
                writer.write(texts.to_bytes("GET", "/openapi.json") if disconnects else part)
                await writer.drain()
                if disconnects:
                    await reader.read(100)
                if disconnects or resets:
                    writer.transport.abort()
                async with asyncio.timeout(PATIENCE_S):
                    while not reader.at_eof():
                        if trickles:
                            writer.write(b"x")
                        with suppress(TimeoutError):
                            async with asyncio.timeout(0.2):
                                await reader.read(2**16)
        finally:
            writer.close()

    # --- after a round

    async def _check_health(self) -> None:
        health = await self._ask(texts.to_bytes("GET", "/healthz"))
        if health.status != 200:
            self._fault(f"/healthz was answered {health}")
        job_id = await self._submit("echo", "still there")
        path = f"/v1/jobs/{job_id}"
        async for job in self._poll(path):
            if job["status"] == "completed":
                if job["result"] != "still there":
                    self._fault(f"the result of a job is {job['result']}")
                return

    async def _check_stream(self, after: int) -> None:
        """The stream of all events after that position is the same as the pages of them."""
        events, head = await self._events(after, 1_000)
        while events and events[-1]["position"] < head:
            more, head = await self._events(events[-1]["position"], 1_000)
            events += more
        if any(message_ends.MARK in str(each) for each in events if each["type"] == "JobSubmitted"):
            self._fault("a request was carried out that was hidden in another one")
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            fields = b"Accept: text/event-stream\r\nLast-Event-ID: %d\r\n" % after
            request = texts.to_bytes("GET", "/v1/events", fields)
            writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0"))  # which has no chunks
            await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                streamed = [each async for each in read_events(reader, len(events))]
        finally:
            writer.close()
        if streamed != events:
            self._fault(f"the stream after {after} is not the list of its {len(events)} events")

    async def _events(self, after: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """A page of events, and the head of the log."""
        path = f"/v1/events?after={after}&limit={limit}"
        answer = await self._ask(texts.to_bytes("GET", path))
        page = orjson.loads(answer.body)
        return page["events"], page["head"]

    async def _submit(self, type: str, payload: object, **more: object) -> str:
        submission = {"type": type, "payload": payload, **more}
        answer = await self._ask(texts.with_json("POST", "/v1/jobs", submission))
        job_id: str = orjson.loads(answer.body)["job_id"]
        return job_id

    async def _poll(self, path: str) -> AsyncIterator[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = await self._ask(texts.to_bytes("GET", path))
                yield orjson.loads(answer.body)
                await asyncio.sleep(0.01)

    async def _check_memory(self, pid: int) -> None:
        for _ in range(self._plan.repeats):
            async with asyncio.TaskGroup() as group:
                for sent in REFUSED:
                    group.create_task(self._send(sent))
            self._outcome.resident.append(resident_bytes(pid))
        resident = self._outcome.resident
        if resident and (grown := resident[-1] - max(resident[:WARM_UP])) > GROWTH_BYTES_MAX:
            self._fault(f"refused requests have left {grown} bytes in memory")

    async def _check_sockets(self, pid: int, expected: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while open_sockets(pid) > expected:  # noqa: ASYNC110  a process has no event
                    await asyncio.sleep(0.01)
        if (left := open_sockets(pid) - expected) > 0:
            self._fault(f"{left} sockets stay open")

    # --- one connection

    async def _ask(self, sent: bytes) -> Answer:
        """The only answer to *sent*. Raises Malformed."""
        answers = await self._send(sent)
        if len(answers) != 1:
            raise Malformed(f"{len(answers)} answers to {sent!r:.500}")
        return answers[0]

    async def _send(self, sent: bytes) -> list[Answer]:
        """The answers to *sent*. The client then ends its side, and reads until the end."""
        async with self._turns:
            received = await exchange(self._port, sent)
        self._outcome.connections += 1
        try:
            answers = read_answers(received, heads=sent.startswith(b"HEAD"))
        except Malformed as error:
            self._fault(f"{sent!r:.500} was answered with {error}")
            return []
        self._outcome.statuses.update(each.status for each in answers)
        return answers


async def exchange(port: int, sent: bytes) -> bytes:
    """All bytes that a client receives that sends *sent*, and then ends its side."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                writer.write(sent)
                writer.write_eof()
                while block := await reader.read(2**16):
                    received += block
    except TimeoutError:
        raise Malformed(
            f"no end of the answers to {sent!r:.500}, after {received!r:.500}"
        ) from None
    finally:
        writer.close()
    return received

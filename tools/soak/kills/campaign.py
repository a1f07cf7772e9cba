"""Kills the service under load, again and again, and checks that it kept every promise.

Sends SIGKILL to `eventjobs serve` at random moments while clients submit and read, and compares
the history of the clients with the log after every start.
"""

import asyncio
import random
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from eventjobs.clock import SystemClock

from ...replay import check
from .checker import Checker, Row, read_log
from .clients import Gate, Source, Submitter, read_events, read_jobs, read_snapshots
from .history import Due, History
from .requests import Requests, Targets
from .server import APP, Died, Life, Servers

SUBMITTERS = 5
JOB_READERS = 3
#: From readiness to the kill.
KILL_S = (0.02, 0.4)
#: The share of kills before readiness, and the time from the start to such a kill.
EARLY = 0.1
EARLY_S = {"forked": (0.0, 0.08), "command": (0.0, 1.2)}
#: One life in so many is started by the command; the others are forked.
COMMAND_EVERY = 20
VIEWS_EVERY = 25
#: The service finishes every job within this time when the kills are over.
DRAIN_S = 120.0

now_s = SystemClock().monotonic_s


class Plan(NamedTuple):
    kills: int
    seed: int
    #: no kill after this moment of the monotonic clock
    until_s: float = float("inf")
    #: where the handlers are
    app: str = APP


@dataclass
class Outcome:
    """The result of a campaign."""

    plan: Plan
    kills: int
    early: int
    checker: Checker
    history: History
    seconds: float

    @property
    def faults(self) -> list[str]:
        return self.history.faults + self.checker.faults

    def __str__(self) -> str:
        history = self.history
        return (
            f"{self.kills} kills ({self.early} while starting), {self.checker.head} events,"
            f" {len(self.checker.jobs)} jobs, {history.acknowledged} acknowledged,"
            f" {self.checker.recovered} of {history.outcomes['unknown']} unknown recovered,"
            f" readers: {history.delivered} events and {history.snapshots_seen} snapshots,"
            f" {self.seconds:.1f} s, seed {self.plan.seed}:"
            f" {'FAILED' if self.faults else 'all promises kept'}"
        )


class Campaign:
    """Lives of the service on one data directory."""

    def __init__(self, data: Path, plan: Plan, checker: type[Checker] = Checker) -> None:
        self._data = data
        self._plan = plan
        #: types of jobs, with their shares; None for those of requests.TYPES
        self._types: dict[str, int] | None = None
        self._settings: dict[str, str] = {}
        self._drawn = random.Random(plan.seed)
        self._history = History()
        self._checker = checker(self._history.attempted)
        self._targets = Targets()
        self._gate = Gate()
        self._stopping = asyncio.Event()
        self._kills = 0
        self._early = 0
        #: the log after the last start, and the claims that it has to confirm
        self._unchecked: tuple[str, list[Row], Due] | None = None

    _servers: Servers
    _session: aiohttp.ClientSession

    async def run(self) -> Outcome:
        began_s = now_s()
        patient = aiohttp.ClientTimeout(total=None)
        async with (
            Servers(self._data, self._plan.app, 0, self._settings) as self._servers,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=patient
            ) as self._session,
            asyncio.TaskGroup() as group,
        ):
            submitters = [self._submitter(f"submitter {n}") for n in range(SUBMITTERS)]
            submitting = [group.create_task(each.run()) for each in submitters]
            reading = [group.create_task(each) for each in self._readers()]
            try:
                while self._kills < self._plan.kills and not self._is_over():
                    await self._live_and_die()
                for each in submitters:
                    each.stop()
                self._check()
                if not self._faults():
                    await self._live_and_drain(submitting)
            except (Died, TimeoutError) as error:
                self._history.fault(f"after {self._kills} kills: {error or 'the service hangs'}")
            for task in (*submitting, *reading):
                task.cancel()
        took_s = now_s() - began_s
        return Outcome(self._plan, self._kills, self._early, self._checker, self._history, took_s)

    def _is_over(self) -> bool:
        return bool(self._faults()) or now_s() >= self._plan.until_s

    def _faults(self) -> list[str]:
        return self._history.faults + self._checker.faults

    # --- clients

    def _submitter(self, name: str) -> Submitter:
        plan, history = self._plan, self._history
        requests = Requests(name, plan.seed, history, self._targets, self._types)
        return Submitter(requests, self._history, self._targets, self._gate, self._session, name)

    def _readers(self) -> list[Coroutine[Any, Any, None]]:
        history = self._history
        everything = history.stream("reader of all events")
        some = history.stream("reader of two types", types=["slow", "flaky"])
        readers = [
            read_events(self._source(), everything, "/v1/events", history),
            read_events(self._source(), some, "/v1/events?type=slow,flaky", history),
            read_snapshots(self._source(), "reader of snapshots", history),
        ]
        for number in range(JOB_READERS):
            name = f"job reader {number}"
            choose = partial(self._targets.some, random.Random(f"{self._plan.seed} {name}"))
            readers.append(read_jobs(self._source(), name, history, choose, self._stopping))
        return readers

    def _source(self) -> Source:
        return Source(self._gate, self._session, self._history)

    # --- lives

    async def _live_and_die(self) -> None:
        """One life, killed at a random moment: under load, or while it starts."""
        commanded = self._kills % COMMAND_EVERY == COMMAND_EVERY - 1
        life = await (self._servers.command() if commanded else self._servers.fork())
        self._check()
        if self._drawn.random() < EARLY:
            await self._let_live(life, EARLY_S[life.how])
            self._early += not life.url.done()
        else:
            url = await life.ready()
            await self._read_log()
            self._gate.open(url)
            if self._kills % VIEWS_EVERY == VIEWS_EVERY - 1:
                await self._compare_views()
            await self._let_live(life, KILL_S)
        await self._kill(life)
        self._gate.close()
        self._kills += 1

    async def _kill(self, life: Life) -> None:
        code = await life.end(signal.SIGKILL)
        if code != -signal.SIGKILL:
            self._history.fault(f"killed, the server ended with {code}")

    async def _let_live(self, life: Life, between_s: tuple[float, float]) -> None:
        await asyncio.wait({life.dead}, timeout=self._drawn.uniform(*between_s))

    async def _live_and_drain(self, submitting: list[asyncio.Task[None]]) -> None:
        """The last life: every job ends, every stream is complete, and SIGTERM ends it."""
        life = await self._servers.command()
        self._check()
        url = await life.ready()
        await self._read_log()
        self._gate.open(url)
        async with asyncio.timeout(DRAIN_S):
            await asyncio.gather(*submitting)
            self._stopping.set()
            head = await self._wait_until_drained(url)
            while not self._has_delivered(head):
                await asyncio.wait({life.dead}, timeout=0.02)
        self._check()
        code = await life.end(signal.SIGTERM)
        if code != 0:
            self._history.fault(f"after SIGTERM the server ended with {code}")
        await self._read_log()
        self._check()
        await self._compare_views()
        self._checker.finish(self._history.streams, self._history.snapshots, self._data)

    async def _wait_until_drained(self, url: str) -> int:
        """Wait until every job is finished; the head of the log."""
        while True:
            counts = (await self._get(f"{url}/v1/counts"))["counts"]
            head: int = (await self._get(f"{url}/readyz"))["log_position"]
            left = sum(each.get("queued", 0) + each.get("running", 0) for each in counts.values())
            if not left:
                return head
            await self._get(f"{url}/v1/events?after={head}&wait=1")

    async def _get(self, url: str) -> Any:
        async with self._session.get(url) as response:
            return await response.json()

    def _has_delivered(self, head: int) -> bool:
        everything = self._history.streams[0]
        job_streams = [each for each in self._history.streams if each.ids is not None]
        return (
            everything.newest >= head
            and self._history.snapshots_newest >= head
            and all(each.ended for each in job_streams)
        )

    # --- checks

    async def _read_log(self) -> None:
        """Read the new rows of the log, right after a start; they are checked later."""
        assert self._unchecked is None
        due = Due.of(self._history)
        log_id, rows = await asyncio.to_thread(read_log, self._data, self._checker.head)
        self._unchecked = log_id, rows, due

    def _check(self) -> None:
        if self._unchecked is not None:
            self._checker.check(*self._unchecked)
            self._unchecked = None
        for line in self._servers.complaints():
            self._history.fault(f"the server logged: {line}")

    async def _compare_views(self) -> None:
        position, difference = await asyncio.to_thread(check, self._data, lambda *_: None)
        if difference is not None:
            self._history.fault(f"the views at position {position} are not the log's: {difference}")


async def campaign(data: Path, plan: Plan) -> Outcome:
    """Run *plan* on the data directory *data*."""
    return await Campaign(data, plan).run()

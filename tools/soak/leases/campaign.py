"""Kills and pauses remote workers, and kills the service, under load.

Every job must be completed once, by the attempt that held its lease. A silent worker loses its
attempts in time, and its late reports are refused.
"""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import aiohttp
import orjson

from eventjobs.clock import SystemClock

from ..kills.checker import read_log
from ..kills.history import Claim, Due, History
from ..kills.server import ROOT, Died, Life, Servers
from .checker import LeaseChecker
from .fates import Fate, Fates

SERVICE_APP = "eventjobs.tools.soak.leases.handlers:REMOTE"
WORKER_APP = "eventjobs.tools.soak.leases.handlers:HANDLERS"
LEASE_S = 2.0
WORKERS = 4
AT_ONCE = 4
#: The time a job takes.
JOB_S = (0.01, 0.2)
#: Jobs of one submission, and the time to the next.
LINES, SUBMIT_S = 250, 1.5
#: Times between two blows to a worker; of a pause, longer than a lease; of a life of the service.
BLOW_S = (1.0, 4.0)
PAUSE_S = (1.1 * LEASE_S, 2.5 * LEASE_S)
LIFE_S = (3.0, 7.0)
#: The share of blows that are pauses; the others are kills.
PAUSES = 0.6
#: Seconds for all jobs, on a machine that runs other tests beside it; and for a process to end.
DRAIN_S = 240.0
END_S = 30.0


class Plan(NamedTuple):
    jobs: int
    seed: int
    worker_app: str = WORKER_APP
    service_app: str = SERVICE_APP


class Worker:
    """`eventjobs worker`, one process after another."""

    def __init__(self, url: str, app: str, log: Path, fates: Fates) -> None:
        self._command = [sys.executable, "-m", "eventjobs", "worker", "--url", url, "--app", app]
        self._command += ["--concurrency", str(AT_ONCE), "--lease", str(LEASE_S)]
        self._log = log
        self._fates = fates
        self._clock = SystemClock()

    _process: asyncio.subprocess.Process
    _fate: Fate
    _paused_us: int

    async def start(self) -> None:
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT
            )
        finally:
            os.close(log)
        assert self._process.stdout is not None
        async with asyncio.timeout(END_S):
            name = (await self._process.stdout.readline()).decode().strip()
        if not name:
            raise Died(f"a worker did not start; see {self._log}")
        self._fate = self._fates.workers[name] = Fate()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        self._paused_us = self._clock.now_us()

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._fate.pauses.append((self._paused_us, self._clock.now_us()))

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()
        self._fate.ended_us = self._clock.now_us()

    async def end(self) -> int:
        """Send it SIGTERM; its exit code. Raises TimeoutError."""
        self._process.terminate()
        async with asyncio.timeout(END_S):
            return await self._process.wait()

    def abandon(self) -> None:
        with suppress(ProcessLookupError, AttributeError):
            self._process.kill()


class Outcome(NamedTuple):
    checker: LeaseChecker
    fates: Fates
    faults: list[str]
    seed: int

    @property
    def pauses(self) -> int:
        return sum(len(each.pauses) for each in self.fates.workers.values())

    @property
    def kills(self) -> int:
        return len(self.fates.workers) - WORKERS

    def __str__(self) -> str:
        checker = self.checker
        return (
            f"{len(checker.jobs)} jobs through {WORKERS} workers: {self.kills} kills and"
            f" {self.pauses} pauses of workers, {len(self.fates.lives) - 1} kills of the service,"
            f" {checker.lost} attempts lost, the slowest {checker.slowest_us / 1e6:.2f} s after its"
            f" lease, {checker.late} late reports refused, seed {self.seed}:"
            f" {'FAILED' if self.faults else 'all promises kept'}"
        )


class Campaign:
    """Lives of workers and of the service on one data directory."""

    def __init__(self, data: Path, plan: Plan) -> None:
        self._data = data
        self._plan = plan
        self._drawn = random.Random(plan.seed)
        self._history = History()
        self._fates = Fates(round(LEASE_S * 1e6))
        self._clock = SystemClock()
        self._submitted: set[str] = set()
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._workers: list[Worker] = []
        self._drained = asyncio.Event()

    _life: Life
    _servers: Servers
    _session: aiohttp.ClientSession

    async def run(self) -> Outcome:
        async with (
            Servers(self._data, self._plan.service_app, self._port) as self._servers,
            aiohttp.ClientSession() as self._session,
        ):
            try:
                await self._start()
                await self._drain_under_blows()
                await self._stop()
            except (Died, TimeoutError) as error:
                self._history.fault(f"{error or 'a process hangs'}")
            finally:
                for each in self._workers:
                    each.abandon()
        checker = LeaseChecker(self._history.attempted)
        checker.check(*read_log(self._data, 0), Due.of(self._history))
        checker.judge(self._submitted, self._fates)
        faults = self._history.faults + checker.faults
        return Outcome(checker, self._fates, faults, self._plan.seed)

    async def _start(self) -> None:
        await self._live()
        log = self._data.with_name("workers.log")
        for _ in range(WORKERS):
            worker = Worker(self._url, self._plan.worker_app, log, self._fates)
            self._workers.append(worker)
        await asyncio.gather(*(each.start() for each in self._workers))

    async def _drain_under_blows(self) -> None:
        """Kill and pause, until every job was submitted and has ended."""
        async with asyncio.TaskGroup() as group:
            for each in self._workers:
                group.create_task(self._strike(each))
            group.create_task(self._strike_service())
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._submit()
                    await self._wait_until_drained()
            finally:
                self._drained.set()

    async def _rest(self, between_s: tuple[float, float]) -> None:
        """Return after a random time, or when every job has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drawn.uniform(*between_s)):
                await self._drained.wait()

    async def _stop(self) -> None:
        """Send SIGTERM to the workers and the service; they must end with 0."""
        for each in self._workers:
            if (code := await each.end()) != 0:
                self._history.fault(f"after SIGTERM a worker ended with {code}")
        code = await self._life.end(signal.SIGTERM, END_S)
        if code != 0:
            self._history.fault(f"after SIGTERM the server ended with {code}")
        for line in self._servers.complaints():
            self._history.fault(f"the server logged: {line}")

    # --- the service

    async def _live(self) -> None:
        self._life = await self._servers.fork()
        await self._life.ready()
        self._fates.lives.append((self._clock.now_us(), 2**63))

    async def _strike_service(self) -> None:
        await self._rest(LIFE_S)
        while not self._drained.is_set():
            await self._life.end(signal.SIGKILL)
            self._fates.lives[-1] = self._fates.lives[-1][0], self._clock.now_us()
            await self._live()
            await self._rest(LIFE_S)

    # --- workers

    async def _strike(self, worker: Worker) -> None:
        await self._rest(BLOW_S)
        while not self._drained.is_set():
            if self._drawn.random() < PAUSES:
                worker.pause()
                await self._rest(PAUSE_S)
                worker.resume()
            else:
                await worker.kill()
                await worker.start()
            await self._rest(BLOW_S)

    # --- jobs

    async def _submit(self) -> None:
        left = self._plan.jobs
        while left > 0:
            lines = [self._line() for _ in range(min(left, LINES))]
            await self._batch(lines)
            left -= len(lines)
            await asyncio.sleep(SUBMIT_S)

    def _line(self) -> dict[str, Any]:
        job_id = str(UUID(int=self._drawn.getrandbits(128), version=4))
        self._submitted.add(job_id)
        token = self._history.attempt(f"job {len(self._submitted)}")
        payload = {"token": token, "s": self._drawn.uniform(*JOB_S)}
        return {"job_id": job_id, "type": self._drawn.choice(["nap", "doze"]), "payload": payload}

    async def _batch(self, lines: Iterable[dict[str, Any]]) -> None:
        """Submit until each line has a response; a repetition changes nothing."""
        left = {each["job_id"]: each for each in lines}
        while left:
            body = b"\n".join(map(orjson.dumps, left.values()))
            with suppress(aiohttp.ClientError, ConnectionError):
                async with self._session.post(
                    f"{self._url}/v1/jobs/batch",
                    data=body,
                    headers={"Content-Type": "application/x-ndjson"},
                ) as response:
                    async for line in response.content:
                        result = orjson.loads(line)
                        spec = left.pop(result["job_id"])
                        token = spec["payload"]["token"]
                        place = result["job_id"], result["position"]
                        claim = Claim("submitter", *place, token=token)
                        self._history.acknowledge(claim)
            if left:
                await asyncio.sleep(0.05)

    async def _wait_until_drained(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, ConnectionError):
                async with self._session.get(f"{self._url}/v1/counts") as response:
                    counts = (await response.json())["counts"]
                left = sum(
                    each.get("queued", 0) + each.get("running", 0) for each in counts.values()
                )
                if not left:
                    return
            await asyncio.sleep(0.1)


def free_port() -> int:
    """A port below the kernel's ephemeral range, so that it stays free between two lives."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


async def campaign(data: Path, plan: Plan) -> Outcome:
    """Run *plan* on the data directory *data*."""
    return await Campaign(data, plan).run()

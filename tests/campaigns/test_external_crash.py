"""External services and a killed server: a job that was handed over is not lost, and ends once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientError

from eventjobs.client import Client
from eventjobs.domain.codec import decode
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.tools.soak.kills.checker import read_log
from eventjobs.tools.soak.kills.rules import violation
from tests.support.external_service import LOOPBACK, Dispatched, ExternalService, external_service
from tests.support.servers import Server, start

TAKEN: tuple[int, Any] = (202, {})


class Mortal:
    """A server that can be killed, and restarted at the same address with the same data."""

    def __init__(self, folder: Path, at: ExternalService) -> None:
        self._data = folder / "data"
        self._environment = {"PYTHON_SERVICE_URL": at.url, "EVENTJOBS_OUTBOUND_ALLOW": LOOPBACK}
        self.server: Server
        self.lives = asyncio.Event()

    async def rise(self, port: int = 0) -> None:
        arguments = ("--app", "tests.support.external_app")
        self.server = await asyncio.to_thread(
            lambda: start(self._data, *arguments, port=port, **self._environment)
        )
        self.lives.set()

    async def die(self, *, kill: bool = True) -> int:
        self.lives.clear()
        process = self.server.process
        (process.kill if kill else process.terminate)()
        code = await asyncio.to_thread(process.wait, 30)
        assert process.stdout is not None
        process.stdout.close()
        return code

    async def die_and_rise(self) -> None:
        await self.die()
        await self.rise(int(self.server.url.rpartition(":")[2]))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with Client(self.server.url) as client:
            yield client


@asynccontextmanager
async def mortal(folder: Path, at: ExternalService) -> AsyncIterator[Mortal]:
    server = Mortal(folder, at)
    await server.rise()
    try:
        yield server
    finally:
        code = await server.die(kill=False)
    assert code == 0


async def story(jobs: Client, sent: Dispatched) -> list[str]:
    """The types of a job's events."""
    page = await jobs.history(sent.body["job_id"])
    return [each["type"] for each in page["entries"]]


async def test_what_a_service_has_taken_outlives_the_server_and_what_it_was_asked_comes_again(
    tmp_path: Path,
) -> None:
    async with external_service(TAKEN, None, TAKEN) as at, mortal(tmp_path, at) as server:
        async with server.client() as jobs:
            await jobs.submit("analyse")
            kept = await at.next()
            while "AttemptHandedOver" not in await story(jobs, kept):
                await kept.report({"progress": {"done": 1}})
            await jobs.submit("analyse")
            cut_off = await at.next()  # and gets no answer
        await server.die_and_rise()
        again = await at.next()
        assert again.body["job_id"] == cut_off.body["job_id"]
        assert again.body["attempt"] == 2
        assert (await kept.report({"progress": {"done": 2}}))[0] == 200
        for sent in (kept, again):
            assert (await sent.report({"status": "completed", "result": 1}))[0] == 200
        late = await cut_off.report({"status": "completed", "result": 2})
        assert late == (409, "stale_attempt")
        async with server.client() as jobs:
            for sent, attempt in ((kept, 1), (again, 2)):
                job = await jobs.wait(sent.body["job_id"])
                assert (job["attempt"], job["result"]) == (attempt, 1)
            assert (await story(jobs, kept)).count("AttemptStarted") == 1
            assert "LateReportRefused" in await story(jobs, cut_off)


async def test_however_often_a_server_is_killed_each_job_ends_once_by_the_attempt_that_held_it(
    tmp_path: Path,
) -> None:
    """By a service that fails now and then, and sends each report until it is answered."""
    answers = [TAKEN, TAKEN, (503, None), TAKEN] * 50
    async with external_service(*answers) as at, mortal(tmp_path, at) as server:
        refused: list[Dispatched] = []

        async def work(sent: Dispatched) -> None:
            report = {"status": "completed", "result": sent.body["attempt"]}
            while True:
                await server.lives.wait()
                try:
                    status, _ = await sent.report(report)
                except ClientError:
                    await asyncio.sleep(0)
                    continue
                assert status in {200, 409}
                if status == 409:
                    refused.append(sent)
                return

        async with asyncio.TaskGroup() as working:
            async with server.client() as jobs:
                submitted = [(await jobs.submit("analyse"))["job_id"] for _ in range(40)]
            for _ in range(3):
                for _ in range(10):
                    working.create_task(work(await at.next()))
                await server.die_and_rise()

            async def work_on() -> None:
                while True:
                    working.create_task(work(await at.next()))

            working_on = asyncio.create_task(work_on())
            async with server.client() as jobs:
                for job_id in submitted:
                    job = await jobs.wait(job_id)
                    assert (job["status"], job["result"]) == ("completed", job["attempt"])
                events = [each async for each in jobs.events(follow=False)]
            working_on.cancel()
        ends = [each["job_id"] for each in events if each["type"] == "JobCompleted"]
        assert sorted(ends) == sorted(submitted)
        evidence = [each["job_id"] for each in events if each["type"] == "LateReportRefused"]
        assert set(evidence) <= {each.body["job_id"] for each in refused}
    assert not faults(tmp_path / "data")


def faults(data: Path) -> list[str]:
    """Broken rules in the log of a server that has ended."""
    jobs: dict[str, Job] = {}
    faults = []
    for row in read_log(data, 0)[1]:
        event = decode(row.type, row.facts, row.body)
        place = row.position, row.job_id, row.version, row.at_us, row.actor
        recorded = Recorded(*place, event, row.type, row.facts, row.body)
        if (fault := violation(jobs.get(row.job_id), recorded)) is not None:
            faults.append(f"{row.type} at {row.position}: {fault}")
        jobs[row.job_id] = evolve(jobs.get(row.job_id), recorded)
    return faults

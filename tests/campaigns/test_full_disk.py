"""A full disk stops writes, not reads, and heals without a restart."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DiskFull, LogError, LogUnavailable, OutcomeUnknown
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import external, handler
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.external_service import LOOPBACK, external_service
from tests.support.histories import job_id
from tests.support.waiting import job_when


async def grow(disk: Path) -> None:
    """Enlarge the disk, as an operator does."""
    command = ["mount", "-o", "remount,size=16m", str(disk)]
    await asyncio.to_thread(subprocess.run, command, check=True)


def fill(disk: Path) -> None:
    """Leave no space at all."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


async def add(log: SQLiteLog, number: int, size: int) -> Recorded:
    event = JobSubmitted(JobSpec("test", os.urandom(size // 2).hex()))
    return await log.append(job_id(number), 0, event, actor="tester")


async def until_full(log: SQLiteLog, size: int) -> list[Recorded]:
    """The events that were accepted before the disk was full."""
    appended: list[Recorded] = []
    for first in range(0, 100_000, 5):
        numbers = range(first, first + 5)
        outcomes = await asyncio.gather(
            *(add(log, number, size) for number in numbers), return_exceptions=True
        )
        appended += [each for each in outcomes if isinstance(each, Recorded)]
        if refused := [each for each in outcomes if not isinstance(each, Recorded)]:
            assert all(isinstance(each, DiskFull) for each in refused), refused
            return appended
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("size", [20, 3_000, 100_000])
async def test_a_full_disk_refuses_appends_and_loses_nothing(small_disk: Path, size: int) -> None:
    path = small_disk / "log.db"
    log = await SQLiteLog.open(path)
    await asyncio.to_thread(fill_but, small_disk, 2**20)
    appended = await until_full(log, size)
    assert appended
    for number in range(200_000, 200_003):
        with pytest.raises(DiskFull):
            await add(log, number, 200_000)
    assert await log.read(0, 100_000) == appended
    assert log.head == len(appended)
    await grow(small_disk)
    appended.append(await add(log, 300_000, size))
    await log.close()
    again = await SQLiteLog.open(path)
    assert await again.read(0, 100_000) == appended
    await again.close()


def fill_but(disk: Path, left: int) -> None:
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(b"x" * (free - left))


async def test_a_log_read_from_a_full_disk_is_whole(small_disk: Path) -> None:
    """It is opened again without free space: events are read, new ones are refused."""
    path = small_disk / "log.db"
    log = await SQLiteLog.open(path)
    appended = [await add(log, number, 3_000) for number in range(20)]
    await log.close()
    log = await SQLiteLog.open(path)
    await asyncio.to_thread(fill, small_disk)
    assert await log.read(0, 100) == appended
    with pytest.raises((DiskFull, LogUnavailable, OutcomeUnknown)):
        await add(log, 99, 3_000)
    assert await log.read(0, 100) == appended
    (small_disk / "ballast").unlink()
    while not await accepts(log, 99):
        pass
    await log.close()


async def accepts(log: SQLiteLog, number: int) -> bool:
    try:
        await add(log, number, 3_000)
    except LogError:
        return False
    return True


# --- a whole service


@handler("echo")
async def echo(context: Context, payload: Any) -> int:
    context.progress(1, 2, stage="half")
    return len(payload)


async def submit_until_full(service: Service) -> list[str]:
    accepted: list[str] = []
    while True:
        try:
            accepted.append((await service.submit("echo", os.urandom(30_000).hex())).job_id)
        except DiskFull:
            return accepted


async def test_a_service_on_a_full_disk_answers_and_goes_on_when_there_is_room(
    small_disk: Path, serve: Serve
) -> None:
    service = await serve(echo, data=small_disk / "data", progress_interval_s=0)
    accepted = await submit_until_full(service)
    await asyncio.to_thread(fill, small_disk)
    with pytest.raises((DiskFull, LogUnavailable)):
        await service.submit("echo", os.urandom(200_000).hex())
    assert service.ready
    read = await service.log.read(0, 10_000)
    assert {each.job_id for each in read} == set(accepted)
    jobs = await service.views.jobs({}, order="newest", cursor=None, limit=1000)
    assert {each.job.job_id for each in jobs} <= set(accepted)
    await grow(small_disk)
    for each in accepted:
        job = await service.wait(each)
        assert (job.status, job.result) == ("completed", 60_000)
    job = await service.submit("echo", "more")
    await service.wait(job.job_id)
    await service.views.wait_for_position(service.log.head)
    assert await service.views.counts() == {"echo": {"completed": len(accepted) + 1}}


async def test_an_outcome_waits_until_it_can_be_written(small_disk: Path, serve: Serve) -> None:
    go = asyncio.Event()
    ran: list[int] = []

    @handler("large")
    async def large(context: Context, payload: Any) -> str:
        ran.append(context.attempt)
        await go.wait()
        return "x" * 200_000

    service = await serve(large, data=small_disk / "data")
    job = await service.submit("large")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await asyncio.to_thread(fill, small_disk)
    go.set()
    with pytest.raises((DiskFull, LogUnavailable)):
        await service.submit("large", os.urandom(200_000).hex())
    await grow(small_disk)
    job = await service.wait(job.job_id)
    assert (job.status, job.result) == ("completed", "x" * 200_000)
    assert ran == [1], "it was not run again"


async def test_a_report_of_an_external_service_is_not_lost_on_a_full_disk(
    small_disk: Path, client: Connect
) -> None:
    """It is refused as long as the disk is full, and counts when it is sent again."""
    async with external_service((202, {})) as at:
        handler = external("analyse", dispatch_url=f"{at.url}/analyse")
        api = await client(handler, data=small_disk / "data", outbound_allow=LOOPBACK)
        job = await api.submit("analyse")
        sent = await at.next()
        await job_when(api.service, job["job_id"], lambda job: job.silence_s is not None)
        await asyncio.to_thread(fill, small_disk)
        report = {"status": "completed", "result": "x" * 200_000}
        status, code = await sent.report(report)
        assert (status, code) in {(507, "disk_full"), (503, "log_unavailable")}
        await grow(small_disk)
        while (answer := await sent.report(report))[0] != 200:
            assert answer[1] in {"disk_full", "log_unavailable"}
        assert answer[1]["repeated"] is False
        assert (await api.service.wait(job["job_id"])).result == "x" * 200_000


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
async def test_a_start_on_a_full_disk_serves_reads_and_recovers_later(
    small_disk: Path, client: Connect, closed: bool
) -> None:
    """A job that ran when the service ended is recovered once there is space."""
    data = small_disk / "data"
    first = Service(data, [echo])
    await first.start()
    ended = await first.submit("echo", "before")
    await first.wait(ended.job_id)
    await first.views.wait_for_position(first.log.head)
    await first.runner.stop(0.0)
    lost = await first.submit("echo", "lost")
    await first.jobs.start(lost.job_id, worker="a worker that is gone")
    if not closed:
        await asyncio.to_thread(shutil.copytree, data, small_disk / "copy")
    await first.close()
    data = data if closed else small_disk / "copy"
    await asyncio.to_thread(fill, small_disk)
    api = await client(echo, data=data)
    readiness = (await api.get("/readyz")).json
    assert (readiness["ready"], readiness["writable"], readiness["recovered"]) == (
        True,
        False,
        False,
    )
    assert "full" in readiness["unwritable"]
    assert (await api.get(f"/v1/jobs/{ended.job_id}")).json["result"] == 6
    assert (await api.get(f"/v1/jobs/{lost.job_id}")).status == 200
    assert len((await api.get("/v1/events")).json["events"]) >= 3
    reply = await api("POST", "/v1/jobs", {"type": "echo", "payload": os.urandom(99_000).hex()})
    assert (reply.status, reply.code) in {(507, "disk_full"), (503, "log_unavailable")}
    await grow(small_disk)
    assert (await api.service.wait(lost.job_id)).result == 4
    new = await api.submit("echo", "after")
    assert (await api.service.wait(new["job_id"])).result == 5
    readiness = (await api.get("/readyz")).json
    assert readiness.items() >= {"writable": True, "recovered": True}.items()

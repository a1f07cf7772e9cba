"""How many processes there are, and for how long; prefetched jobs."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventjobs.attempts.local_source import LocalJobSource
from eventjobs.domain.ids import new_id
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.execution.processes import pool
from eventjobs.execution.processes.worker_process import ProcessRun, WorkerProcess
from eventjobs.execution.source import WithdrawReason
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.clock import FakeClock
from tests.support.process_handlers import (
    loop,
    pid,
    waits,
)
from tests.support.processes import first_report, result_of, until_gone
from tests.support.waiting import job_when, kinds, turns


async def test_as_many_run_at_once_as_is_set_and_the_loop_is_free(serve: Serve) -> None:
    @handler("quick")
    async def quick(context: Context, payload: Any) -> str:
        return "quick"

    service = await serve(loop, pid, quick, processes=2, drain_s=0)
    first, second, third = [(await service.submit("loop")).job_id for _ in range(3)]
    running = {(await first_report(service, each))["pid"] for each in (first, second)}
    assert len(running) == 2
    assert await result_of(service, "quick") == "quick"
    assert await kinds(service, third) == "JobSubmitted"
    await service.jobs.cancel(first, actor="test")
    await first_report(service, third)


async def test_the_next_job_runs_while_an_outcome_is_written_down(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a pool of short jobs waited for the disk twice, and most processes had no work."""
    service = await serve(pid, processes=1)
    written = asyncio.Event()
    settle = service.recorder.record

    async def slowly(job: Job, outcome: Outcome, *, actor: str) -> Job:
        if job.job_id == first:
            await written.wait()
        return await settle(job, outcome, actor=actor)

    monkeypatch.setattr(service.recorder, "record", slowly)
    first = (await service.submit("pid")).job_id
    used = await result_of(service, "pid")
    assert await kinds(service, first) == "JobSubmitted AttemptStarted"
    written.set()
    assert (await service.wait(first)).result == used


async def test_a_process_is_used_again_so_often_and_until_it_has_rested_too_long(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(pid, clock=clock, process_jobs_max=3)
    pids = [await result_of(service, "pid") for _ in range(4)]
    assert pids[0] == pids[1] == pids[2] != pids[3]
    await until_gone(pids[0])
    await clock.advance(pool.IDLE_S)
    await until_gone(pids[3])
    assert await result_of(service, "pid") not in pids


async def test_a_process_that_dies_at_rest_fails_no_job(serve: Serve) -> None:
    service = await serve(pid)
    first = await result_of(service, "pid")
    os.kill(first, signal.SIGKILL)
    await until_gone(first)
    await turns()
    assert await result_of(service, "pid") != first


# --- prefetched jobs


BEGUN = "JobSubmitted AttemptStarted"


async def two(service: Service, pipe: Path, **spec: Any) -> tuple[str, str, int]:
    """A job that has the only process until *pipe* is written to, and one that waits for it.

    Those before have been so short that the second is claimed ahead.
    """
    for _ in range(2):
        await result_of(service, "pid")
    running = (await service.submit("waits", str(pipe))).job_id
    process = (await first_report(service, running))["pid"]
    waiting = (await service.submit("pid", **spec)).job_id
    await job_when(service, waiting, lambda job: job.status == "running")
    await turns()
    return running, waiting, process


@pytest.mark.parametrize("limit", ["timeout_s", "stall_timeout_s"])
async def test_while_jobs_are_short_the_next_waits_for_the_process(
    serve: Serve, clock: FakeClock, pipe: Path, limit: str
) -> None:
    """And its time begins with its handler."""
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe, **{limit: pool.WAIT_S / 2})
    await clock.advance(pool.WAIT_S * 0.9)
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(waiting)).result == process
    assert (await service.wait(running)).result == "done"
    assert await kinds(service, waiting) == f"{BEGUN} JobCompleted"


async def test_a_job_that_waits_longer_than_expected_is_given_back(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    """It has not started, so that is no attempt. It is not claimed again while the other runs."""
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe, max_attempts=1)
    await clock.advance(pool.WAIT_S)
    await job_when(service, waiting, lambda job: job.status == "queued")
    await service.views.wait_for_position(service.log.head)
    await clock.advance(pool.WAIT_S)
    assert await kinds(service, waiting) == f"{BEGUN} AttemptReleased"
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(waiting)).result == process
    assert (await service.wait(running)).result == "done"


async def test_a_job_that_waits_is_cancelled_at_once_and_alone(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe)
    await service.jobs.cancel(waiting, actor="test")
    assert (await service.wait(waiting)).status == "cancelled"
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(running)).result == "done"
    assert await result_of(service, "pid") == process


@pytest.mark.parametrize("how", ["killed", "cancelled"])
async def test_a_job_that_waits_has_nothing_to_do_with_how_the_other_ends(
    serve: Serve, clock: FakeClock, pipe: Path, how: str
) -> None:
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe, max_attempts=1)
    if how == "killed":
        os.kill(process, signal.SIGKILL)
    else:
        await service.jobs.cancel(running, actor="test")
    assert (await service.wait(waiting)).result != process
    assert await kinds(service, waiting) == f"{BEGUN} JobCompleted"
    await until_gone(process)


async def test_after_a_long_job_none_is_prefetched(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    service = await serve(pid, waits, processes=1, clock=clock)
    for _ in range(2):
        await result_of(service, "pid")
    for _ in range(2):
        running = (await service.submit("waits", str(pipe))).job_id
        await first_report(service, running)
        behind = (await service.submit("pid")).job_id
        await service.views.wait_for_position(service.log.head)
        await clock.advance(1.0)
        before = await kinds(service, behind)
        await asyncio.to_thread(pipe.write_text, "done")
        await service.wait(running)
        await service.wait(behind)
    assert before == "JobSubmitted"


async def test_closing_gives_back_what_waits_and_lets_finish_what_runs(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    service = await serve(pid, waits, processes=1, clock=clock, drain_s=60)
    running, waiting, _ = await two(service, pipe, max_attempts=1)
    closing = asyncio.create_task(service.close())
    await job_when(service, waiting, lambda job: job.status == "queued")
    assert await kinds(service, waiting) == f"{BEGUN} AttemptReleased"
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(running)).result == "done"
    await closing


async def test_jobs_are_short_by_what_they_take_whatever_the_clock_shows(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    clock.freeze(3600)
    service = await serve(pid, waits, processes=1, clock=clock)
    async with asyncio.timeout(60):
        running, waiting, _ = await two(service, pipe)
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(running)).result == "done"
    await service.wait(waiting)


async def test_a_job_that_is_cancelled_as_it_gets_its_process_is_not_given_back(
    serve: Serve, clock: FakeClock, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler runs, and is stopped like any other."""
    stops: list[Callable[[str, int, WithdrawReason], object]] = []
    monkeypatch.setattr(LocalJobSource, "on_stop", lambda source, stop: stops.append(stop))
    begin, waiting = WorkerProcess.begin, new_id(clock.now_us())

    def begin_and_stop(process: WorkerProcess, run: ProcessRun) -> None:
        begin(process, run)
        if run.job.job_id == waiting:
            for stop in stops:
                asyncio.get_running_loop().call_soon(stop, waiting, 1, "cancelled")

    monkeypatch.setattr(WorkerProcess, "begin", begin_and_stop)
    service = await serve(pid, waits, loop, processes=1, clock=clock)
    for _ in range(2):
        await result_of(service, "pid")
    running = (await service.submit("waits", str(pipe))).job_id
    await first_report(service, running)
    await service.submit("loop", job_id=waiting)
    await job_when(service, waiting, lambda job: job.status == "running")
    await turns()
    await asyncio.to_thread(pipe.write_text, "done")
    ended = await job_when(service, waiting, lambda job: job.status != "running")
    assert (ended.status, ended.attempt) == ("cancelled", 1)

"""Handlers in processes: what comes back, how they are stopped, and that nothing is left behind."""

import asyncio
import os
import select
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs.domain.events import AttemptFailed, LogWritten
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.errors import InvalidInput
from eventjobs.execution.processes import pool as processes
from eventjobs.execution.processes.reaper import ProcessReaper
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.cli import Tool
from tests.support.clock import FakeClock
from tests.support.process_handlers import (
    deaf,
    end,
    flood,
    forks,
    large,
    left,
    loop,
    pid,
    tidy,
    waits,
    work,
)
from tests.support.servers import serving, start
from tests.support.waiting import job_when, kinds, recorded_of, time_passing, told, turns

ROOT = Path(__file__).parents[2]


async def begun(service: Service, job_id: str) -> dict[str, Any]:
    """What a handler tells first, once it has: the pid of its process, and more."""
    while True:
        head = service.log.head
        for each in await told(service, job_id):
            if isinstance(each, LogWritten) and each.message == "begun":
                assert isinstance(each.fields, dict)
                return each.fields
        await service.log.wait(head, job_id)


def wait_until_gone(pid: int) -> None:
    """Return when the process has ended, whoever its parent is."""
    try:
        ending = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([ending], [], [], 20)[0], f"process {pid} goes on"
    finally:
        os.close(ending)


async def gone(pid: int) -> None:
    await asyncio.to_thread(wait_until_gone, pid)


async def result_of(service: Service, type: str, payload: Any = None) -> Any:
    job = await service.wait((await service.submit(type, payload)).job_id)
    assert job.status == "completed", job.error
    return job.result


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


# --- what comes back


async def test_it_does_all_that_other_handlers_do(
    client: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    api = await client(work)
    sha256 = (await api("POST", "/v1/artifacts", data=b"given")).json["sha256"]
    job_id = (await api.submit("work", {"item": "tea"}, artifacts={"given.txt": sha256}))["job_id"]
    job = await api.service.wait(job_id)
    path = f"/v1/jobs/{job_id}"
    assert job.result == {"item": "tea", "stdin": "", "pid": job.result["pid"]}
    assert job.result["pid"] != os.getpid()

    seen = (await api.get(path)).json
    assert (seen["status"], seen["progress"], seen["stage"]) == ("completed", 100, "stage 2")
    events = (await api.get(f"{path}/events")).json["events"]
    assert [each["type"] for each in events] == [
        *["JobSubmitted", "AttemptStarted", "LogWritten"],
        *["ProgressReported"] * 3,
        *["LogWritten", "ArtifactStored"] * 2,
        "JobCompleted",
    ]
    assert events[2]["data"]["fields"] == {"pid": job.result["pid"]}
    assert (await api.get(f"{path}/artifacts/bytes.txt")).body == b"given and more"
    assert (await api.get(f"{path}/artifacts/file.txt")).body == b"a file"
    printed = capfd.readouterr()
    assert "this goes to tea\n" in printed.err
    assert "this goes to tea" not in printed.out


async def test_a_payload_that_does_not_fit_is_refused(serve: Serve) -> None:
    service = await serve(work)
    with pytest.raises(InvalidInput):
        await service.submit("work", {})


ENDS: dict[str, dict[str, Any]] = {
    "killed": {
        "code": "worker_crashed",
        "message": "the process was killed by SIGKILL (out of memory?)",
        "details": {"signal": "SIGKILL"},
    },
    "segfault": {
        "code": "worker_crashed",
        "message": "the process was killed by SIGSEGV",
        "details": {"signal": "SIGSEGV"},
    },
    "exit code": {
        "code": "worker_crashed",
        "message": "the process ended with exit code 3 before the handler returned",
        "details": {"exit_code": 3},
    },
    "another program": {"code": "worker_crashed", "details": {"exit_code": 4}},
    "sys.exit": {"code": "handler_error", "message": "SystemExit: 5"},
    "exception": {"code": "handler_error", "message": "ValueError: a ? wrong value"},
    "job error": {
        "code": "no_tea",
        "message": "there is no tea",
        "retryable": False,
        "details": {"cups": [1, 2]},
    },
    "not json": {"code": "result_not_json", "retryable": False},
    "too large": {"code": "step_too_large", "retryable": False},
    "bad name": {"code": "invalid_input", "retryable": False},
    "no such file": {"code": "handler_error"},
    "bad level": {
        "code": "handler_error",
        "message": "ValueError: level is one of debug, info, warning, error",
    },
}


async def test_whatever_ends_a_handler_is_told_and_the_next_job_runs(serve: Serve) -> None:
    service = await serve(end, pid, processes=1)
    for how, expected in ENDS.items():
        before = await result_of(service, "pid")
        job = await service.wait((await service.submit("end", how, max_attempts=1)).job_id)
        assert job.status == "failed"
        event = (await told(service, job.job_id))[-1]
        assert isinstance(event, AttemptFailed)
        assert {name: getattr(event, name) for name in expected} == expected, how
        if event.code == "handler_error":
            assert "process_handlers.py" in event.details["traceback"]
        died = event.code == "worker_crashed"
        assert (await result_of(service, "pid") != before) == died, how


async def test_a_large_result_comes_whole(serve: Serve) -> None:
    service = await serve(large)
    job = await service.wait((await service.submit("large", 9 * 2**20)).job_id)
    assert job.result == {"artifact": "result.json", "size": 9 * 2**20 + 2}


async def test_a_process_that_died_is_a_failed_attempt_like_any_other(serve: Serve) -> None:
    service = await serve(end)
    job = await service.submit("end", "killed", max_attempts=2, retry_delay_s=0.0)
    job = await service.wait(job.job_id)
    assert await kinds(service, job.job_id) == (
        "JobSubmitted AttemptStarted AttemptFailed AttemptStarted ArtifactStored AttemptFailed"
    )


async def test_a_flood_of_reports_is_taken_like_that_of_others(serve: Serve) -> None:
    service = await serve(flood, progress_interval_s=0)
    job = await service.wait((await service.submit("flood", 500)).job_id)
    assert job.status == "completed"
    assert len(await recorded_of(service, job.job_id, LogWritten)) >= 500


async def test_what_a_thread_tells_after_its_job_is_not_the_next_ones(serve: Serve) -> None:
    service = await serve(left, pid)
    await result_of(service, "left")
    for _ in range(20):
        job = await service.wait((await service.submit("pid")).job_id)
        assert await kinds(service, job.job_id) == "JobSubmitted AttemptStarted JobCompleted"


async def test_a_handler_may_use_processes_of_its_own(serve: Serve) -> None:
    """Those it forked used to ignore SIGTERM as it does itself: a pool of them never ended."""
    service = await serve(forks)
    assert await result_of(service, "forks") == [[1, 2], 7]


# --- stopping


STOPPED = "JobSubmitted AttemptStarted LogWritten CancelRequested JobCancelled"


@pytest.mark.parametrize("kind", ["loop", "waits"])
async def test_cancel_interrupts_ordinary_python(
    client: Connect, clock: FakeClock, pipe: Path, kind: str
) -> None:
    """At once: the clock stands still, so no grace time passes, and nobody is killed."""
    api = await client(loop, waits, clock=clock)
    job_id = (await api.submit(kind, str(pipe)))["job_id"]
    process = (await begun(api.service, job_id))["pid"]
    assert (await api("POST", f"/v1/jobs/{job_id}/cancel")).status == 200
    job = await api.service.wait(job_id)
    assert job.status == "cancelled"
    assert await kinds(api.service, job_id) == STOPPED
    await gone(process)  # what was interrupted anywhere is not used again


async def test_what_does_not_stop_is_killed_with_all_it_has_started(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(deaf, pid, clock=clock, grace_s=5, processes=1)
    job_id = (await service.submit("deaf")).job_id
    its = await begun(service, job_id)
    assert Path(its["file"]).is_relative_to(service.settings.data / "scratch")
    await service.jobs.cancel(job_id, actor="test")
    await service.views.reached(service.log.head)
    await turns()
    await clock.advance(4.9)
    os.kill(its["pid"], 0)  # it is given its time
    await clock.advance(0.1)
    assert (await service.wait(job_id)).status == "cancelled"
    await gone(its["pid"])
    await gone(its["other"])
    assert await result_of(service, "pid") != its["pid"]
    await time_passing(clock, service.close())
    assert not Path(its["file"]).exists()


async def test_a_run_that_takes_too_long_is_stopped(serve: Serve, clock: FakeClock) -> None:
    service = await serve(loop, pid, clock=clock)
    job_id = (await service.submit("loop", timeout_s=60, max_attempts=1)).job_id
    process = (await begun(service, job_id))["pid"]
    await clock.advance(60)
    job = await service.wait(job_id)
    told = {"code": "timeout", "class": "timeout", "message": "ran longer than 60 s"}
    assert job.error == {**told, "retryable": True}
    await gone(process)
    assert await result_of(service, "pid") != process


@pytest.mark.parametrize(
    ("does", "status", "result"),
    [
        ("raise", "cancelled", None),
        ("fail", "cancelled", None),
        ("return", "completed", "what there was"),
    ],
)
async def test_a_handler_that_is_stopped_can_tidy_up(
    serve: Serve, clock: FakeClock, does: str, status: str, result: Any
) -> None:
    service = await serve(tidy, clock=clock)
    job_id = (await service.submit("tidy", does)).job_id
    await begun(service, job_id)
    await service.jobs.cancel(job_id, actor="test")
    job = await service.wait(job_id)
    assert (job.status, job.result) == (status, result)
    lines = [each.event for each in await recorded_of(service, job_id, LogWritten)]
    assert lines[-1] == LogWritten(1, "info", "tidied up", {"cancelled": True})


async def test_a_job_is_cancelled_while_its_process_starts(serve: Serve) -> None:
    service = await serve(pid)
    job = await service.submit("pid")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).status in ("cancelled", "completed")
    assert await result_of(service, "pid")


async def test_a_sigterm_from_elsewhere_is_for_the_service_to_answer(
    serve: Serve, pipe: Path
) -> None:
    """A supervisor sends one to all processes of a service: jobs are drained all the same."""
    service = await serve(waits)
    job_id = (await service.submit("waits", str(pipe))).job_id
    os.kill((await begun(service, job_id))["pid"], signal.SIGTERM)
    await asyncio.to_thread(pipe.write_text, "and went on")
    assert (await service.wait(job_id)).result == "and went on"


async def test_closing_gives_back_what_does_not_finish(serve: Serve, clock: FakeClock) -> None:
    service = await serve(deaf, clock=clock, drain_s=1, grace_s=1)
    job_id = (await service.submit("deaf")).job_id
    its = await begun(service, job_id)
    await time_passing(clock, service.close())
    assert await kinds(service, job_id) == (
        "JobSubmitted AttemptStarted LogWritten AttemptReleased"
    )
    await gone(its["pid"])
    await gone(its["other"])


# --- the pool


async def test_as_many_run_at_once_as_is_set_and_the_loop_is_free(serve: Serve) -> None:
    @handler("quick")
    async def quick(context: Context, payload: Any) -> str:
        return "quick"

    service = await serve(loop, pid, quick, processes=2, drain_s=0)
    first, second, third = [(await service.submit("loop")).job_id for _ in range(3)]
    running = {(await begun(service, each))["pid"] for each in (first, second)}
    assert len(running) == 2
    assert await result_of(service, "quick") == "quick"
    assert await kinds(service, third) == "JobSubmitted"
    await service.jobs.cancel(first, actor="test")
    await begun(service, third)


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
    await gone(pids[0])
    await clock.advance(processes.IDLE_S)
    await gone(pids[3])
    assert await result_of(service, "pid") not in pids


async def test_a_process_that_dies_at_rest_fails_no_job(serve: Serve) -> None:
    service = await serve(pid)
    first = await result_of(service, "pid")
    os.kill(first, signal.SIGKILL)
    await gone(first)
    await turns()
    assert await result_of(service, "pid") != first


async def test_a_process_is_the_first_to_be_killed_when_memory_runs_out(serve: Serve) -> None:
    service = await serve(pid)
    adjusted = "oom_score_adj"
    ours = int(Path("/proc/self", adjusted).read_text())
    theirs = int(Path("/proc", str(await result_of(service, "pid")), adjusted).read_text())
    assert theirs == min(1000, ours + 200)


async def test_a_process_that_cannot_be_started_is_a_failed_attempt(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(pid)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        job = await service.wait((await service.submit("pid", max_attempts=1)).job_id)
    assert job.error is not None
    assert job.error["code"] == "worker_not_started"
    assert job.error["retryable"]
    assert not list((service.settings.data / "scratch").iterdir())
    assert await result_of(service, "pid")


def test_a_process_imports_no_more_of_eventjobs_than_handlers_do() -> None:
    """Half of its start would be the log, the views and their libraries."""
    code = "import eventjobs.execution.processes.child, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert "eventjobs.handlers" in imported
    assert not imported & {
        "aiohttp",
        "aiosqlite",
        "sqlite3",
        "structlog",
        "eventjobs.execution.source",
    }


# --- one waits while another runs


BEGUN = "JobSubmitted AttemptStarted"


async def two(service: Service, pipe: Path, **spec: Any) -> tuple[str, str, int]:
    """A job that has the only process until *pipe* is written to, and one that waits for it.

    Those before have been so short that the second is claimed ahead.
    """
    for _ in range(2):
        await result_of(service, "pid")
    running = (await service.submit("waits", str(pipe))).job_id
    process = (await begun(service, running))["pid"]
    waiting = (await service.submit("pid", **spec)).job_id
    await job_when(service, waiting, lambda job: job.status == "running")
    await turns()
    return running, waiting, process


async def test_while_jobs_are_short_the_next_waits_for_the_process(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    """And its time begins with its handler."""
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe, timeout_s=processes.WAIT_S / 2)
    await clock.advance(processes.WAIT_S * 0.9)
    await asyncio.to_thread(pipe.write_text, "done")
    assert (await service.wait(waiting)).result == process
    assert (await service.wait(running)).result == "done"
    assert await kinds(service, waiting) == f"{BEGUN} JobCompleted"


async def test_a_job_that_waits_longer_than_expected_is_given_back(
    serve: Serve, clock: FakeClock, pipe: Path
) -> None:
    """It has not begun, so that is no attempt; and it is not taken again while that goes on."""
    service = await serve(pid, waits, processes=1, clock=clock)
    running, waiting, process = await two(service, pipe, max_attempts=1)
    await clock.advance(processes.WAIT_S)
    await job_when(service, waiting, lambda job: job.status == "queued")
    await service.views.reached(service.log.head)
    await clock.advance(processes.WAIT_S)
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
    await gone(process)


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


# --- where handlers come from


def test_what_another_process_cannot_import_is_refused() -> None:
    register = handler("x", process=True)
    with pytest.raises(TypeError, match="an async def runs on the loop"):

        @register
        async def on_the_loop(context: Context, payload: Any) -> None: ...

    with pytest.raises(TypeError, match="define it at the top level of a module"):

        @register
        def inner(context: ThreadContext, payload: Any) -> None: ...

    with pytest.raises(TypeError, match="define it at the top level of a module"):
        register(lambda context, payload: None)


PROGRAM = """
import asyncio, os, sys
from eventjobs import Service, handler

@handler("mine", process=True)
def mine(context, payload):
    return [__name__, os.getppid(), sys.argv[1:]]

async def main():
    async with Service("data", [mine]) as service:
        job = await service.wait((await service.submit("mine")).job_id)
        assert job.result == ["__mp_main__", os.getpid(), ["an argument"]], job

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", [["program.py"], ["-m", "program"]])
def test_handlers_in_the_program_itself(tmp_path: Path, how: list[str]) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, *how, "an argument"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)


def test_a_prompt_has_no_handlers_for_processes(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-"],
        input=PROGRAM,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TypeError: handler 'mine': __main__.mine cannot be imported" in run.stderr


# --- the service as a process

APP = """
import os, re, signal, subprocess, sys
from pathlib import Path
from eventjobs import handler

@handler("forever", process=True)
def forever(context, payload):
    how, fifo = payload
    pids = [os.getpid()]
    if how == "others":
        program = [sys.executable, "-c", "import signal; signal.pause()"]
        pids += [subprocess.Popen(program).pid, os.fork() or signal.pause()]
    Path(fifo).write_text(" ".join(map(str, pids)))
    if how == "waits":
        signal.pause()
    if how == "no Python":
        re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter's lock all the time
    while True:
        pass
"""


def four_begun(tool: Tool) -> list[int]:
    """The processes in which handlers run that never return, and those that one has started."""
    pids: list[int] = []
    for how in ("waits", "loop", "no Python", "others"):
        fifo = tool.folder / how
        os.mkfifo(fifo)
        tool.ok("submit", "forever", orjson.dumps([how, str(fifo)]).decode())
        pids += map(int, fifo.read_text().split())
    return pids


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_service(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "shop.py").write_text(APP)
    environment = {"PYTHONPATH": str(tmp_path), "EVENTJOBS_DRAIN_S": "0", "EVENTJOBS_GRACE_S": "1"}
    environment |= {"EVENTJOBS_PROCESSES": "4"}
    server = start(tmp_path / "data", "--app", "shop:forever", port=0, **environment)
    pids = four_begun(Tool(server.url, tmp_path))
    server.process.send_signal(ending)
    gently = ending == signal.SIGTERM
    assert server.process.wait(20) == (0 if gently else -ending)
    for each in pids:
        wait_until_gone(each)
    assert server.process.stdout is not None
    server.process.stdout.close()
    with closing(sqlite3.connect(tmp_path / "data" / "log.db")) as log:
        released = log.execute("SELECT count(*) FROM events WHERE type = 'AttemptReleased'")
        assert released.fetchone() == (4 if gently else 0,)


async def test_a_guardian_ends_all_that_it_was_told_of_and_not_told_to_forget() -> None:
    """Though it was killed itself: the next process is given to another."""
    program = (sys.executable, "-c", "import signal; signal.pause()")
    first, second, forgotten = [
        await asyncio.create_subprocess_exec(*program, start_new_session=True) for _ in range(3)
    ]
    guardian = ProcessReaper()
    await guardian.register(first.pid)
    await guardian.register(forgotten.pid)
    assert guardian.pid is not None
    os.kill(guardian.pid, signal.SIGKILL)
    while guardian.pid is not None:  # a thread waits for its end, and tells of it
        await asyncio.to_thread(str)
    await guardian.register(second.pid)
    guardian.unregister(forgotten.pid)
    await guardian.close()
    assert await first.wait() == await second.wait() == -signal.SIGKILL
    assert forgotten.returncode is None
    forgotten.kill()
    await forgotten.wait()


def test_nothing_outlives_a_worker_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with serving(tmp_path, EVENTJOBS_WORKER_TYPES="forever") as server:
        tool = Tool(server.url, tmp_path)
        tool.environment["EVENTJOBS_PROCESSES"] = "4"
        with tool.start("worker", "--app", "shop") as worker:
            pids = four_begun(tool)
            worker.kill()
        for each in pids:
            wait_until_gone(each)

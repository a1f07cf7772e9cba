"""Handlers in processes: their jobs are like those of other handlers."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from eventjobs.domain.events import LogWritten
from eventjobs.errors import InvalidInput
from eventjobs.execution.processes.child import ChildProcess
from eventjobs.execution.processes.wire import MESSAGE_BYTES_MAX, frame, read_message
from eventjobs.handlers.base_context import Stopped
from tests.conftest import Connect, Serve
from tests.support.cli import ROOT
from tests.support.process_handlers import (
    flood,
    forks,
    large,
    left,
    pid,
    tells_in_a_thread,
    work,
)
from tests.support.processes import result_of, wait_until_gone
from tests.support.waiting import kinds, recorded_of


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


async def test_a_large_result_comes_whole(serve: Serve) -> None:
    """Also one that is larger than a message of the process."""
    service = await serve(large)
    for size in (9 * 2**20, MESSAGE_BYTES_MAX):
        job = await service.wait((await service.submit("large", size)).job_id)
        assert job.result == {"artifact": "result.json", "size": size + 2}


async def test_a_thread_of_a_handler_reports_like_the_handler(serve: Serve) -> None:
    service = await serve(tells_in_a_thread)
    job_id = (await service.submit("tells in a thread")).job_id
    assert (await service.wait(job_id)).status == "completed"
    lines = [each.event for each in await recorded_of(service, job_id, LogWritten)]
    assert lines == [LogWritten(1, "info", "from a thread")]


def test_a_stop_during_a_message_is_raised_once_and_behind_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as sent:
        process = ChildProcess(ours)
        process._may_raise = process._stopping = True
        with pytest.raises(Stopped):
            process.send("a line")
        assert process._interrupted.is_set(), "no further signal is needed"
        process.send("tidied up")
        assert [read_message(sent) for _ in range(2)] == [["a line"], ["tidied up"]]


MAIN = "from eventjobs.execution.processes.child import main; main(int(sys.argv[1]))"
STARTS_A_PROCESS = f"""
import os, subprocess, sys
command = [sys.executable, "-c", "import sys; {MAIN}", str(os.getpid())]
print(subprocess.Popen(command).pid, flush=True)
os.read(os.open(sys.argv[1], os.O_RDONLY), 1)
"""


def test_the_kernel_ends_a_process_with_its_service(pipe: Path) -> None:
    """Also when its connection stays open, and no reaper knows of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as received:
        command = [sys.executable, "-c", STARTS_A_PROCESS, str(pipe)]
        with subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.PIPE) as service:
            assert service.stdout is not None
            process = int(service.stdout.readline())
            ours.sendall(frame("job", 1, {}))
            assert read_message(received)[:3] == ["outcome", 1, "Failed"], "it is up"
            service.kill()
        wait_until_gone(process)


def test_a_process_whose_service_has_ended_ends_at_once() -> None:
    """The service ended before the process could ask the kernel to be ended with it."""
    code = "from eventjobs.execution.processes.child import main; main(service=0)"
    ours, theirs = socket.socketpair()
    with ours, theirs:  # open: a process that reads from it waits for ever
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, stdin=theirs.fileno(), check=False, timeout=20)
    assert run.returncode == 1


async def test_a_flood_of_reports_is_taken_like_that_of_others(serve: Serve) -> None:
    service = await serve(flood, progress_interval_s=0)
    job = await service.wait((await service.submit("flood", 500)).job_id)
    assert job.status == "completed"
    assert len(await recorded_of(service, job.job_id, LogWritten)) >= 500


async def test_what_a_thread_tells_after_its_job_is_not_the_next_ones(serve: Serve) -> None:
    service = await serve(left, pid)
    process = await result_of(service, "left")
    for _ in range(20):
        job = await service.wait((await service.submit("pid")).job_id)
        assert job.result == process, "the process is used again"
        assert await kinds(service, job.job_id) == "JobSubmitted AttemptStarted JobCompleted"


async def test_a_handler_may_use_processes_of_its_own(serve: Serve) -> None:
    """Those it forked used to ignore SIGTERM as it does itself: a pool of them never ended."""
    service = await serve(forks)
    assert await result_of(service, "forks") == [[1, 2], 7]


async def test_a_process_is_the_first_to_be_killed_when_memory_runs_out(serve: Serve) -> None:
    service = await serve(pid)
    adjusted = "oom_score_adj"
    ours = int(Path("/proc/self", adjusted).read_text())
    theirs = int(Path("/proc", str(await result_of(service, "pid")), adjusted).read_text())
    assert theirs == min(1000, ours + 200)


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

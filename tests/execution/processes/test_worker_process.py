"""How a process ends, and how its handler is stopped."""

import asyncio
import gc
import os
import shutil
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import AttemptFailed, LogWritten
from eventjobs.execution.processes.reaper import ProcessReaper
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.process_handlers import (
    deaf,
    end,
    loop,
    pid,
    tidy,
    waits,
)
from tests.support.processes import first_report, result_of, until_gone
from tests.support.waiting import events_of, job_when, kinds, recorded_of, time_passing, turns

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
    "exit code 0": {
        "code": "worker_crashed",
        "message": "the process ended with exit code 0 before the handler returned",
        "details": {"exit_code": 0},
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
        event = (await events_of(service, job.job_id))[-1]
        assert isinstance(event, AttemptFailed)
        assert {name: getattr(event, name) for name in expected} == expected, how
        if event.code == "handler_error":
            assert "process_handlers.py" in event.details["traceback"]
        died = event.code == "worker_crashed"
        assert (await result_of(service, "pid") != before) == died, how


async def test_a_process_that_died_is_a_failed_attempt_like_any_other(serve: Serve) -> None:
    service = await serve(end)
    job = await service.submit("end", "killed", max_attempts=2, retry_delay_s=0.0)
    job = await service.wait(job.job_id)
    assert await kinds(service, job.job_id) == (
        "JobSubmitted AttemptStarted AttemptFailed AttemptStarted ArtifactStored AttemptFailed"
    )


# --- stopping


STOPPED = "JobSubmitted AttemptStarted LogWritten CancelRequested JobCancelled"


@pytest.mark.parametrize("kind", ["loop", "waits"])
async def test_cancel_interrupts_ordinary_python(
    client: Connect, clock: FakeClock, pipe: Path, kind: str
) -> None:
    """At once: the clock stands still, so no grace time passes and no process is killed."""
    api = await client(loop, waits, clock=clock)
    job_id = (await api.submit(kind, str(pipe)))["job_id"]
    process = (await first_report(api.service, job_id))["pid"]
    assert (await api("POST", f"/v1/jobs/{job_id}/cancel")).status == 200
    job = await api.service.wait(job_id)
    assert job.status == "cancelled"
    assert await kinds(api.service, job_id) == STOPPED
    await until_gone(process)  # what was interrupted anywhere is not used again


async def test_what_does_not_stop_is_killed_with_all_it_has_started(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(deaf, pid, clock=clock, grace_s=5, processes=1)
    job_id = (await service.submit("deaf")).job_id
    its = await first_report(service, job_id)
    folder = Path(its["file"]).parent
    assert folder.parent == service.settings.data / "scratch"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700] * 2
    await service.jobs.cancel(job_id, actor="test")
    await service.views.wait_for_position(service.log.head)
    await turns()
    await clock.advance(4.9)
    os.kill(its["pid"], 0)  # it is given its time
    await clock.advance(0.1)
    assert (await service.wait(job_id)).status == "cancelled"
    await until_gone(its["pid"])
    await until_gone(its["other"])
    assert await result_of(service, "pid") != its["pid"]
    await time_passing(clock, service.close())
    assert not Path(its["file"]).exists()


async def test_a_run_that_takes_too_long_is_stopped(serve: Serve, clock: FakeClock) -> None:
    service = await serve(loop, pid, clock=clock)
    job_id = (await service.submit("loop", timeout_s=60, max_attempts=1)).job_id
    process = (await first_report(service, job_id))["pid"]
    await clock.advance(60)
    job = await service.wait(job_id)
    error = {"code": "timeout", "class": "timeout", "message": "ran longer than 60 s"}
    assert job.error == {**error, "retryable": True}
    await until_gone(process)
    assert await result_of(service, "pid") != process


@pytest.mark.parametrize(
    ("does", "status", "result"),
    [
        ("raise", "cancelled", None),
        ("fail", "cancelled", None),
        ("sleep", "cancelled", None),
        ("return", "completed", "what there was"),
    ],
)
async def test_a_handler_that_is_stopped_can_tidy_up(
    serve: Serve,
    clock: FakeClock,
    capfd: pytest.CaptureFixture[str],
    does: str,
    status: str,
    result: Any,
) -> None:
    service = await serve(tidy, clock=clock)
    job_id = (await service.submit("tidy", does)).job_id
    process = (await first_report(service, job_id))["pid"]
    await service.jobs.cancel(job_id, actor="test")
    job = await service.wait(job_id)
    assert (job.status, job.result) == (status, result)
    lines = [each.event for each in await recorded_of(service, job_id, LogWritten)]
    assert lines[-1] == LogWritten(1, "info", "tidied up", {"cancelled": True})
    await until_gone(process)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("does", "code"), [("choose", "half_done"), ("fail", "timeout"), ("return", "timeout")]
)
async def test_a_handler_whose_time_is_up_can_fail_with_an_error_of_its_own(
    serve: Serve, clock: FakeClock, does: str, code: str
) -> None:
    service = await serve(tidy, clock=clock)
    job_id = (await service.submit("tidy", does, timeout_s=60, max_attempts=1)).job_id
    await first_report(service, job_id)
    await clock.advance(60)
    job = await service.wait(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", code)


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
    os.kill((await first_report(service, job_id))["pid"], signal.SIGTERM)
    await asyncio.to_thread(pipe.write_text, "and went on")
    assert (await service.wait(job_id)).result == "and went on"


async def test_closing_gives_back_what_does_not_finish(serve: Serve, clock: FakeClock) -> None:
    service = await serve(deaf, clock=clock, drain_s=1, grace_s=1)
    job_id = (await service.submit("deaf")).job_id
    its = await first_report(service, job_id)
    await time_passing(clock, service.close())
    assert await kinds(service, job_id) == (
        "JobSubmitted AttemptStarted LogWritten AttemptReleased"
    )
    await until_gone(its["pid"])
    await until_gone(its["other"])


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


async def test_temporary_files_that_are_gone_are_no_error_at_the_end_of_a_process(
    serve: Serve,
) -> None:
    """A handler may remove its directory, or a program that tidies up the disk."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: errors.append(about))
    service = await serve(pid)
    process = await result_of(service, "pid")
    await asyncio.to_thread(shutil.rmtree, service.settings.data / "scratch")
    await service.close()
    await until_gone(process)
    gc.collect()
    assert errors == []


async def test_a_process_that_nothing_would_kill_with_the_service_is_not_used(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(pid)
    registered, unregistered = list[int](), list[int]()

    async def register(reaper: ProcessReaper, group: int) -> None:
        registered.append(group)
        raise OSError("too many processes")

    with monkeypatch.context() as patch:
        patch.setattr(ProcessReaper, "register", register)
        patch.setattr(ProcessReaper, "unregister", lambda _, group: unregistered.append(group))
        job = await service.wait((await service.submit("pid", max_attempts=1)).job_id)
    assert job.error is not None
    assert job.error["code"] == "worker_not_started"
    assert unregistered == registered
    await until_gone(registered[0])
    assert not list((service.settings.data / "scratch").iterdir())

"""The service's own log has a line for each attempt that starts or fails."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import structlog

from eventjobs.domain.events import LogWritten
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.observability.logging import get_logger
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.hostile import Reads, raises_in_a_process
from tests.support.log_lines import capture_logs
from tests.support.remote_worker import report, submit_and_claim
from tests.support.waiting import job_when, time_passing, turns


async def id_of_ended_job(service: Service, type: str, payload: Any = None, **spec: Any) -> str:
    """Run a job until its slot is free and its log lines are written; its id."""
    job = await service.submit(type, payload, **spec)
    await service.wait(job.job_id)
    while service.runner.running:
        await turns(1)
    return job.job_id


def of_attempts(lines: list[dict[str, Any]], job_id: str) -> list[dict[str, Any]]:
    return [each for each in lines if each.get("job_id") == job_id and "attempt" in each["event"]]


@handler("bad", max_attempts=2, retry_delay_s=0)
async def bad(context: Context, payload: str) -> None:
    await asyncio.sleep(0)
    match payload:
        case "code":
            raise JobError("no_tea", "there is no tea", retryable=False)
        case "wait":
            await asyncio.Event().wait()
        case _:
            raise LookupError(payload)


@handler("plain", max_attempts=1)
def plain(context: ThreadContext, payload: str) -> None:
    raise LookupError(payload)


async def test_each_attempt_is_a_line_and_each_failure_says_why(serve: Serve) -> None:
    service = await serve(bad)
    with capture_logs() as lines:
        job_id = await id_of_ended_job(service, "bad", "x")
    first, failed, second, last = of_attempts(lines, job_id)
    about = {"job_id": job_id, "type": "bad"}
    assert first == {"event": "attempt started", "log_level": "debug", **about, "attempt": 1}
    assert second == {**first, "attempt": 2}
    trace = failed.pop("exception")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "in bad\n" in trace
    assert "eventjobs/execution/attempt.py" not in trace
    assert trace.endswith("LookupError: x\n")
    assert 0 <= failed.pop("duration_s") < 60
    fields = {
        "event": "attempt failed",
        "code": "handler_error",
        "error": "LookupError: x",
        **about,
    }
    assert failed == {**fields, "log_level": "warning", "attempt": 1}
    assert (last["log_level"], last["attempt"]) == ("error", 2)


async def test_a_code_of_its_own_and_its_place_are_told(serve: Serve) -> None:
    service = await serve(bad, plain)
    with capture_logs() as lines:
        for type, payload in (("bad", "code"), ("plain", "y")):
            _, failed = of_attempts(lines, await id_of_ended_job(service, type, payload))
            assert failed["log_level"] == "error"
            assert failed["code"] == ("no_tea" if type == "bad" else "handler_error")
            assert f"in {type}\n" in failed["exception"]


async def test_a_process_tells_its_traceback_too(serve: Serve) -> None:
    service = await serve(raises_in_a_process, processes=1)
    with capture_logs() as lines:
        job_id = await id_of_ended_job(service, "raises", "code")
    _, failed = of_attempts(lines, job_id)
    assert "in raises_in_a_process\n" in failed["exception"]


async def test_timeouts_and_what_a_restart_cut_off_are_told(serve: Serve, clock: FakeClock) -> None:
    service = await serve(bad, clock=clock)
    with capture_logs() as lines:
        waiting = id_of_ended_job(service, "bad", "wait", timeout_s=5, max_attempts=1)
        job_id = await time_passing(clock, waiting)
    _, failed = of_attempts(lines, job_id)
    assert (failed["code"], failed["log_level"]) == ("timeout", "error")
    assert failed["duration_s"] >= 5


async def test_a_worker_elsewhere_that_fails_or_is_lost_is_told(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(remote("far"), clock=clock, lease_s=30.0)
    with capture_logs() as lines:
        job_id = await submit_and_claim(api, max_attempts=2)
        clock.freeze(3_600)
        await report(api, job_id, "fail", code="no_tea", message="none")
        again = await submit_and_claim(api, max_attempts=1)
        await time_passing(clock, api.service.wait(again))
    started, failed = of_attempts(lines, job_id)
    assert (started["event"], failed["event"]) == ("attempt started", "attempt failed")
    assert (failed["code"], failed["log_level"]) == ("no_tea", "warning")
    assert failed["duration_s"] == 3_600
    lost = [each for each in of_attempts(lines, again) if each["event"] == "attempt failed"]
    assert [(each["code"], each["log_level"]) for each in lost] == [("worker_lost", "error")]


async def test_what_a_line_is_given_never_ends_what_says_it() -> None:
    class Breaks(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise KeyError("of the program that embeds the service")

    log = get_logger("eventjobs.test")
    breaks = Breaks()
    log.logger.addFilter(breaks)
    try:
        log.error("broken", name="clashes", message=1, args=2, event=Reads(), number=2**80)
    finally:
        log.logger.removeFilter(breaks)
    with capture_logs() as lines:
        log.error("100%", name="clashes", message=1, args=2, odd=Reads(), token="t0p")
    [line] = lines
    assert line["event"] == "100%"
    assert (line["name"], line["message"], line["token"]) == ("clashes", 1, "[hidden]")


EMBEDDED = """
import asyncio, logging, sys
import structlog
from eventjobs import Service, handler

@handler("bad", max_attempts=1)
async def bad(context, payload):
    logging.getLogger("mine").warning("of mine")
    raise LookupError("no such thing")

async def main():
    before = logging.root.handlers[:], logging.root.level, logging.lastResort
    assert not structlog.is_configured()
    processors = list(structlog.get_config()["processors"])
    async with Service(sys.argv[1], [bad]) as service:
        job = await service.submit("bad")
        await service.wait(job.job_id)
        assert before == (logging.root.handlers, logging.root.level, logging.lastResort)
        assert processors == structlog.get_config()["processors"]
        assert not structlog.is_configured()
        if "--configure" in sys.argv:
            logging.basicConfig(format="%(levelname)s %(name)s %(message)s", level="DEBUG")
            job = await service.submit("bad")
            await service.wait(job.job_id)

asyncio.run(main())
"""


def run_program(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", EMBEDDED, str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def test_a_program_that_embeds_a_service_hears_of_failures_without_set_up(tmp_path: Path) -> None:
    run = run_program(tmp_path / "data")
    assert run.stdout == ""
    own, failed, *trace = run.stderr.splitlines()
    assert own == "of mine"
    assert failed.startswith("attempt failed job_id=")
    assert "code=handler_error" in failed
    assert trace[-1] == "LookupError: no such thing"


def test_a_program_that_embeds_a_service_configures_logging_when_it_likes(tmp_path: Path) -> None:
    run = run_program(tmp_path / "data", "--configure")
    assert "DEBUG eventjobs.runner attempt started job_id=" in run.stderr
    assert "ERROR eventjobs.settlement attempt failed job_id=" in run.stderr
    assert run.stderr.count("WARNING mine of mine") == 1


async def test_lines_of_a_handler_are_in_its_log_once_and_those_about_it_are_not(
    serve: Serve,
) -> None:
    """Handlers of logging that log themselves would go round in circles."""
    mine = logging.getLogger("mine.echo")

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("eventjobs"):
                mine.warning("echo")

    @handler("says", max_attempts=1)
    async def says(context: Context, payload: Any) -> None:
        mine.warning("once")
        structlog.get_logger().warning("and once")
        get_logger("eventjobs.runner").error("about it")
        raise LookupError

    service = await serve(says)
    echo, ours = Echo(), logging.getLogger("eventjobs")
    ours.addHandler(echo)
    try:
        job = await service.submit("says")
        await service.wait(job.job_id)
    finally:
        ours.removeHandler(echo)
    assert await lines_of(service, job.job_id) == ["once", "and once", "echo"]


async def lines_of(service: Service, job_id: str) -> list[str]:
    await job_when(service, job_id, lambda job: job.finished)
    events = [each.event for each in await service.log.read_job(job_id)]
    return [str(each.message) for each in events if isinstance(each, LogWritten)]


@handler("charge", max_attempts=1, sensitive=("card",))
async def charge(context: Context, payload: Any) -> None:
    raise LookupError(f"no such card: {payload['card']}")


async def test_a_failure_has_no_value_of_a_sensitive_field(serve: Serve) -> None:
    service = await serve(charge)
    with capture_logs() as lines:
        await id_of_ended_job(service, "charge", {"card": "4111111111111111"})
    [failed] = [each for each in lines if each["event"] == "attempt failed"]
    assert failed["error"].endswith("no such card: [hidden]")
    assert "4111111111111111" not in str(lines)

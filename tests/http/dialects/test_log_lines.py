"""The log lines of dialects 001 and 004, as their descriptions print them."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventjobs.errors import InvalidInput, JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http.dialects.job_ids import prefixed_id
from eventjobs.http.dialects.registry import select_dialect_logs
from eventjobs.http.dialects.seed_004_log import ShutdownLines
from eventjobs.observability.logging import get_logger
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS, ended_job, running_job
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when

MISSING = "00000000-0000-0000-0000-000000000000"

Line = tuple[str, str]


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    with capture_logs() as lines:
        yield lines


def lines_of(lines: list[dict[str, Any]]) -> list[Line]:
    """Level and text of the lines of dialects, which have no fields."""
    return [(each["log_level"], each["event"]) for each in lines if len(each) == 2]


async def level_of(api: Client, lines: list[dict[str, Any]], text: str) -> str | None:
    """The level of the line *text*, once all that is in the log has its lines."""
    await api.service.views.wait_for_position(api.service.log.head)
    return next((level for level, each in lines_of(lines) if each == text), None)


# --- 001


async def test_the_directories_of_job_files_have_a_line_at_the_start(
    client: Connect, lines: list[dict[str, Any]], tmp_path: Path
) -> None:
    directory = str(tmp_path / "jobs")
    await client(*HANDLERS, dialects="001", dialect_logs="001", job_store_dirs=directory)
    assert lines_of(lines) == [("info", f"📁 JobStore initialized with base_dir: {directory}")]


async def test_each_request_of_a_status_has_two_lines(
    client: Connect, lines: list[dict[str, Any]]
) -> None:
    api = await client(*HANDLERS, dialects="001,004", dialect_logs="001", job_store_dirs="off")
    job_id = (await ended_job(api, await api.submit("echo")))["job_id"]
    for text in (job_id, MISSING, "not-a-uuid"):
        await api.get(f"/api/job-status/{text}")
    await api.get(f"/api/job-status/{prefixed_id(job_id)}")
    assert lines_of(lines) == [
        ("info", f"📊 Job status request for job_id: {job_id}"),
        ("info", f"✅ Returning job {job_id} status: completed"),
        ("info", f"📊 Job status request for job_id: {MISSING}"),
        ("info", f"ℹ️ Job {MISSING} not found (404)"),  # noqa: RUF001  its sign, and no letter
        ("info", "📊 Job status request for job_id: not-a-uuid"),
        ("warning", "⚠️ Invalid job_id format (not UUID): not-a-uuid"),
    ]


async def test_an_unexpected_error_is_the_only_one_of_level_error(
    client: Connect, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(*HANDLERS, dialects="001", dialect_logs="001", job_store_dirs="off")

    def fail(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(api.service.jobs, "current", fail)
    monkeypatch.setattr(api.service.views, "job", fail)
    assert (await api.get(f"/api/job-status/{MISSING}")).status == 500
    assert lines_of(lines)[-1] == ("error", f"❌ Error getting job {MISSING}: ValueError")


async def test_an_id_begins_no_line_of_its_own(
    client: Connect, lines: list[dict[str, Any]]
) -> None:
    api = await client(*HANDLERS, dialects="001", dialect_logs="001", job_store_dirs="off")
    await api.get("/api/job-status/x%0A%E2%9C%85%20Returning%20job%1B[2J" + "y" * 500)
    texts = [text for _, text in lines_of(lines)]
    assert texts[1].startswith("⚠️ Invalid job_id format (not UUID): x\\n✅ Returning job\\x1b[2Jy")
    assert all(text.replace("\ufe0f", "").isprintable() and len(text) < 200 for text in texts)


async def test_there_are_no_such_lines_unless_they_are_switched_on(
    client: Connect, lines: list[dict[str, Any]]
) -> None:
    api = await client(*HANDLERS, dialects="all")
    await api("POST", f"{await running_job(api)}/cancel")
    await api.get(f"/api/job-status/{MISSING}")
    assert lines_of(lines) == []


def test_a_dialect_without_log_lines_is_refused() -> None:
    assert select_dialect_logs(("all",)) == {"001", "004"}
    with pytest.raises(InvalidInput, match="no dialect with log lines 000; there are 001, 004"):
        select_dialect_logs(("000",))


# --- 004


@handler("call", max_attempts=1, sensitive=("hidden",))
async def call(context: Context, payload: dict[str, str]) -> None:
    """Call what fails twice, then write a line of a user, with logging as well."""
    left = [JobError("busy", "busy"), JobError("busy", "busy"), None]

    async def fail_twice() -> None:
        if (error := left.pop(0)) is not None:
            raise error

    await context.retrying(payload["name"], attempts=3)(fail_twice)
    await context.artifact("test.csv", b"a,b")
    logging.getLogger("shop").warning("Circuit breaker of a log line")
    context.log("an ordinary line")


async def test_tries_of_calls_have_lines(client: Connect, lines: list[dict[str, Any]]) -> None:
    api = await client(call, dialect_logs="004", call_delay_s=0)
    name = "Download http://example.com/file"
    job = await ended_job(api, await api.submit("call", {"name": name}))
    save = f"Save file test.csv for job {prefixed_id(job['job_id'])}: Attempt 1/3"
    assert await level_of(api, lines, save) == "info"
    assert lines_of(lines) == [
        ("info", f"{name}: Attempt 1/3"),
        ("warning", f"{name}: Attempt 2/3"),
        ("warning", f"{name}: Attempt 3/3"),
        ("info", save),
    ]


async def test_sensitive_values_and_control_characters_are_not_in_the_lines(
    client: Connect, lines: list[dict[str, Any]]
) -> None:
    api = await client(call, dialect_logs="004", call_delay_s=0)
    payload = {"name": "ask\nCircuit breaker for-the-owner", "hidden": "for-the-owner"}
    await ended_job(api, await api.submit("call", payload))
    expected = "ask\\nCircuit breaker [hidden]: Attempt 3/3"
    assert await level_of(api, lines, expected) == "warning"
    assert "for-the-owner" not in str(lines_of(lines))


@handler("guarded", max_attempts=1)
async def guarded(context: Context, payload: bool) -> str:
    async def ask() -> str:
        if not payload:
            raise JobError("busy", "busy")
        return "model"

    breaker = context.breaker("llm", threshold=2, window_s=300, cooldown_s=600)
    return str(await breaker.call(ask, fallback=lambda: "fallback"))


async def test_a_circuit_breaker_has_lines_and_the_fallback_is_an_issue(
    client: Connect, clock: FakeClock, lines: list[dict[str, Any]]
) -> None:
    api = await client(guarded, dialects="004", dialect_logs="004", clock=clock)
    for _ in range(3):
        job = await ended_job(api, await api.submit("guarded", False))
        assert (job["status"], job["result"]) == ("completed", "fallback")
        assert [each["code"] for each in job["issues"]] == ["llm_failure_fallback"]
        status = (await api.get(f"/api/job-status/{prefixed_id(job['job_id'])}")).json
        assert (status["status"], status["error"]) == ("completed", None)
        assert [each["code"] for each in status["issues"]] == ["llm_failure_fallback"]
    await clock.advance(601)
    await ended_job(api, await api.submit("guarded", True))
    closing = "Circuit breaker cooldown complete. Closing circuit."
    assert await level_of(api, lines, closing) == "info"
    assert lines_of(lines) == [
        ("error", "Circuit breaker OPENING: 2 failures within 300s window (threshold: 2)"),
        ("warning", "Circuit breaker is OPEN. Using fallback."),
        ("info", closing),
    ]


@handler("read", max_attempts=1)
async def read(context: Context, payload: str) -> None:
    """Run in the stage *payload* until it is stopped."""
    context.progress(1, 10, stage=payload)
    await asyncio.Event().wait()


async def start_job(api: Client, stage: str, **options: Any) -> str:
    job_id: str = (await api.submit("read", stage, **options))["job_id"]
    await job_when(api.service, job_id, lambda job: job.version >= 3)
    return job_id


async def test_a_cancelled_job_has_a_line_with_its_stage(
    client: Connect, lines: list[dict[str, Any]]
) -> None:
    api = await client(read, *HANDLERS, dialects="004", dialect_logs="004", worker_types="far")
    waiting = (await api.submit("far"))["job_id"]
    for job_id, text in (
        (waiting, "before processing. Skipping."),
        (await start_job(api, "parsing"), "during parsing."),
        (await start_job(api, "writing"), "during processing."),
    ):
        await api("POST", f"/api/cancel?jobId={job_id}")
        await api.service.wait(job_id)
        line = f"Job {prefixed_id(job_id)} was cancelled {text}"
        assert await level_of(api, lines, line) == "info"


async def test_a_job_that_timed_out_has_a_line(
    client: Connect, clock: FakeClock, lines: list[dict[str, Any]]
) -> None:
    api = await client(read, dialect_logs="004", clock=clock)
    ids = [await start_job(api, each, timeout_s=9) for each in ("parsing", "writing")]
    await clock.advance(10)
    for each in ids:
        await api.service.wait(each)
    jobs = list(map(prefixed_id, ids))
    parsing = f"Job {jobs[0]} timed out during parsing."
    assert await level_of(api, lines, parsing) == "warning"
    assert await level_of(api, lines, f"Job {jobs[1]} has timed out") == "warning"
    texts = {text for _, text in lines_of(lines)}
    assert texts == {parsing, *(f"Job {each} has timed out" for each in jobs)}


async def test_a_shutdown_has_lines(serve: Serve, lines: list[dict[str, Any]]) -> None:
    @handler("cut", on_shutdown="fail")
    async def cut(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(cut, drain_s=0)
    job = await service.submit("cut")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    logger, handler_ = logging.getLogger("eventjobs"), ShutdownLines()
    logger.addHandler(handler_)
    try:
        get_logger("eventjobs").info("stopping", signal=15)
        await service.close()
        get_logger("eventjobs").info("stopped")
    finally:
        logger.removeHandler(handler_)
    assert lines_of(lines)[-4:] == [
        ("info", "Received signal 15. Shutting down gracefully..."),
        ("warning", f"Marked job {prefixed_id(job.job_id)} as failed due to shutdown"),
        ("info", "Worker shutdown complete."),
        ("info", "stopped"),
    ]

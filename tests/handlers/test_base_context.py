"""Progress, log lines and files of a handler."""

import asyncio
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import ArtifactStored, LogWritten, ProgressReported
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import UnknownArtifact
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from tests.conftest import Serve
from tests.support.waiting import job_when, recorded_of

# --- progress


def progress_of(recorded: list[Recorded]) -> list[ProgressReported]:
    return [each.event for each in recorded if isinstance(each.event, ProgressReported)]


class Odd(float):
    """As numpy's float64 is a float that orjson does not know."""


@pytest.mark.parametrize(
    ("done", "stored"),
    [
        (math.nan, None),
        (math.inf, None),
        (10**30, 1e30),
        (10**400, None),
        (Odd(0.5), 0.5),
        (Fraction(1, 4), 0.25),
        (True, 1),
    ],
)
async def test_any_number_can_be_progress(serve: Serve, done: Any, stored: float | None) -> None:
    @handler("odd")
    async def odd(context: Context, payload: Any) -> None:
        context.progress(done, 1)

    service = await serve(odd)
    job = await service.submit("odd")
    assert (await service.wait(job.job_id)).status == "completed"
    [report] = progress_of(await recorded_of(service, job.job_id, ProgressReported))
    assert report.done == stored


# --- logs


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_jobs_log_keeps_its_lines_in_order(serve: Serve, threaded: bool) -> None:
    def work(context: Context | ThreadContext) -> None:
        context.log("first", n=1)
        context.log("second", "warning")
        context.progress(1, 2)
        context.log("third \ud800", "error", path=["a"])
        context.log("x" * 5000, "debug")

    @handler("log")
    async def on_the_loop(context: Context, payload: Any) -> None:
        work(context)

    @handler("log")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        work(context)

    service = await serve(in_a_thread if threaded else on_the_loop)
    job = await service.submit("log")
    await service.wait(job.job_id)
    events = [each.event for each in await service.log.read_job(job.job_id)][2:-1]
    assert events == [
        LogWritten(1, "info", "first", {"n": 1}),
        LogWritten(1, "warning", "second"),
        ProgressReported(1, 1, 2),
        LogWritten(1, "error", "third ?", {"path": ["a"]}),
        LogWritten(1, "debug", "x" * 4000),
    ]


async def test_a_level_that_there_is_not_is_the_handlers_error(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        with pytest.raises(ValueError, match="level is one of"):
            context.log("x", "loud")
        context.log("x", field=object)  # what JSON does not have is written as text

    service = await serve(bad)
    job = await service.submit("bad")
    assert (await service.wait(job.job_id)).status == "completed"
    [line] = await recorded_of(service, job.job_id, LogWritten)
    assert isinstance(line.event, LogWritten)
    assert line.event.fields == {"field": "<class 'object'>"}


# --- files


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_stores_files_and_reads_those_of_its_job(
    serve: Serve, tmp_path: Path, threaded: bool
) -> None:
    (tmp_path / "report").write_bytes(b"from a file")

    @handler("files")
    async def on_the_loop(context: Context, payload: Any) -> str:
        context.log("before")
        await context.artifact("a.txt", b"one", "text/plain")
        await context.artifact("b.txt", tmp_path / "report")
        await context.artifact("a.txt", b"two", "text/plain")
        return await asyncio.to_thread(context.input("in.csv").read_text)

    @handler("files")
    def in_a_thread(context: ThreadContext, payload: Any) -> str:
        context.log("before")
        context.artifact("a.txt", b"one", "text/plain")
        context.artifact("b.txt", tmp_path / "report")
        context.artifact("a.txt", b"two", "text/plain")
        return context.input().read_text()

    service = await serve(in_a_thread if threaded else on_the_loop)
    sha256, _ = await asyncio.to_thread(service.artifacts.store, b"the input")
    artifacts = await service.submissions.artifacts_of({"in.csv": sha256})
    job = await service.submit("files", artifacts=artifacts)
    job = await service.wait(job.job_id)
    assert job.result == "the input"
    stored = {each.name: service.artifacts.path(each.sha256).read_bytes() for each in job.artifacts}
    assert stored == {"in.csv": b"the input", "b.txt": b"from a file", "a.txt": b"two"}
    events = await service.log.read_job(job.job_id)
    types = ["LogWritten", *["LogWritten", "ArtifactStored"] * 3]
    assert [each.type for each in events[2:-1]] == types


async def test_a_file_that_is_not_there_fails_for_good(serve: Serve) -> None:
    @handler("missing")
    async def missing(context: Context, payload: Any) -> Path:
        return context.input("in.csv")

    service = await serve(missing)
    job = await service.submit("missing")
    job = await service.wait(job.job_id)
    assert job.error == {
        "code": "artifact_missing",
        "class": "artifact",
        "message": "the job has no artifact 'in.csv'",
        "retryable": False,
    }
    with pytest.raises(UnknownArtifact):
        await service.submissions.artifacts_of({"in.csv": "ab" * 32})


async def test_a_bad_name_for_a_file_fails_for_good(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        await context.artifact("../log.db", b"")

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=3)
    job = await service.wait(job.job_id)
    assert (job.attempt, job.error and job.error["code"]) == (1, "invalid_input")


async def test_a_file_is_in_the_log_once_the_handler_goes_on(serve: Serve) -> None:
    seen: list[bool] = []

    @handler("one")
    async def one(context: Context, payload: Any) -> None:
        await context.artifact("a", b"1")
        head = service.log.head
        [stored] = [e for e in await service.log.read(0) if isinstance(e.event, ArtifactStored)]
        seen.append(stored.position <= head)

    service = await serve(one)
    job = await service.submit("one")
    await job_when(service, job.job_id, lambda job: job.finished)
    assert seen == [True]

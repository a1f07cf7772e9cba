"""Reports of an attempt: their rate, their order, their bound."""

import asyncio
import gc
from itertools import pairwise
from typing import Any, cast

import pytest

from eventjobs.clock import sleep
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import (
    ArtifactStored,
    AttemptStarted,
    JobSubmitted,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.domain.job import Job, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DiskFull, StaleAttempt
from eventjobs.execution import reporter
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.execution.slots import Slots
from eventjobs.execution.source import JobSource
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.log import NewEvent
from tests.conftest import Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.decisions import as_recorded
from tests.support.log_lines import capture_logs
from tests.support.waiting import recorded_of, time_passing


def progress_of(recorded: list[Recorded]) -> list[ProgressReported]:
    return [each.event for each in recorded if isinstance(each.event, ProgressReported)]


async def test_progress_faster_than_the_rate_is_the_first_and_the_last(serve: Serve) -> None:
    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        for number in range(1, 1001):
            context.progress(number, 1000, message=f"row {number}")

    service = await serve(count)
    job = await service.submit("count")
    await service.wait(job.job_id)
    reports = progress_of(await recorded_of(service, job.job_id, ProgressReported))
    assert [(each.done, each.message) for each in reports] == [(1, "row 1"), (1000, "row 1000")]


async def test_progress_is_stored_at_the_set_rate(serve: Serve, clock: FakeClock) -> None:
    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        for stage in ("open", "check", "read"):
            context.progress(0, 100, stage=stage)
            await sleep(clock, 0.3)
        for number in range(1, 101):
            context.progress(number, 100, stage="read")
            await sleep(clock, 0.1)

    service = await serve(count, clock=clock, progress_interval_s=1.0)
    job = await service.submit("count")
    await time_passing(clock, service.wait(job.job_id), 0.05)
    reports = progress_of(await recorded_of(service, job.job_id, ProgressReported))
    done = [each.done or 0 for each in reports]
    assert done[:3] == [0, 0, 0], "a new stage does not wait"
    assert done[-1] == 100, "the last one does not wait"
    steps = [b - a for a, b in pairwise(done[3:-1])]
    assert len(steps) >= 8, "it lasts ten seconds"
    assert set(steps) <= {9, 10, 11}, "ten reports a second, one of them is stored"


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_new_stage_is_never_lost_nor_the_last_word_of_the_one_before(
    serve: Serve, threaded: bool
) -> None:
    def work(context: Context | ThreadContext) -> None:
        for stage in ("read", "sort", "read", "write"):
            for number in range(50):
                context.progress(number, 49, stage=stage if number == 0 else None)

    @handler("stages")
    async def on_the_loop(context: Context, payload: Any) -> None:
        work(context)

    @handler("stages")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        work(context)

    service = await serve(in_a_thread if threaded else on_the_loop, progress_interval_s=60)
    job = await service.submit("stages")
    await service.wait(job.job_id)
    reports = progress_of(await recorded_of(service, job.job_id, ProgressReported))
    assert [(each.stage, each.done) for each in reports] == [
        ("read", 0),
        (None, 49),
        ("sort", 0),
        (None, 49),
        ("read", 0),
        (None, 49),
        ("write", 0),
        (None, 49),
    ]


async def test_a_flood_of_lines_is_cut_and_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "WAITING_MAX", 100)

    @handler("flood")
    async def flood(context: Context, payload: Any) -> None:
        for number in range(600):
            context.log(f"line {number}")

    service = await serve(flood)
    job = await service.submit("flood")
    await service.wait(job.job_id)
    lines = [each.event for each in await recorded_of(service, job.job_id, LogWritten)]
    assert lines[0] == LogWritten(1, "info", "line 0")
    assert lines[99] == LogWritten(1, "info", "line 99")
    assert lines[100:] == [
        LogWritten(1, "warning", "500 earlier reports were dropped: they came too fast")
    ]


async def test_the_newest_stage_is_told_after_a_flood_of_lines(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be dropped with the lines that did not fit. It does not wait for the end."""
    monkeypatch.setattr(reporter, "WAITING_MAX", 100)
    go = asyncio.Event()

    @handler("flood")
    async def flood(context: Context, payload: Any) -> None:
        for number in range(110):
            context.log(f"line {number}")
        context.progress(1, 2, stage="first")
        context.progress(2, 2, stage="second")
        await go.wait()

    service = await serve(flood, clock=clock)
    job_id = (await service.submit("flood")).job_id

    async def wait_for_reports() -> list[ProgressReported]:
        while not (reports := progress_of(await recorded_of(service, job_id, ProgressReported))):
            await service.log.wait(service.log.head, job_id)
        return reports

    reports = await time_passing(clock, wait_for_reports())
    assert [(each.done, each.stage) for each in reports] == [(2, "second")]
    go.set()
    await service.wait(job_id)


class RefusingSource:
    """The job source of an attempt that has lost its job, once it *may_answer*."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.may_answer = asyncio.Event()
        self.asked = asyncio.Event()
        self.reports: list[Report] = []

    async def report(self, job: Job, report: Report) -> None:
        self.reports.append(report)
        self.asked.set()
        await self.may_answer.wait()
        raise StaleAttempt

    def reporter(self) -> AttemptReporter:
        job = fold(as_recorded(JobSubmitted(JobSpec("x")), AttemptStarted(1, "w")))
        assert job is not None
        return AttemptReporter(cast(JobSource, self), job, Slots(1, {"": 1}).take(""), 1.0)


async def test_an_attempt_that_has_lost_its_job_sends_nothing_more() -> None:
    """A remote worker would make a request in vain for each line."""
    source = RefusingSource()
    source.may_answer.set()
    sender = source.reporter()
    first, *others = [LogWritten(1, "info", f"line {number}") for number in range(4)]
    sender.add(first)
    sender.add(others[0])
    await sender.flush()
    for each in others[1:]:
        sender.add(each)
        await sender.flush()
    assert source.reports == [first]


async def test_a_step_that_is_refused_after_its_caller_was_cancelled_is_no_error_of_the_loop() -> (
    None
):
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: errors.append(about))
    source = RefusingSource()
    sender = source.reporter()
    recording = asyncio.create_task(sender.record(StepCompleted(1, "read", 1)))
    await source.asked.wait()
    recording.cancel()
    await asyncio.wait({recording})
    source.may_answer.set()
    await sender.flush()
    del sender, recording
    gc.collect()
    assert errors == []


async def test_a_file_that_the_log_does_not_take_is_an_error_of_the_handler_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be saved again. Only a step is tried until the log takes it."""

    @handler("saves")
    async def saves(context: Context, payload: Any) -> str:
        with pytest.raises(DiskFull):
            await context.artifact("a", b"1")
        return "without"

    service = await serve(saves)
    full = [DiskFull()]

    async def refuse(new: NewEvent) -> None:
        if isinstance(new.event, ArtifactStored) and full:
            raise full.pop()

    at_each_append(monkeypatch, service.log, before=refuse)
    job = await service.submit("saves", max_attempts=1)
    assert (await service.wait(job.job_id)).result == "without"


async def test_a_step_that_waits_for_the_log_is_logged(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    @handler("steps")
    async def steps(context: Context, payload: Any) -> Any:
        return await context.step("add", lambda: 3)

    service = await serve(steps, clock=clock)
    full = [DiskFull()]

    async def refuse(new: NewEvent) -> None:
        if isinstance(new.event, StepCompleted) and full:
            raise full.pop()

    at_each_append(monkeypatch, service.log, before=refuse)
    with capture_logs() as lines:
        job = await service.submit("steps")
        assert (await time_passing(clock, service.wait(job.job_id))).result == 3
    [line] = [each for each in lines if each["event"] == "step waits"]
    assert (line["job_id"], line["step"], line["error"]) == (job.job_id, "add", DiskFull().code)

"""Jobs run, fail, stop and end once, even if their handlers misbehave."""

import asyncio
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import orjson
import pytest

from eventjobs.domain.events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    JobCancelled,
    JobCompleted,
    LogWritten,
)
from eventjobs.domain.job import Job
from eventjobs.errors import DiskFull, JobError, LogError, OutcomeUnknown
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.log import NewEvent
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.appends import at_each_append
from tests.support.clock import SECOND, FakeClock
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when, kinds, recorded_of, time_passing, turns

ONCE = "JobSubmitted AttemptStarted ArtifactStored AttemptFailed"
LOST = "JobSubmitted AttemptStarted AttemptFailed"


@handler("quick")
async def quick(context: Context, payload: Any) -> Any:
    return payload


@handler("endless")
async def endless(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


@handler("endless")
def endless_thread(context: ThreadContext, payload: Any) -> None:
    while True:
        context.check_cancelled()
        time.sleep(0)


BOTH_ENDLESS = pytest.mark.parametrize("forever", [endless, endless_thread], ids=["loop", "thread"])


async def running(service: Service, job_id: str) -> Job:
    return await job_when(service, job_id, lambda job: job.status == "running")


async def still_serves(service: Service) -> None:
    job = await service.submit("quick", 1)
    assert (await service.wait(job.job_id)).result == 1


# --- handlers that misbehave


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def bare() -> NoReturn:
    raise BaseException("bare")


def raises(error: BaseException) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


MISDEEDS: dict[str, Callable[[], object]] = {
    "ValueError: no": raises(ValueError("no")),
    "SystemExit": sys.exit,
    "KeyboardInterrupt": raises(KeyboardInterrupt()),
    "StopIteration": raises(StopIteration()),
    "BaseException: bare": bare,
    "Unspeakable": raises(Unspeakable()),
    "GeneratorExit": raises(GeneratorExit()),
    "the handler cancelled itself": raises(asyncio.CancelledError()),
}


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_whatever_a_handler_raises_ends_its_job_and_no_other(
    serve: Serve, misdeed: str, threaded: bool
) -> None:
    @handler("bad")
    async def on_the_loop(context: Context, payload: Any) -> None:
        MISDEEDS[misdeed]()

    @handler("bad")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        MISDEEDS[misdeed]()

    service = await serve(in_a_thread if threaded else on_the_loop, quick, concurrency=1)
    job = await service.submit("bad", max_attempts=1)
    job = await service.wait(job.job_id)
    assert job.error is not None
    assert job.error["code"] == "handler_error"
    assert misdeed in job.error["message"]
    assert await kinds(service, job.job_id) == ONCE
    await still_serves(service)


async def test_a_handler_that_cancels_its_task_and_returns_has_still_returned(
    serve: Serve,
) -> None:
    """The pending cancellation used to hit the writing of the outcome: it was lost."""

    @handler("cancels")
    async def cancels(context: Context, payload: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    service = await serve(cancels, quick, concurrency=1)
    with capture_logs() as lines:
        job = await service.submit("cancels")
        assert (await service.wait(job.job_id)).result == "done"
        await still_serves(service)
    assert "outcome refused" not in [each["event"] for each in lines], "it is written once"


async def test_a_job_error_tells_its_own_code_and_details(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        raise JobError("no_\ud800", "not now", retryable=False, details={"x": {1, 2}})

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=5)
    await service.wait(job.job_id)
    [failed] = await recorded_of(service, job.job_id, AttemptFailed)
    assert failed.event == AttemptFailed(1, "no_?", False, None, "not now", "{'x': {1, 2}}")


@pytest.mark.parametrize("threaded", [False, True])
async def test_a_handler_that_ignores_being_stopped_is_left_behind(
    serve: Serve, clock: FakeClock, threaded: bool
) -> None:
    over = threading.Event()
    ended = threading.Event()

    def afterwards(context: Context | ThreadContext) -> str:
        context.progress(1, 1)
        context.log("late")
        ended.set()
        return "late"

    @handler("deaf")
    async def on_the_loop(context: Context, payload: Any) -> str:
        while not over.is_set():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue
        return afterwards(context)

    @handler("deaf")
    def in_a_thread(context: ThreadContext, payload: Any) -> str:
        over.wait()
        return afterwards(context)

    deaf = in_a_thread if threaded else on_the_loop
    service = await serve(deaf, quick, clock=clock, concurrency=1, threads=1, grace_s=5)
    try:
        job = await service.submit("deaf")
        await running(service, job.job_id)
        await service.jobs.cancel(job.job_id, actor="test")
        with capture_logs() as lines:
            cancelled = await time_passing(clock, service.wait(job.job_id))
        assert cancelled.status == "cancelled"
        assert "handler ignores being stopped" in [each["event"] for each in lines]
        await still_serves(service)
    finally:
        over.set()
    await asyncio.to_thread(ended.wait)
    await still_serves(service)
    await turns()
    expected = "JobSubmitted AttemptStarted CancelRequested JobCancelled"
    assert await kinds(service, job.job_id) == expected, "what it tells afterwards is refused"


async def test_reports_of_a_handler_that_is_stopped_are_not_lost(
    serve: Serve, clock: FakeClock
) -> None:
    """Cancelled while it waited for its reports, a handler used to take the sender with it."""
    reported = asyncio.Event()

    @handler("chatty")
    async def chatty(context: Context, payload: Any) -> None:
        for number in range(300):
            context.log(f"line {number}")
        reported.set()
        await context.artifact("a", b"1")
        await asyncio.Event().wait()

    service = await serve(chatty, clock=clock)
    job = await service.submit("chatty", timeout_s=5, max_attempts=1)
    await reported.wait()
    await job_when(service, job.job_id, lambda job: job.version > 10)
    await clock.advance(5)
    job = await service.wait(job.job_id)
    assert job.error is not None
    assert job.error["code"] == "timeout"
    *lines, saving = await recorded_of(service, job.job_id, LogWritten)
    assert len(lines) == 300
    assert orjson.loads(saving.data)["message"].startswith("Save file a ")


# --- retries


async def test_retries_back_off_with_jitter_and_end(serve: Serve, clock: FakeClock) -> None:
    @handler("bad", max_attempts=5, retry_delay_s=4)
    async def bad(context: Context, payload: Any) -> None:
        raise ValueError("no")

    service = await serve(bad, clock=clock, retry_delay_max_s=10)
    shares = []
    for job_id in [(await service.submit("bad")).job_id for _ in range(8)]:
        job = await time_passing(clock, service.wait(job_id), 1.0)
        assert (job.status, job.attempt, job.tries) == ("failed", 5, 5)
        starts = await recorded_of(service, job_id, AttemptStarted)
        failures = await recorded_of(service, job_id, AttemptFailed)
        for n, delay_s in enumerate([4, 8, 10, 10]):
            failed = failures[n].event
            assert isinstance(failed, AttemptFailed)
            assert failed.retry_at_us is not None
            shares.append((failed.retry_at_us - failures[n].at_us) / SECOND / delay_s)
            assert starts[n + 1].at_us >= failed.retry_at_us
        assert isinstance(failures[4].event, AttemptFailed)
        assert failures[4].event.retry_at_us is None
    assert 0.74 <= min(shares) < max(shares) <= 1.25
    assert max(shares) - min(shares) > 0.2, "what failed together does not return together"


async def test_a_failed_job_can_be_retried_by_hand(serve: Serve) -> None:
    @handler("second")
    async def second(context: Context, payload: Any) -> int:
        if context.attempt == 1:
            raise ValueError("no")
        return context.attempt

    service = await serve(second)
    job = await service.submit("second", max_attempts=1)
    assert (await service.wait(job.job_id)).status == "failed"
    await turns()
    await service.jobs.retry(job.job_id, actor="test")
    job = await service.wait(job.job_id)
    assert (job.status, job.result, job.attempt, job.tries) == ("completed", 2, 2, 1)


# --- time


async def test_a_job_waits_for_its_time(serve: Serve, clock: FakeClock) -> None:
    service = await serve(quick, clock=clock)
    run_at = datetime.fromtimestamp(clock.now_us() / SECOND + 60, UTC)
    job = await service.submit("quick", run_at=run_at)
    await time_passing(clock, service.wait(job.job_id))
    [started] = await recorded_of(service, job.job_id, AttemptStarted)
    assert started.at_us >= run_at.timestamp() * SECOND


async def test_a_wall_clock_set_forward_is_noticed(serve: Serve, clock: FakeClock) -> None:
    service = await serve(quick, clock=clock)
    run_at = datetime.fromtimestamp(clock.now_us() / SECOND + 3600, UTC)
    job = await service.submit("quick", run_at=run_at)
    await service.views.wait_for_position(service.log.head)
    clock.jump_wall(3600)
    before_s = clock.monotonic_s()
    await time_passing(clock, service.wait(job.job_id))
    assert clock.monotonic_s() - before_s < 1800, "not the hour"


@BOTH_ENDLESS
async def test_a_run_has_its_time(serve: Serve, clock: FakeClock, forever: Handler) -> None:
    service = await serve(forever, clock=clock)
    job = await service.submit("endless", max_attempts=1, timeout_s=5)
    job = await time_passing(clock, service.wait(job.job_id))
    assert job.error is not None
    assert (job.status, job.error["code"]) == ("failed", "timeout")
    assert job.started_us is not None
    assert job.finished_us is not None
    assert job.finished_us - job.started_us >= 4.9 * SECOND


async def test_a_result_after_the_time_is_too_late(serve: Serve, clock: FakeClock) -> None:
    @handler("stubborn")
    async def stubborn(context: Context, payload: Any) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "but I am done"
        return "never"

    service = await serve(stubborn, clock=clock)
    job = await service.submit("stubborn", max_attempts=1, timeout_s=5)
    job = await time_passing(clock, service.wait(job.job_id))
    assert job.error is not None
    assert job.error["code"] == "timeout"


@pytest.mark.parametrize("threaded", [False, True])
async def test_progress_keeps_a_run_alive(serve: Serve, clock: FakeClock, threaded: bool) -> None:
    loop = asyncio.get_running_loop()
    beats: asyncio.Queue[int] = asyncio.Queue()

    @handler("beats")
    async def on_the_loop(context: Context, payload: Any) -> None:
        while True:
            context.progress(await beats.get())
            beats.task_done()

    @handler("beats")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        while True:
            beat = asyncio.run_coroutine_threadsafe(beats.get(), loop).result()
            context.check_cancelled()
            context.progress(beat)
            loop.call_soon_threadsafe(beats.task_done)

    service = await serve(in_a_thread if threaded else on_the_loop, clock=clock)
    job = await service.submit("beats", max_attempts=1, stall_timeout_s=5)
    for beat in range(20):
        beats.put_nowait(beat)
        await beats.join()
        await clock.advance(1)
    await clock.advance(5)
    beats.put_nowait(-1)  # too late, and wakes the thread, which is to see that it is cancelled
    job = await time_passing(clock, service.wait(job.job_id))
    assert job.error is not None
    assert job.error["code"] == "stalled"
    assert job.started_us is not None
    assert job.finished_us is not None
    assert job.finished_us - job.started_us >= 23 * SECOND


# --- cancelling


async def test_a_queued_job_is_cancelled_at_once(serve: Serve) -> None:
    service = await serve(quick, concurrency=0)
    job = await service.submit("quick")
    await service.jobs.cancel(job.job_id, "no need", actor="test")
    [cancelled] = await recorded_of(service, job.job_id, JobCancelled)
    assert cancelled.event == JobCancelled(None, "no need")


@BOTH_ENDLESS
async def test_a_running_job_is_told_and_then_cancelled(
    serve: Serve, clock: FakeClock, forever: Handler
) -> None:
    """The clock stands still: no grace time passes."""
    service = await serve(forever, quick, clock=clock, concurrency=1)
    job = await service.submit("endless")
    await running(service, job.job_id)
    await service.jobs.cancel(job.job_id, actor="test")
    job = await service.wait(job.job_id)
    expected = "JobSubmitted AttemptStarted CancelRequested JobCancelled"
    assert await kinds(service, job.job_id) == expected
    await still_serves(service)


@pytest.mark.parametrize("error", [ValueError("no"), JobError("no", "no"), SystemExit(1)])
async def test_a_handler_that_fails_as_it_is_cancelled_is_cancelled(
    serve: Serve, error: BaseException
) -> None:
    @handler("fails")
    async def fails(context: Context, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    service = await serve(fails)
    job = await service.submit("fails")
    await running(service, job.job_id)
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).status == "cancelled"


async def test_a_result_that_was_ready_is_kept_though_it_was_cancelled(serve: Serve) -> None:
    @handler("ready")
    async def ready(context: Context, payload: Any) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "ready"
        return "never"

    service = await serve(ready)
    job = await service.submit("ready")
    await running(service, job.job_id)
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).result == "ready"


# --- order and limits


async def test_the_more_urgent_goes_first(serve: Serve) -> None:
    go = asyncio.Event()
    ran: list[int] = []

    @handler("note")
    async def note(context: Context, payload: int) -> None:
        await go.wait()
        ran.append(payload)

    service = await serve(note, concurrency=1)
    first = await service.submit("note", -1)
    await running(service, first.job_id)
    jobs = [await service.submit("note", each, priority=each) for each in (0, 5, 9, 7)]
    await service.views.wait_for_position(service.log.head)
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    assert ran == [-1, 9, 7, 5, 0]


async def test_threads_are_limited_and_do_not_hold_up_the_loop(serve: Serve) -> None:
    go = threading.Event()
    lock = threading.Lock()
    at_once: list[int] = [0, 0]

    @handler("thread")
    def thread(context: ThreadContext, payload: Any) -> None:
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        go.wait()
        with lock:
            at_once[0] -= 1

    service = await serve(thread, quick, concurrency=4, threads=2)
    try:
        jobs = [await service.submit("thread") for _ in range(6)]
        await running(service, jobs[0].job_id)
        await running(service, jobs[1].job_id)
        await still_serves(service)
    finally:
        go.set()
    for job in jobs:
        assert (await service.wait(job.job_id)).status == "completed"
    assert at_once == [0, 2]


async def test_no_concurrency_runs_nothing(serve: Serve) -> None:
    service = await serve(quick, concurrency=0)
    job = await service.submit("quick")
    await service.views.wait_for_position(service.log.head)
    await turns()
    assert await kinds(service, job.job_id) == "JobSubmitted"


# --- after a crash


async def crash(service: Service, tmp_path: Path) -> Path:
    """The data directory as a crash in this moment would leave it."""
    copy = tmp_path / "copy"
    await asyncio.to_thread(shutil.copytree, service.settings.data, copy)
    return copy


@pytest.mark.parametrize("max_attempts", [1, 2])
async def test_an_attempt_lost_in_a_crash_counts_and_is_run_again(
    serve: Serve, tmp_path: Path, max_attempts: int
) -> None:
    @handler("endless")
    async def ends(context: Context, payload: Any) -> int:
        return context.attempt

    service = await serve(endless, drain_s=0)
    job = await service.submit("endless", max_attempts=max_attempts)
    await running(service, job.job_id)
    again = await serve(ends, data=await crash(service, tmp_path))
    job = await again.wait(job.job_id)
    retried = max_attempts > 1
    expected = f"{LOST} AttemptStarted JobCompleted" if retried else ONCE
    assert await kinds(again, job.job_id) == expected
    [failed] = await recorded_of(again, job.job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert failed.event.code == "worker_lost"
    assert job.result == (2 if retried else None)


async def test_a_job_asked_to_stop_before_a_crash_is_cancelled(
    serve: Serve, tmp_path: Path
) -> None:
    over = asyncio.Event()

    @handler("deaf")
    async def deaf(context: Context, payload: Any) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    service = await serve(deaf)
    job = await service.submit("deaf")
    await running(service, job.job_id)
    await service.jobs.cancel(job.job_id, actor="test")
    again = await serve(deaf, data=await crash(service, tmp_path))
    over.set()
    job = await again.wait(job.job_id)
    expected = "JobSubmitted AttemptStarted CancelRequested JobCancelled"
    assert await kinds(again, job.job_id) == expected


# --- a log that accepts no writes


@pytest.mark.parametrize("kind", [AttemptStarted, JobCompleted])
@pytest.mark.parametrize("written", [False, True])
async def test_a_log_that_fails_for_a_while_loses_neither_claim_nor_outcome(
    serve: Serve,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Event],
    written: bool,
) -> None:
    service = await serve(quick, clock=clock, concurrency=1)
    left = [3]

    async def fail(new: NewEvent) -> None:
        if isinstance(new.event, kind) and left[0]:
            left[0] -= 1
            error: LogError = OutcomeUnknown() if written else DiskFull()
            raise error

    at_each_append(monkeypatch, service.log, **{"after" if written else "before": fail})
    jobs = [await service.submit("quick", number) for number in range(3)]
    for number, job in enumerate(jobs):
        ended = await time_passing(clock, service.wait(job.job_id))
        assert ended.result == number
        assert await kinds(service, job.job_id) == "JobSubmitted AttemptStarted JobCompleted"
    assert left == [0]


async def test_an_error_can_say_when_it_makes_sense_to_try_again(
    serve: Serve, clock: FakeClock
) -> None:
    @handler("asked-to-wait", max_attempts=2, retry_delay_s=1)
    async def asked_to_wait(context: Context, payload: Any) -> int:
        if context.attempt == 1:
            raise JobError("rate_limited", "Come back later.", retry_after_s=600)
        return context.attempt

    service = await serve(asked_to_wait, clock=clock)
    job = await service.submit("asked-to-wait")
    job = await time_passing(clock, service.wait(job.job_id), 30)
    [failed] = await recorded_of(service, job.job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert failed.event.retry_at_us == failed.at_us + 600 * SECOND
    assert job.result == 2

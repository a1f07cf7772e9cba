"""Retries within one attempt: their number, their delays, their lines in the job's log."""

import asyncio
import errno
import os
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import LogWritten
from eventjobs.domain.job import Job
from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.waiting import job_when, kinds, recorded_of, time_passing


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def flaky(failures: int, error: Exception | None = None) -> Any:
    """A function that raises *failures* times, then returns the number of the call."""
    calls = iter(range(1, 1000))

    def call() -> int:
        if (number := next(calls)) <= failures:
            raise error or ConnectionError(f"refused {number}")
        return number

    return call


def caller(call: Any, attempts: int, on: Any = Exception, *, threaded: bool = False) -> Handler:
    """A handler that makes this call, in each of the ways there are."""

    @handler("call", max_attempts=1)
    async def on_the_loop(ctx: Context, payload: Any) -> Any:
        async def call_later() -> Any:
            return call()

        if payload == "call":
            return await ctx.retrying("llm", attempts=attempts, on=on)(call_later)
        async for attempt in ctx.retrying("llm", attempts=attempts, on=on):
            with attempt:
                return await call_later()
        return None

    @handler("call", max_attempts=1)
    def in_a_thread(ctx: ThreadContext, payload: Any) -> Any:
        if payload == "call":
            return ctx.retrying("llm", attempts=attempts, on=on)(call)
        for attempt in ctx.retrying("llm", attempts=attempts, on=on):
            with attempt:
                return call()
        return None

    return in_a_thread if threaded else on_the_loop


async def lines(service: Service, job_id: str) -> list[LogWritten]:
    recorded = await recorded_of(service, job_id, LogWritten)
    return [each.event for each in recorded if isinstance(each.event, LogWritten)]


async def texts(service: Service, job_id: str) -> list[str | None]:
    return [each.message for each in await lines(service, job_id)]


async def end_of_job(service: Service, clock: FakeClock, payload: Any = None) -> Job:
    job = await service.submit("call", payload)
    return await time_passing(clock, service.wait(job.job_id))


FORMS = pytest.mark.parametrize("form", ["call", "loop"])
THREADED = pytest.mark.parametrize("threaded", [False, True], ids=["async", "thread"])


@FORMS
@THREADED
async def test_a_call_is_tried_again_after_growing_delays(
    serve: Serve, clock: FakeClock, form: str, threaded: bool
) -> None:
    service = await serve(caller(flaky(2), 3, threaded=threaded), clock=clock)
    job = await end_of_job(service, clock, form)
    assert (job.status, job.result, job.attempt) == ("completed", 3, 1)
    log_lines = await lines(service, job.job_id)
    assert [(each.level, each.message) for each in log_lines] == [
        ("info", "llm: Attempt 1/3"),
        ("warning", "llm: Attempt 2/3"),
        ("warning", "llm: Attempt 3/3"),
    ]
    assert log_lines[1].fields == {"error": "ConnectionError: refused 1"}


@pytest.mark.parametrize(
    ("settings", "delays_s"),
    [
        ({}, (0.5, 1.0, 2.0)),
        ({"call_delay_s": 100, "call_delay_factor": 3, "call_delay_max_s": 200}, (100, 200, 200)),
    ],
    ids=["default", "set"],
)
async def test_the_delays_grow_up_to_a_limit_with_a_quarter_of_jitter(
    serve: Serve, clock: FakeClock, settings: dict[str, float], delays_s: tuple[float, ...]
) -> None:
    called_s: list[float] = []

    def refuse() -> None:
        called_s.append(clock.monotonic_s())
        raise ConnectionError

    service = await serve(caller(refuse, 4), clock=clock, **settings)
    job = await service.submit("call")
    await job_when(service, job.job_id, lambda job: job.version >= 3)  # its first line is there
    await clock.advance(2 * sum(delays_s))
    await service.wait(job.job_id)
    waited = [later - earlier for earlier, later in pairwise(called_s)]
    assert len(waited) == len(delays_s)
    for waited_s, delay_s in zip(waited, delays_s, strict=True):
        assert 0.75 * delay_s <= waited_s <= 1.25 * delay_s
    assert waited != list(delays_s)


@FORMS
@THREADED
async def test_what_never_succeeds_raises_what_the_last_try_raised(
    serve: Serve, clock: FakeClock, form: str, threaded: bool
) -> None:
    service = await serve(caller(flaky(9), 2, threaded=threaded), clock=clock)
    job = await end_of_job(service, clock, form)
    assert job.error is not None
    assert job.error["code"] == "handler_error"
    assert job.error["message"] == "ConnectionError: refused 2"
    assert await texts(service, job.job_id) == ["llm: Attempt 1/2", "llm: Attempt 2/2"]


@pytest.mark.parametrize(
    ("error", "on"),
    [
        (JobError("bad_request", "It is not right.", retryable=False), Exception),
        (ValueError("not one of those"), (OSError, TimeoutError)),
        (Unspeakable(), OSError),
    ],
)
@THREADED
async def test_what_no_retry_would_mend_is_not_tried_again(
    serve: Serve, clock: FakeClock, error: Exception, on: Any, threaded: bool
) -> None:
    service = await serve(caller(flaky(9, error), 5, on, threaded=threaded), clock=clock)
    job = await end_of_job(service, clock)
    assert job.status == "failed"
    assert await texts(service, job.job_id) == ["llm: Attempt 1/5"]


async def test_an_error_without_words_is_retried_like_any_other(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(caller(flaky(1, Unspeakable()), 2), clock=clock)
    job = await end_of_job(service, clock)
    assert job.status == "completed"
    assert "Unspeakable" in (await lines(service, job.job_id))[1].fields["error"]


@THREADED
async def test_a_cancelled_job_does_not_wait_for_its_next_try(
    serve: Serve, clock: FakeClock, threaded: bool
) -> None:
    service = await serve(
        caller(flaky(9), 9, threaded=threaded),
        clock=clock,
        call_delay_s=1e6,
        call_delay_max_s=1e6,
    )
    job = await service.submit("call")
    await job_when(service, job.job_id, lambda job: job.version >= 3)  # its first line is there
    began_us = clock.now_us()
    await service.jobs.cancel(job.job_id, actor="test")
    ended = await time_passing(clock, service.wait(job.job_id))
    assert (ended.status, ended.attempt) == ("cancelled", 1)
    assert clock.now_us() - began_us <= 1e5 * SECOND
    assert await kinds(service, job.job_id) == (
        "JobSubmitted AttemptStarted LogWritten CancelRequested JobCancelled"
    )


async def test_a_thread_that_sleeps_wakes_up_when_it_is_to_stop(
    serve: Serve, clock: FakeClock
) -> None:
    asleep, awake = threading.Event(), threading.Event()

    @handler("call", timeout_s=2, max_attempts=1)
    def sleeps(ctx: ThreadContext, payload: Any) -> None:
        asleep.set()
        try:
            ctx.sleep(payload)
        finally:
            awake.set()

    service = await serve(sleeps, clock=clock)
    job = await service.submit("call", 1_000_000)
    await asyncio.to_thread(asleep.wait, 10)
    ended = await time_passing(clock, service.wait(job.job_id))
    assert ended.error is not None
    assert ended.error["code"] == "timeout"
    assert await time_passing(clock, asyncio.to_thread(awake.wait, 10))
    assert clock.monotonic_s() < 1e5


# --- files


@handler("call", max_attempts=1)
async def saves(ctx: Context, payload: Any) -> None:
    await ctx.artifact("test.csv", b"a,b\n")


@handler("call", max_attempts=1)
def saves_in_thread(ctx: ThreadContext, payload: Any) -> None:
    ctx.artifact("test.csv", b"a,b\n")


SAVERS = pytest.mark.parametrize("saver", [saves, saves_in_thread], ids=["async", "thread"])


#: A failed job leaves one more file, which is tried once.
ERROR_JSON = 1


class Disk:
    """Makes the next writes of artifacts fail."""

    def __init__(self) -> None:
        self.errors: list[int] = []
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        if "/incoming/" in str(Path(f"/proc/self/fd/{descriptor}").readlink()) and self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        self._fsync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    return disk


@SAVERS
async def test_a_file_that_could_not_be_written_is_written_again(
    serve: Serve, clock: FakeClock, disk: Disk, saver: Handler
) -> None:
    service = await serve(saver, clock=clock)
    disk.errors = [errno.EIO, errno.EMFILE]
    job = await end_of_job(service, clock)
    assert (job.status, [each.name for each in job.artifacts]) == ("completed", ["test.csv"])
    assert await texts(service, job.job_id) == [
        f"Save file test.csv for job {job.job_id}: Attempt 1/3",
        f"Save file test.csv for job {job.job_id}: Attempt 2/3",
        f"Save file test.csv for job {job.job_id}: Attempt 3/3",
    ]


@SAVERS
@pytest.mark.parametrize(
    ("number", "code", "tries"),
    [(errno.EIO, "artifact_not_stored", 3), (errno.EACCES, "handler_error", 1)],
    ids=["EIO", "EACCES"],
)
async def test_a_file_that_cannot_be_written_fails_the_attempt(
    serve: Serve, clock: FakeClock, disk: Disk, saver: Handler, number: int, code: str, tries: int
) -> None:
    service = await serve(saver, clock=clock)
    disk.errors = [number] * 9
    job = await end_of_job(service, clock)
    assert job.error is not None
    assert (job.error["code"], job.error["retryable"]) == (code, True)
    assert os.strerror(number) in job.error["message"]
    assert len(disk.errors) == 9 - tries - ERROR_JSON


@SAVERS
async def test_a_full_disk_is_not_tried_again_at_once(
    serve: Serve, clock: FakeClock, disk: Disk, saver: Handler
) -> None:
    service = await serve(saver, clock=clock)
    disk.errors = [errno.ENOSPC] * 9
    job = await end_of_job(service, clock)
    assert job.error is not None
    assert "The disk is full" in job.error["message"]
    assert len(disk.errors) == 9 - 1 - ERROR_JSON


async def test_a_file_is_tried_as_often_as_the_settings_say(
    serve: Serve, clock: FakeClock, disk: Disk
) -> None:
    service = await serve(saves, clock=clock, store_attempts=1)
    disk.errors = [errno.EIO] * 9
    assert (await end_of_job(service, clock)).status == "failed"
    assert len(disk.errors) == 9 - 1 - ERROR_JSON

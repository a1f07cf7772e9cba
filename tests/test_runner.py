"""A job is claimed when it is due, run once at a time, and its outcome is written down."""

import asyncio
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from eventjobs.errors import JobError
from eventjobs.events import AttemptFailed, AttemptStarted, JobSpec
from eventjobs.handlers import Context, ThreadContext, handler
from eventjobs.service import Service
from tests.conftest import Serve
from tests.facts import job_when, kinds, recorded_of, time_passing, turns
from tests.fake_clock import SECOND, FakeClock


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I cannot say what I am")


def raise_(error: BaseException) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work


ERRORS: dict[str, tuple[Callable[[], Any], str]] = {
    "an error": (raise_(ValueError("no such row")), "ValueError: no such row"),
    "an assertion": (raise_(AssertionError()), "AssertionError"),
    "sys.exit": (lambda: sys.exit(3), "SystemExit: 3"),
    "an interrupt": (raise_(KeyboardInterrupt()), "KeyboardInterrupt"),
    "generator exit": (raise_(GeneratorExit()), "GeneratorExit"),
    "half a surrogate": (raise_(ValueError("\ud800")), "ValueError: "),
    "an error that cannot be told": (raise_(Mute()), "Mute"),
    "a group": (raise_(ExceptionGroup("two", [ValueError("1"), OSError("2")])), "ExceptionGroup"),
    "cancelling itself": (raise_(asyncio.CancelledError()), "the handler cancelled itself"),
}


# --- outcomes


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("name", ERRORS)
async def test_whatever_a_handler_raises_fails_its_job_and_no_other(
    serve: Serve, name: str, threaded: bool
) -> None:
    work, message = ERRORS[name]

    @handler("bad")
    async def on_the_loop(context: Context, payload: Any) -> None:
        work()

    @handler("bad")
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        work()

    service = await serve(in_a_thread if threaded else on_the_loop, ok)
    bad = await service.submit("bad", max_attempts=1)
    good = [await service.submit("ok", number) for number in range(3)]
    job = await service.wait(bad.job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "handler_error"
    assert message in job.error["message"]
    for number, each in enumerate(good):
        assert (await service.wait(each.job_id)).result == number


async def test_stop_iteration_in_a_thread_is_an_error_like_any_other(serve: Serve) -> None:
    @handler("bad")
    def bad(context: ThreadContext, payload: Any) -> None:
        next(iter(()))

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=1)
    job = await service.wait(job.job_id)
    assert job.error is not None
    assert "StopIteration" in job.error["message"]


async def test_an_error_keeps_where_it_was_for_operators(serve: Serve) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        raise ValueError("no such row")

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=1)
    await service.wait(job.job_id)
    [failed] = await recorded_of(service, job.job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    assert 'raise ValueError("no such row")' in failed.event.details["traceback"]


@pytest.mark.parametrize("details", [None, {"row": 7}, object()])
async def test_a_handler_may_say_what_went_wrong_and_that_it_is_final(
    serve: Serve, details: Any
) -> None:
    @handler("bad")
    async def bad(context: Context, payload: Any) -> None:
        raise JobError("bad_row", "row 7 is empty", retryable=False, details=details)

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=5)
    job = await service.wait(job.job_id)
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error == {"code": "bad_row", "message": "row 7 is empty", "retryable": False}
    [failed] = await recorded_of(service, job.job_id, AttemptFailed)
    assert isinstance(failed.event, AttemptFailed)
    if not isinstance(details, dict | None):
        details = repr(details)
    assert failed.event.details == details


# --- retries


async def test_a_failed_job_is_tried_again_later_and_later(
    serve: Serve, clock: FakeClock
) -> None:
    """Each delay is twice the one before, give or take a quarter, up to the longest."""

    @handler("bad", max_attempts=6)
    async def bad(context: Context, payload: Any) -> None:
        raise OSError("not now")

    service = await serve(bad, clock=clock, retry_delay_s=10, retry_delay_max_s=60)
    job = await service.submit("bad")
    job = await time_passing(clock, service.wait(job.job_id), 2)
    assert (job.status, job.attempt) == ("failed", 6)
    failed = await recorded_of(service, job.job_id, AttemptFailed)
    started = await recorded_of(service, job.job_id, AttemptStarted)
    delays = [
        (each.event.retry_at_us - each.at_us) / SECOND
        for each in failed
        if isinstance(each.event, AttemptFailed) and each.event.retry_at_us is not None
    ]
    for delay, usual in zip(delays, [10, 20, 40, 60, 60], strict=True):
        assert 0.74 * usual <= delay <= 1.25 * usual
    for before, after, delay in zip(failed, started[1:], delays, strict=False):
        assert after.at_us >= before.at_us + delay * SECOND - 1


async def test_a_job_that_fails_twice_and_then_succeeds_has_succeeded(serve: Serve) -> None:
    @handler("third", retry_delay_s=0)
    async def third(context: Context, payload: Any) -> int:
        if context.attempt < 3:
            raise OSError("not now")
        return context.attempt

    service = await serve(third)
    job = await service.submit("third")
    job = await service.wait(job.job_id)
    assert (job.status, job.result, job.error) == ("completed", 3, None)


async def test_what_a_submission_says_goes_before_what_its_handler_says(serve: Serve) -> None:
    @handler("bad", max_attempts=2, retry_delay_s=0, timeout_s=5)
    async def bad(context: Context, payload: Any) -> None:
        raise OSError("not now")

    service = await serve(bad, max_attempts=4)
    job = await service.submit("bad")
    assert (await service.wait(job.job_id)).attempt == 2
    job = await service.submit("bad", max_attempts=3, timeout_s=7.0)
    job = await service.wait(job.job_id)
    assert (job.attempt, job.spec.timeout_s) == (3, 7.0)


async def test_a_job_with_very_many_tries_still_has_a_next_one(serve: Serve) -> None:
    """Two to the power of its tries is more than a number holds."""

    @handler("bad", retry_delay_s=0)
    async def bad(context: Context, payload: Any) -> None:
        raise OSError("not now")

    service = await serve(bad)
    job = await service.submit("bad", max_attempts=1100)
    job = await service.wait(job.job_id)
    assert (job.status, job.attempt) == ("failed", 1100)


async def test_a_failed_job_can_be_retried_by_hand_with_all_its_tries(serve: Serve) -> None:
    fail = True

    @handler("bad", max_attempts=2, retry_delay_s=0)
    async def bad(context: Context, payload: Any) -> int:
        if fail:
            raise OSError("not now")
        return context.attempt

    service = await serve(bad)
    job = await service.submit("bad")
    assert (await service.wait(job.job_id)).attempt == 2
    await service.jobs.retry(job.job_id, actor="ann")
    assert (await service.wait(job.job_id)).attempt == 4
    fail = False
    await service.jobs.retry(job.job_id, actor="ann")
    job = await service.wait(job.job_id)
    assert (job.status, job.result) == ("completed", 5)


# --- when


async def test_a_scheduled_job_runs_at_its_time_and_not_before(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(ok, clock=clock)
    at_us = clock.now_us() + 3600 * SECOND
    outcome = await service.jobs.submit(JobSpec("ok", run_at_us=at_us), actor="ann")
    job_id = outcome.job.job_id
    for _ in range(10):
        await asyncio.to_thread(str)
        await clock.advance(300)
    assert await kinds(service, job_id) == "JobSubmitted"
    await time_passing(clock, service.wait(job_id), 60)
    [started] = await recorded_of(service, job_id, AttemptStarted)
    assert started.at_us >= at_us


class TickingClock(FakeClock):
    """A millisecond passes whenever somebody looks."""

    def now_us(self) -> int:
        self.jump_wall(0.001)
        return super().now_us()


async def test_a_job_that_becomes_due_while_the_runner_looks_is_not_overlooked(
    serve: Serve,
) -> None:
    """Due after "what is due now?" and before "what is next?": it used to wait for 30 seconds."""
    clock = TickingClock()
    service = await serve(ok, clock=clock)
    jobs = [
        await service.jobs.submit(
            JobSpec("ok", run_at_us=clock.now_us() + number * 1000), actor="ann"
        )
        for number in range(100)
    ]
    for each in jobs:
        for _ in range(200):
            await asyncio.to_thread(str)
            await clock.advance(0.001)
            job = await service.jobs.current(each.job.job_id)
            assert job is not None
            if job.finished:
                break
        assert job.finished


async def test_jobs_are_run_by_priority_and_then_by_age(serve: Serve) -> None:
    ran: list[int] = []
    first, go = asyncio.Event(), asyncio.Event()

    @handler("one")
    async def one(context: Context, payload: int) -> None:
        ran.append(payload)
        first.set()
        await go.wait()

    service = await serve(one, concurrency=1)
    await service.submit("one", 0)
    await first.wait()
    jobs = [
        await service.submit("one", number, priority=priority)
        for number, priority in [(1, 0), (2, 5), (3, 0), (4, 9), (5, -1), (6, 5)]
    ]
    go.set()
    for job in jobs:
        await service.wait(job.job_id)
    assert ran == [0, 4, 2, 6, 1, 3, 5]


async def test_no_more_jobs_run_at_once_than_allowed(serve: Serve) -> None:
    running, most = 0, 0

    @handler("count")
    async def count(context: Context, payload: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await turns()
        running -= 1

    service = await serve(count, concurrency=3)
    jobs = [await service.submit("count") for _ in range(20)]
    for job in jobs:
        await service.wait(job.job_id)
    assert most == 3


async def test_jobs_in_threads_are_bounded_and_hold_up_no_others(serve: Serve) -> None:
    lock = threading.Lock()
    running, most = 0, 0
    go = threading.Event()

    @handler("thread")
    def thread(context: ThreadContext, payload: Any) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait()
        with lock:
            running -= 1

    service = await serve(thread, ok, concurrency=10, threads=2)
    threads = [await service.submit("thread") for _ in range(5)]
    others = [await service.submit("ok", number) for number in range(20)]
    for number, job in enumerate(others):
        assert (await service.wait(job.job_id)).result == number
    go.set()
    for job in threads:
        await service.wait(job.job_id)
    assert most == 2


async def test_a_job_nobody_can_run_waits_for_one_who_can(serve: Serve) -> None:
    service = await serve(ok)
    outcome = await service.jobs.submit(JobSpec("other"), actor="ann")
    for number in range(3):
        job = await service.submit("ok", number)
        await service.wait(job.job_id)
    assert await kinds(service, outcome.job.job_id) == "JobSubmitted"


async def test_a_service_without_concurrency_runs_nothing(serve: Serve) -> None:
    service = await serve(ok, concurrency=0)
    job = await service.submit("ok")
    await service.views.reached(service.log.head)
    await turns()
    assert await kinds(service, job.job_id) == "JobSubmitted"


async def test_many_jobs_run_once_each(serve: Serve) -> None:
    ran: list[int] = []

    @handler("once")
    async def once(context: Context, payload: int) -> None:
        ran.append(payload)

    service = await serve(once, concurrency=7)
    jobs = await asyncio.gather(*(service.submit("once", number) for number in range(300)))
    for job in jobs:
        await service.wait(job.job_id)
    assert sorted(ran) == list(range(300))
    events = await service.log.read(0, 2000)
    assert len(events) == 900


async def test_versions_and_times_of_a_job_are_in_order(serve: Serve) -> None:
    service: Service = await serve(ok)
    job = await service.submit("ok")
    await job_when(service, job.job_id, lambda job: job.finished)
    events = await service.log.read_job(job.job_id)
    assert all(a.at_us <= b.at_us and a.version + 1 == b.version for a, b in pairwise(events))

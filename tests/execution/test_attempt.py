"""Every attempt ends and frees its slot and limits, even if its handler is hostile."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DiskFull, JobError, NotJSON, TooLarge
from eventjobs.execution.attempt import RunningAttempt
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.clock import FakeClock
from tests.support.hostile import (
    ERRORS,
    RESULTS,
    SLOW,
    raises_in_a_process,
    returns_in_a_process,
)
from tests.support.log_lines import capture_logs
from tests.support.waiting import job_when, time_passing, turns


class Checked(BaseModel):
    """Fits when it is submitted, and raises when it runs."""

    name: str
    seen: bool = False

    @model_validator(mode="after")
    def check(self) -> "Checked":
        if self.name in PARSED:
            raise ERRORS[self.name]()
        return self


#: Names of errors that Checked raises by now.
PARSED: set[str] = set()


@handler("parse", max_attempts=1)
async def parse(context: Context, payload: Checked) -> None:
    pass


@handler("parse", max_attempts=1)
def parse_in_a_thread(context: ThreadContext, payload: Checked) -> None:
    pass


@handler("good", max_attempts=1)
async def good(context: Context, payload: Any) -> Any:
    return payload


def throw(error: str) -> None:
    raise ERRORS[error]()


async def throw_later(error: str) -> None:
    await asyncio.sleep(0)
    throw(error)


# --- where it is raised, on the loop and in a thread


async def from_breaker(context: Context, error: str) -> None:
    await context.breaker(error, threshold=1_000).call(throw_later, error)


async def from_fallback(context: Context, error: str) -> None:
    breaker = context.breaker(f"{error}, fallback", threshold=1_000)
    await breaker.call(throw_later, error, fallback=throw)


async def from_retrying(context: Context, error: str) -> None:
    await context.retrying(error, attempts=1, on=ValueError)(throw_later, error)


async def from_cleanup(context: Context, error: str) -> None:
    try:
        raise RuntimeError
    finally:
        throw(error)


async def from_child(context: Context, error: str) -> None:
    await context.result(await context.submit("raises", error))


async def from_another_thread(context: Context, error: str) -> None:
    if error == "stop iteration":
        throw(error)  # asyncio never sets the result of such a thread
    await asyncio.to_thread(throw, error)


async def from_a_future(context: Context, error: str) -> None:
    future = asyncio.get_running_loop().create_future()
    if error == "stop iteration":
        throw(error)  # no future takes it
    future.set_exception(ERRORS[error]())
    await future


ON_THE_LOOP: dict[str, Callable[[Context, str], Awaitable[object]]] = {
    "raises": lambda context, error: throw_later(error),
    "step": lambda context, error: context.step("step", throw_later, error),
    "breaker": from_breaker,
    "fallback": from_fallback,
    "retrying": from_retrying,
    "cleanup": from_cleanup,
    "child": from_child,
    "thread": from_another_thread,
    "future": from_a_future,
}


def with_breaker(context: ThreadContext, error: str) -> None:
    with context.breaker(error, threshold=1_000):
        throw(error)


IN_A_THREAD: dict[str, Callable[[ThreadContext, str], object]] = {
    "raises": lambda context, error: throw(error),
    "step": lambda context, error: context.step("step", throw, error),
    "breaker": with_breaker,
    "retrying": lambda context, error: context.retrying(error, attempts=1)(throw, error),
    "child": lambda context, error: context.result(context.submit("raises", error)),
}


def on_the_loop(type: str) -> Handler:
    @handler(type, max_attempts=1)
    async def handle(context: Context, payload: str) -> None:
        await ON_THE_LOOP[type](context, payload)

    return handle


def in_a_thread(type: str) -> Handler:
    @handler(type, max_attempts=1)
    def handle(context: ThreadContext, payload: str) -> None:
        IN_A_THREAD[type](context, payload)

    return handle


async def ends_of(service: Service, type: str, payloads: Iterator[Any]) -> dict[Any, Job]:
    ids = {each: (await service.submit(type, each)).job_id for each in payloads}
    async with asyncio.timeout(60):
        return {each: await service.wait(job_id) for each, job_id in ids.items()}


async def frees_all(service: Service) -> None:
    """No slot is taken, and none of the limits is in use."""
    job = await service.submit("good", 1)
    assert (await service.wait(job.job_id)).result == 1
    await service.views.wait_for_position(service.log.head)
    while service.runner.running:
        await turns(1)
    assert not service.runner._attempts
    assert not service.limiter._holders
    assert service.ready


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_whatever_is_raised_wherever_ends_the_attempt(serve: Serve, threaded: bool) -> None:
    parts = map(in_a_thread, IN_A_THREAD) if threaded else map(on_the_loop, ON_THE_LOOP)
    service = await serve(*parts, good, concurrency=4, threads=2, type_limits={"raises": 3})
    for type in IN_A_THREAD if threaded else ON_THE_LOOP:
        jobs = await ends_of(service, type, iter(ERRORS))
        assert {name: job.status for name, job in jobs.items() if job.status != "failed"} == {}
        for job in jobs.values():
            assert job.error is not None
            assert 0 < len(job.error["code"]) <= 200
            assert len(job.error["message"]) <= 4_000
    await frees_all(service)


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_a_payload_whose_model_raises_at_run_time_ends_the_attempt(
    serve: Serve, threaded: bool
) -> None:
    service = await serve(parse_in_a_thread if threaded else parse, good)
    PARSED.update(ERRORS)
    try:
        ids = {}
        # pydantic itself reads all of the text of a ValueError.
        for name in ERRORS.keys() - {"args without end"}:
            # Past the check of a submission, which it would not pass now.
            spec = JobSpec("parse", {"name": name}, max_attempts=1)
            ids[name] = (await service.jobs.submit(spec, actor="test")).job.job_id
        async with asyncio.timeout(60):
            jobs = {name: await service.wait(job_id) for name, job_id in ids.items()}
    finally:
        PARSED.clear()
    assert {name: job.status for name, job in jobs.items() if job.status != "failed"} == {}
    await frees_all(service)


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_whatever_is_returned_ends_the_attempt(serve: Serve, threaded: bool) -> None:
    @handler("returns", max_attempts=1)
    async def returns(context: Context, payload: str) -> Any:
        return RESULTS[payload]()

    @handler("returns", max_attempts=1)
    def returns_in_a_thread(context: ThreadContext, payload: str) -> Any:
        return RESULTS[payload]()

    service = await serve(returns_in_a_thread if threaded else returns, good)
    jobs = await ends_of(service, "returns", iter(RESULTS))
    fit = {name for name, job in jobs.items() if job.status == "completed"}
    assert fit <= {"dict", "list"}, "they are what their bases hold"
    codes = {job.error["code"] for job in jobs.values() if job.error is not None}
    assert codes == {"result_not_json"}
    await frees_all(service)


async def test_whatever_is_raised_or_returned_in_a_process_ends_the_attempt(serve: Serve) -> None:
    service = await serve(raises_in_a_process, returns_in_a_process, good, processes=1)
    for type, names in (("raises", ERRORS), ("returns", RESULTS)):
        jobs = await ends_of(service, type, (each for each in names if each not in SLOW))
        finished = {name for name, job in jobs.items() if job.status == "completed"}
        assert finished <= {"dict", "list"}
    await frees_all(service)


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
@pytest.mark.parametrize("ending", ["cancel", "timeout"])
async def test_whatever_is_raised_while_it_is_stopped_ends_the_attempt(
    serve: Serve, clock: FakeClock, ending: str, threaded: bool
) -> None:
    @handler("stops", max_attempts=1)
    async def stops(context: Context, payload: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            throw(payload)

    @handler("stops", max_attempts=1)
    def stops_in_a_thread(context: ThreadContext, payload: str) -> None:
        try:
            while True:
                context.sleep(math.pi)
        finally:
            throw(payload)

    stopping = stops_in_a_thread if threaded else stops
    service = await serve(stopping, good, clock=clock, threads=len(ERRORS))
    timeout_s = 5 if ending == "timeout" else None
    ids = [(await service.submit("stops", each, timeout_s=timeout_s)).job_id for each in ERRORS]
    for job_id in ids:
        await job_when(service, job_id, lambda job: job.status == "running")
        if ending == "cancel":
            await service.jobs.cancel(job_id, actor="test")
    for job_id in ids:
        job = await time_passing(clock, service.wait(job_id))
        assert job.status in (("cancelled", "failed") if ending == "cancel" else ("failed",))
    await frees_all(service)


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JobError("half_done", "Rows 1 to 9 are in.", retryable=False), ("half_done", False)),
        (NotJSON("no"), ("invalid_input", False)),
        (ConnectionError("cut off"), ("timeout", True)),
    ],
    ids=["JobError", "InvalidInput", "another"],
)
async def test_a_failure_that_a_handler_chose_is_kept_though_its_time_was_up(
    serve: Serve,
    clock: FakeClock,
    error: Exception,
    expected: tuple[str, bool],
    threaded: bool,
) -> None:
    """Any other error is what the stop has brought about."""

    @handler("stops", max_attempts=1)
    async def stops(context: Context, payload: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    @handler("stops", max_attempts=1)
    def stops_in_a_thread(context: ThreadContext, payload: Any) -> None:
        try:
            context.sleep(math.inf)
        finally:
            raise error

    # A thread needs real time to stop, and the clock goes on meanwhile.
    handler_of_mode = stops_in_a_thread if threaded else stops
    service = await serve(handler_of_mode, good, clock=clock, grace_s=3600)
    job = await service.submit("stops", timeout_s=5)
    job = await time_passing(clock, service.wait(job.job_id))
    assert job.error is not None
    assert (job.error["code"], job.error["retryable"]) == expected
    await frees_all(service)


async def test_a_cancellation_that_a_handler_leaves_behind_does_not_lose_its_outcome(
    serve: Serve,
) -> None:
    @handler("leaves", max_attempts=1)
    async def leaves(context: Context, payload: Any) -> str:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def cancel(times: int) -> None:
            task.cancel()
            if times:
                loop.call_soon(cancel, times - 1)

        loop.call_soon(cancel, 100)
        return "done"

    service = await serve(leaves, good, concurrency=1)
    for _ in range(5):
        job = await service.submit("leaves")
        async with asyncio.timeout(10):
            assert (await service.wait(job.job_id)).result == "done"
    await frees_all(service)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyError("no such thing"), "outcome_not_recorded", "KeyError"),
        (UnicodeError("\ud800"), "outcome_not_recorded", "UnicodeError"),
        (MemoryError(), "outcome_not_recorded", "MemoryError"),
        (TooLarge("larger than any artifact"), "too_large", "larger than any artifact"),
    ],
)
async def test_an_outcome_that_cannot_be_recorded_is_a_failure_that_says_so(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, message: str
) -> None:
    """Another attempt would end like it: there is none."""
    service = await serve(good, concurrency=1)

    async def complete(*_: Any, **__: Any) -> Job:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(service.jobs, "complete", complete)
        job = await service.submit("good", 1, max_attempts=2)
        job = await service.wait(job.job_id)
    assert job.error is not None
    assert (job.status, job.attempt, job.error["code"]) == ("failed", 1, code)
    assert message in job.error["message"]
    await frees_all(service)


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError("no space"), "no space"), (DiskFull(), "disk_full")]
)
async def test_an_outcome_waits_until_it_can_be_written(
    serve: Serve,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    service = await serve(good, clock=clock)
    complete, errors = service.jobs.complete, [error]

    async def complete_or_fail(*given: Any, **more: Any) -> Job:
        if errors:
            raise errors.pop()
        return await complete(*given, **more)

    monkeypatch.setattr(service.jobs, "complete", complete_or_fail)
    with capture_logs() as lines:
        job = await service.submit("good", 1)
        job = await time_passing(clock, service.wait(job.job_id))
    assert (job.status, job.attempt) == ("completed", 1)
    assert [each["error"] for each in lines if each["event"] == "outcome waits"] == [reason]


async def test_a_report_that_cannot_be_recorded_is_lost_and_the_outcome_is_not(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    @handler("tells", max_attempts=1)
    async def tells(context: Context, payload: Any) -> str:
        context.log("a line")
        return "done"

    service = await serve(tells, good)

    async def report(*_: Any, **__: Any) -> Job:
        raise KeyError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr(service.jobs, "report", report)
        job = await service.submit("tells")
        assert (await service.wait(job.job_id)).result == "done"
    await frees_all(service)


async def test_a_fault_of_ours_in_an_attempt_fails_it_and_is_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await serve(good)

    async def run(attempt: RunningAttempt) -> Outcome:
        raise KeyError("a fault of ours")

    with capture_logs() as lines, monkeypatch.context() as patched:
        patched.setattr(RunningAttempt, "run", run)
        job = await service.wait((await service.submit("good")).job_id)
    assert (job.status, job.error and job.error["code"]) == ("failed", "handler_error")
    assert [each["job_id"] for each in lines if each["event"] == "attempt broke"] == [job.job_id]
    await frees_all(service)

"""A context works in every thread of its handler."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventjobs.domain.events import LogWritten, ProgressReported
from eventjobs.domain.job import Job
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from eventjobs.storable import PROGRESS_BYTES_MAX
from tests.conftest import Serve
from tests.support.hostile import RESULTS
from tests.support.waiting import job_when, recorded_of


@handler("double")
async def double(context: Context, payload: int) -> int:
    return payload * 2


async def with_breaker(context: Context) -> Any:
    async def answer() -> str:
        context.log("called")
        return "answered"

    return await context.breaker("far").call(answer)


async def with_retries(context: Context) -> Any:
    tries = []

    async def second() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("once more")
        return "answered"

    return await context.retrying("far", attempts=2)(second)


async def with_a_child(context: Context) -> Any:
    return await context.result(await context.submit("double", 21))


SHORT_S = 0.01

#: What is awaited, and what it returns.
AWAITED: dict[str, tuple[Callable[[Context], Awaitable[Any]], Any]] = {
    "step": (lambda context: context.step("step", lambda: [1]), [1]),
    "artifact": (lambda context: context.artifact("a.txt", b"1"), None),
    "sleep": (lambda context: context.sleep(SHORT_S), None),
    "breaker": (with_breaker, "answered"),
    "retrying": (with_retries, "answered"),
    "child": (with_a_child, 42),
}


async def test_what_is_awaited_may_be_awaited_on_another_loop(serve: Serve) -> None:
    @handler("elsewhere", max_attempts=1)
    async def elsewhere(context: Context, payload: str) -> Any:
        async def use() -> Any:
            return await AWAITED[payload][0](context)

        return await asyncio.to_thread(asyncio.run, use())

    service = await serve(elsewhere, double)
    for name, (_, expected) in AWAITED.items():
        job = await service.wait((await service.submit("elsewhere", name)).job_id)
        assert (job.status, job.result) == ("completed", expected), (name, job.error)


async def test_what_is_said_in_a_thread_is_there_before_the_end(serve: Serve) -> None:
    def work(context: Context) -> None:
        for number in range(50):
            context.log(f"line {number}")
        context.progress(1, 2, data={"lock": threading.Lock(), "large": "x" * 100})
        context.issue("slow", "it was slow", error=ValueError("no"))

    @handler("works", max_attempts=1)
    async def works(context: Context, payload: Any) -> str:
        await asyncio.gather(*(asyncio.to_thread(work, context) for _ in range(3)))
        return "done"

    service = await serve(works)
    job = await service.wait((await service.submit("works")).job_id)
    assert job.result == "done", job.error
    assert [each["error"] for each in job.issues] == ["ValueError: no"] * 3
    lines = await recorded_of(service, job.job_id, LogWritten)
    assert len(lines) == 3 * 51
    progress = [each.event for each in await recorded_of(service, job.job_id, ProgressReported)]
    assert isinstance(progress[-1], ProgressReported)
    assert progress[-1].data["lock"].startswith("<unlocked _thread.lock")


async def test_a_thread_is_told_that_its_job_is_to_stop(serve: Serve) -> None:
    started, stopped = threading.Event(), []

    def work(context: Context) -> None:
        started.set()
        try:
            while True:
                context.check_cancelled()
        finally:
            stopped.append(context.cancelled)

    @handler("works", max_attempts=1)
    async def works(context: Context, payload: Any) -> None:
        await asyncio.to_thread(work, context)

    service = await serve(works)
    job = await service.submit("works")
    await asyncio.to_thread(started.wait)
    await service.jobs.cancel(job.job_id, actor="test")
    assert (await service.wait(job.job_id)).status == "cancelled"
    while not stopped:
        await asyncio.to_thread(str)
    assert stopped == [True]


async def test_the_context_of_a_plain_handler_does_not_block_the_loop(serve: Serve) -> None:
    """It would wait on the loop for what the loop is to do."""
    loop = asyncio.get_running_loop()

    @handler("plain", max_attempts=1)
    def plain(context: ThreadContext, payload: Any) -> str:
        async def there() -> str:
            context.log("from the loop")
            with pytest.raises(RuntimeError, match="would block the service's loop"):
                context.step("step", lambda: 1)
            return "refused"

        return asyncio.run_coroutine_threadsafe(there(), loop).result()

    service = await serve(plain)
    job = await service.wait((await service.submit("plain")).job_id)
    assert job.result == "refused", job.error


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
async def test_what_is_said_is_cut_at_its_limit(serve: Serve, threaded: bool) -> None:
    def report(context: Context | ThreadContext) -> None:
        context.progress(1, stage="s" * 9_000, message="m" * 9_000, data=["d" * 9_000_000])
        context.log("l" * 9_000_000, name="\udcff.txt", lines=["f"] * 1_000_000)

    @handler("says", max_attempts=1)
    async def on_the_loop(context: Context, payload: Any) -> None:
        report(context)

    @handler("says", max_attempts=1)
    def in_a_thread(context: ThreadContext, payload: Any) -> None:
        report(context)

    service = await serve(in_a_thread if threaded else on_the_loop)
    job = await completed_job(service)
    [progress] = await recorded_of(service, job.job_id, ProgressReported)
    [line] = await recorded_of(service, job.job_id, LogWritten)
    assert isinstance(progress.event, ProgressReported)
    assert isinstance(line.event, LogWritten)
    assert (progress.event.stage, progress.event.message) == ("s" * 200, "m" * 4_000)
    assert progress.event.data["cut"].startswith('["dddd')
    assert len(progress.body or b"") < PROGRESS_BYTES_MAX
    assert line.event.message == "l" * 4_000
    assert line.event.fields["cut"].startswith('{"name":"?.txt","lines":["f","f",')


async def test_what_is_said_may_be_anything(serve: Serve) -> None:
    @handler("says", max_attempts=1)
    async def says(context: Context, payload: str) -> None:
        value = RESULTS[payload]()
        context.progress(value, value, stage=value, message=value, data=value)
        context.log(value, field=value)
        context.issue(value, value, detail=value)
        logging.getLogger("mine").warning("said", extra={"more": value})
        await context.retrying(value)(asyncio.sleep, 0)

    service = await serve(says)
    for name in RESULTS.keys() - {"coroutine", "large", "deep"}:
        job = await service.wait((await service.submit("says", name)).job_id)
        assert job.status == "completed", (name, job.error)
        assert len(job.issues) == 1


async def completed_job(service: Service) -> Job:
    job = await service.submit("says")
    job = await job_when(service, job.job_id, lambda job: job.finished)
    assert job.status == "completed", job.error
    return job

"""The log of a job: what its handler tells, and what it logs, as pages, polls and streams."""

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest
import structlog

from eventjobs.client import Client
from eventjobs.domain.events import LogWritten
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.process_handlers import logs_a_step
from tests.support.stream_reader import Message, whatwg
from tests.support.waiting import job_when, recorded_of

LOG = logging.getLogger("shop.orders")


@pytest.fixture(autouse=True)
def everything_is_let_through(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "shop.orders")


@handler("talks")
async def talks(context: Context, payload: int) -> None:
    for number in range(payload):
        context.log(f"line {number}", "debug" if number else "info", number=number)
        context.progress(number, payload, stage=f"stage {number}")


async def lines(service: Service, job_id: str) -> list[LogWritten]:
    events = await recorded_of(service, job_id, LogWritten)
    return [each.event for each in events if isinstance(each.event, LogWritten)]


async def messages(service: Service, job_id: str) -> list[str | None]:
    return [each.message for each in await lines(service, job_id)]


# --- reading it


async def test_the_lines_are_a_page_and_the_next_one(client: Connect) -> None:
    asked = await client(talks)
    job_id = (await asked.submit("talks", 5))["job_id"]
    job = await asked.service.wait(job_id)
    first = (await asked.get(f"/v1/jobs/{job_id}/logs?limit=3")).json
    assert [each["data"]["message"] for each in first["events"]] == ["line 0", "line 1", "line 2"]
    assert first["events"][0]["data"]["fields"] == {"number": 0}
    assert (first["end"], first["next"]) == (False, first["events"][-1]["position"])
    rest = (await asked.get(f"/v1/jobs/{job_id}/logs?after={first['next']}")).json
    assert [each["data"]["message"] for each in rest["events"]] == ["line 3", "line 4"]
    assert (rest["end"], rest["next"]) == (True, job.position)
    assert (await asked.get(f"/v1/jobs/{job_id}")).json["links"]["logs"].endswith("/logs")


async def test_a_poll_waits_for_a_line_and_for_nothing_else(client: Connect) -> None:
    go = asyncio.Event()

    @handler("waits")
    async def waits(context: Context, payload: Any) -> None:
        await go.wait()
        context.progress(1, 2, stage="no line")
        context.log("a line")
        await context.artifact("file", b"")

    asked = await client(waits)
    job_id = (await asked.submit("waits"))["job_id"]
    await job_when(asked.service, job_id, lambda job: job.status == "running")
    poll = asyncio.create_task(asked.get(f"/v1/jobs/{job_id}/logs?wait=20"))
    await asked.wait_for_long_poll()
    go.set()
    page = (await poll).json
    assert [each["data"]["message"] for each in page["events"]] == ["a line"]


async def test_a_stream_has_the_lines_alone_live_and_afterwards(client: Connect) -> None:
    go = asyncio.Event()

    @handler("waits")
    async def waits(context: Context, payload: Any) -> None:
        context.log("early")
        context.progress(1, 2, stage="no line")
        await go.wait()
        context.log("late")

    asked = await client(waits)
    job_id = (await asked.submit("waits"))["job_id"]

    async def read(after: str = "") -> list[Message]:
        headers = {"Accept": "text/event-stream"}
        reply = await asked("GET", f"/v1/jobs/{job_id}/logs{after}", headers=headers)
        return whatwg(reply.body)

    reading = asyncio.create_task(read())
    await asked.wait_for_stream()
    await job_when(asked.service, job_id, lambda job: job.lines == 1)
    go.set()
    live = await reading
    assert [each.event for each in live] == ["event", "event", "end"]
    assert "early" in live[0].data
    assert "late" in live[1].data
    assert await read() == live
    assert [each.event for each in await read(f"?after={live[0].id}")] == ["event", "end"]


async def test_the_client_follows_a_log(client: Connect) -> None:
    asked = await client(talks)
    job_id = (await asked.submit("talks", 3))["job_id"]
    async with Client(f"http://127.0.0.1:{asked.listening.port}") as ours:
        live = [each async for each in ours.logs(job_id)]
        paged = [each async for each in ours.logs(job_id, follow=False)]
    assert live == paged
    assert [each["data"]["message"] for each in live] == ["line 0", "line 1", "line 2"]


# --- its bounds


async def test_a_log_has_so_many_lines_and_the_job_goes_on(serve: Serve) -> None:
    service = await serve(talks, log_lines_max=3)
    job = await service.submit("talks", 20)
    assert (await service.wait(job.job_id)).status == "completed"
    written = await messages(service, job.job_id)
    assert written[:3] == ["line 0", "line 1", "line 2"]
    assert written[3:] == ["the log of this job has 3 lines; what comes after them is dropped"]


async def test_what_is_told_with_a_line_is_cut_when_it_is_too_much(serve: Serve) -> None:
    @handler("much")
    async def much(context: Context, payload: Any) -> None:
        context.log("x" * 10_000, data=["y" * 100] * 1_000)

    service = await serve(much)
    job = await service.submit("much")
    assert (await service.wait(job.job_id)).status == "completed"
    [line] = await lines(service, job.job_id)
    assert line.message == "x" * 4_000
    assert line.fields["cut"].startswith('{"data":["yyy')
    assert len(line.fields["cut"]) == 4_000


# --- what handlers log with logging and structlog


def say(name: str) -> None:
    LOG.info("order %s", name, extra={"order": name, "api_key": "abc", "odd": {1}})
    structlog.get_logger("shop").warning("stock is low", item=name, nothing=None)
    try:
        raise LookupError(name)
    except LookupError:
        LOG.exception("not found")
    LOG.debug("too quiet")
    logging.getLogger("eventjobs.runner").warning("of the service itself")


def expected_lines(name: str) -> list[tuple[str, str, dict[str, Any]]]:
    order = {"logger": "shop.orders", "order": name, "api_key": "[hidden]", "odd": [1]}
    return [
        ("info", f"order {name}", order),
        ("warning", "stock is low", {"item": name}),
        ("error", "not found", {"logger": "shop.orders"}),
    ]


async def check(service: Service, job_id: str, name: str) -> None:
    written = []
    for each in await lines(service, job_id):
        fields = dict(each.fields)
        trace = fields.pop("exception", None)
        assert trace is None or trace.endswith(f"LookupError: {name}\n")
        assert (trace is not None) == (each.level == "error")
        written.append((each.level, each.message, fields))
    assert written == expected_lines(name)


async def test_what_handlers_log_is_in_the_log_of_their_own_jobs(serve: Serve) -> None:
    """Two on the loop, each with a thread of its own, and two in threads, all at once."""
    all_there = asyncio.Barrier(2)
    all_there_too = threading.Barrier(2)

    @handler("loop")
    async def on_the_loop(context: Context, payload: str) -> None:
        await all_there.wait()
        await asyncio.to_thread(say, payload)

    @handler("thread")
    def in_a_thread(context: ThreadContext, payload: str) -> None:
        all_there_too.wait()
        say(payload)

    service = await serve(on_the_loop, in_a_thread)
    jobs = {
        name: (await service.submit(type, name)).job_id
        for type in ("loop", "thread")
        for name in (f"{type}-1", f"{type}-2")
    }
    for name, job_id in jobs.items():
        assert (await service.wait(job_id)).status == "completed"
        await check(service, job_id, name)


async def test_what_is_logged_on_the_loop_is_there_before_what_is_told_later(serve: Serve) -> None:
    @handler("loop")
    async def on_the_loop(context: Context, payload: Any) -> None:
        structlog.get_logger().info("first", n=1)
        context.log("second")

    service = await serve(on_the_loop)
    job = await service.submit("loop")
    await service.wait(job.job_id)
    assert await messages(service, job.job_id) == ["first", "second"]


async def test_what_a_process_logs_is_in_its_jobs_log_and_its_steps_are_kept(serve: Serve) -> None:
    service = await serve(logs_a_step)
    job = await service.submit("logs_a_step", retry_delay_s=0.0)
    ended = await service.wait(job.job_id)
    assert (ended.result, ended.attempt) == ([1, {"pair": [1, 2]}], 2)
    written = await messages(service, job.job_id)
    assert written == ["from the process", "from the process"]


async def test_nothing_is_taken_when_it_is_off_or_the_job_has_ended(serve: Serve) -> None:
    left_behind: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def later() -> None:
        await over.wait()
        await asyncio.to_thread(LOG.error, "too late")

    @handler("quiet")
    async def quiet(context: Context, payload: Any) -> None:
        left_behind.append(asyncio.create_task(later()))
        await asyncio.to_thread(LOG.warning, "in time")

    for level, seen in (("off", []), ("error", []), ("info", ["in time"])):
        over.clear()
        service = await serve(quiet, capture_logs=level)
        job = await service.submit("quiet")
        await service.wait(job.job_id)
        over.set()
        await left_behind.pop()
        assert await messages(service, job.job_id) == seen
        await service.close()
    assert not any("eventjobs" in str(type(each)) for each in logging.getLogger().handlers)


async def test_what_cannot_be_told_is_no_trouble_for_the_handler(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    @handler("odd")
    def odd(context: ThreadContext, payload: Any) -> str:
        LOG.info("a", extra={"it": Unspeakable()})
        LOG.info("b", extra={"it": float("nan")})
        LOG.info("c", extra={"it": 2**70})
        LOG.info("d")
        return "done"

    service = await serve(odd)
    job = await service.submit("odd")
    assert (await service.wait(job.job_id)).result == "done"
    assert (await messages(service, job.job_id))[-1] == "d"
    assert "no words" in capsys.readouterr().err


NOBODY_LISTENS = """
import asyncio, logging, sys, tempfile
from eventjobs import Service

async def main():
    with tempfile.TemporaryDirectory() as folder:
        async with Service(folder):
            logging.getLogger("mine").warning("as ever")
            logging.getLogger("mine").info("not shown")

asyncio.run(main())
"""


def test_a_program_that_has_not_set_up_logging_still_sees_its_warnings() -> None:
    """A handler of ours on the root logger would otherwise swallow them."""
    run = subprocess.run(
        [sys.executable, "-c", NOBODY_LISTENS], capture_output=True, text=True, check=True
    )
    assert run.stderr == "as ever\n"

"""sys.exit() in any task of a handler ends its job, not the program."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, model_serializer

from eventjobs.execution.task_factory import TaskFactory
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.conftest import Serve
from tests.support.cli import Tool
from tests.support.servers import serving


async def part() -> None:
    await asyncio.sleep(0)
    sys.exit(2)


async def at_once() -> None:
    raise KeyboardInterrupt


class Usage(SystemExit):
    """As libraries for command lines have their own."""


async def usage() -> None:
    raise Usage("no such option: SystemExit")


async def exit_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(part())
        group.create_task(asyncio.Event().wait())


async def within() -> None:
    async def outer() -> None:
        await asyncio.create_task(part())

    await asyncio.create_task(outer())


async def left_behind() -> None:
    task = asyncio.create_task(part())
    await asyncio.wait({task})
    raise LookupError("SystemExit of a task that nothing awaits")


async def read_in_a_callback() -> None:
    """The callback raises what its task did."""
    task = asyncio.create_task(part())
    task.add_done_callback(lambda task: task.result())
    await task


async def from_a_generator() -> None:
    async def parts() -> Any:
        await part()
        yield 1

    await asyncio.create_task(anext(parts()))


async def as_completed() -> None:
    for each in asyncio.as_completed([part(), part()]):
        await each


async def from_a_thread() -> None:
    loop = asyncio.get_running_loop()

    def work() -> None:
        asyncio.run_coroutine_threadsafe(part(), loop).result()

    await asyncio.to_thread(work)


WAYS: dict[str, Callable[[], Awaitable[object]]] = {
    "gather": lambda: asyncio.gather(part(), asyncio.sleep(0)),
    "gather at once": lambda: asyncio.gather(at_once()),
    "wait_for": lambda: asyncio.wait_for(part(), 60),
    "shield": lambda: asyncio.shield(part()),
    "subclass": lambda: asyncio.gather(usage()),
    "group": exit_in_a_group,
    "within": within,
    "left behind": left_behind,
    "callback": read_in_a_callback,
    "generator": from_a_generator,
    "as_completed": as_completed,
    "thread": from_a_thread,
    "executor": lambda: asyncio.get_running_loop().run_in_executor(None, sys.exit, 2),
}


@handler("ends", max_attempts=1)
async def ends(context: Context, payload: str) -> None:
    await WAYS[payload]()


@handler("step", max_attempts=1)
async def ends_in_a_step(context: Context, payload: str) -> None:
    await context.step("step", WAYS[payload])


class Leaves(BaseModel):
    @model_serializer
    def dump(self) -> dict[str, Any]:
        sys.exit(2)


@handler("child", max_attempts=1)
def submits_what_ends(context: ThreadContext, payload: Any) -> None:
    """The payload is read on the loop of the service, in a task of this handler."""
    context.submit("child", Leaves())


@handler("good", max_attempts=1)
async def good(context: Context, payload: Any) -> Any:
    return payload


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_what_ends_a_program_ends_the_job_of_the_task_it_is_raised_in(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await serve(ends, ends_in_a_step, submits_what_ends, good)
    for type in ("ends", "step"):
        for way in WAYS:
            job = await service.submit(type, way)
            job = await service.wait(job.job_id)
            assert job.error is not None, way
            assert job.error["code"] == "handler_error", way
            name = "KeyboardInterrupt" if way == "gather at once" else "SystemExit"
            assert name in job.error["message"], way
    job = await service.submit("child")
    assert (await service.wait(job.job_id)).status == "failed"
    job = await service.submit("good", 1)
    assert (await service.wait(job.job_id)).result == 1
    assert service.ready


async def test_the_loop_has_its_own_task_factory_again_after_the_last_service(
    tmp_path: Path,
) -> None:
    loop, coroutines = asyncio.get_running_loop(), []

    def of_the_program(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        coroutines.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    before = loop.get_task_factory()
    loop.set_task_factory(of_the_program)
    try:
        async with Service(tmp_path / "a", [ends]) as service:
            async with Service(tmp_path / "b", [good]):
                await asyncio.sleep(0)
            coroutines.clear()
            job = await service.submit("ends", "group")
            await service.wait(job.job_id)
            assert isinstance(loop.get_task_factory(), TaskFactory)
            assert "part" in {each.__name__ for each in coroutines}, "it makes the tasks as before"
        assert loop.get_task_factory() is of_the_program
    finally:
        loop.set_task_factory(before)


EXITS = """
import asyncio, sys
from eventjobs import handler

async def part():
    sys.exit(2)

@handler("ends", max_attempts=1)
async def ends(context, how):
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    if how == "gather":
        await asyncio.gather(part())
    if how == "call_soon":
        loop.call_soon(sys.exit, 2)
    if how == "call_later":
        loop.call_later(0.001, sys.exit, 2)
    if how == "done callback":
        asyncio.create_task(asyncio.sleep(0)).add_done_callback(lambda _: sys.exit(2))
    if how == "stop":
        loop.stop()
    if how == "interrupt":
        def interrupt():
            raise KeyboardInterrupt
        loop.call_soon(interrupt)
    loop.call_later(0.01, over.set)
    await over.wait()
    return "went on"
"""


def test_the_service_goes_on_when_a_callback_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text(EXITS)
    with serving(tmp_path, "--app", "exits", PYTHONPATH=str(tmp_path)) as server:
        tool = Tool(server.url, tmp_path)
        for how in ("call_soon", "call_later", "done callback", "interrupt", "stop"):
            [job] = tool.json("submit", "ends", f'"{how}"', "--wait", "--json")
            assert job["result"] == "went on", how
        assert tool.run("submit", "ends", '"gather"', "--wait").exit_code == 1
    log = (tmp_path / "data.log").read_text()
    assert log.count("a callback tried to end the program") == 5


EMBEDDED = """
import asyncio, sys
from eventjobs import Service, Settings, handler

async def spin():
    while True:
        await asyncio.sleep(0)

@handler("spins")
async def spins(context, payload):
    print("spins", flush=True)
    await asyncio.gather(spin(), spin())

async def main():
    async with Service(sys.argv[1], [spins], settings=Settings(drain_s=0, grace_s=1)) as service:
        await service.submit("spins")
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_real_interrupt_still_ends_a_program_that_embeds_a_service(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EMBEDDED, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "spins\n"
        program.send_signal(signal.SIGINT)
        assert program.stdout.read() == "interrupted\n"
        assert program.wait(20) == 0

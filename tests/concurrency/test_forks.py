"""What a handler forks keeps nothing of the service, sends it no signals, and runs none of it."""

import asyncio
import atexit
import logging
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiohttp import AddrInfoType

from eventjobs.cli.process import loop_factory
from eventjobs.concurrency import forks
from eventjobs.domain.events import LogWritten
from eventjobs.errors import DirectoryLocked
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.http import serve as listen
from eventjobs.service import Service
from eventjobs.settings import Settings
from eventjobs.storage.sqlite import lock_directory
from tests.conftest import Connect, Serve
from tests.support.cli import ROOT
from tests.support.waiting import events_of, turns

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

FORK = multiprocessing.get_context("fork")


def square(number: int) -> int:
    return number * number


def code_of(child: int) -> int:
    """How a process that was forked here has ended; minus the signal, if one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def new_child() -> int:
    """A process that waits for a signal, and may not have come to itself yet."""
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    return child


def waiting_child() -> int:
    """The same, once it waits."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b".")
        while True:
            signal.pause()
    select.select([reading], [], [])
    os.close(reading)
    os.close(writing)
    return child


# Pools of all kinds: each of them ends its children with a signal, or waits for them.


def with_a_pool(payload: Any) -> list[int]:
    with FORK.Pool(2) as pool:
        return pool.map(square, [1, 2, 3])


def with_an_executor(payload: Any) -> list[int]:
    with ProcessPoolExecutor(2, FORK) as executor:
        return list(executor.map(square, [1, 2, 3]))


def with_a_process(payload: Any) -> list[int]:
    child = FORK.Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join()
    assert child.exitcode == -signal.SIGTERM
    return [1, 4, 9]


def with_a_forkserver(payload: Any) -> list[int]:
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.map(square, [1, 2, 3])


def in_a_thread(function: Callable[[Any], Any]) -> Handler:
    return handler("forks", max_attempts=1)(lambda ctx, payload: function(payload))


def on_the_loop(function: Callable[[Any], Any]) -> Handler:
    @handler("forks", max_attempts=1)
    async def forks(ctx: Context, payload: Any) -> Any:
        return function(payload)

    return forks


def in_a_threadpool(function: Callable[[Any], Any]) -> Handler:
    @handler("forks", max_attempts=1)
    async def forks(ctx: Context, payload: Any) -> Any:
        return await asyncio.to_thread(function, payload)

    return forks


WAYS = (in_a_thread, on_the_loop, in_a_threadpool)


async def results_with_signals(data: Path, wrapped: Handler, jobs: int) -> tuple[list[Any], int]:
    """What *jobs* at once come to in a service that catches signals, and how many it got."""
    caught: list[int] = []
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, caught.append, each)
    async with Service(data, [wrapped], settings=Settings(capture_logs="off")) as service:
        ids = [(await service.submit("forks")).job_id for _ in range(jobs)]
        ended = [await service.wait(each) for each in ids]
        await turns()
    return [each.result if each.error is None else each.error for each in ended], len(caught)


@pytest.mark.parametrize(
    ("fast", "function", "way"),
    [
        *product((False, True), (with_a_pool, with_an_executor, with_a_process), WAYS),
        (True, with_a_forkserver, in_a_thread),  # once: it takes seconds to start
    ],
)
def test_processes_of_a_handler_end_without_the_service(
    tmp_path: Path, fast: bool, function: Callable[[Any], Any], way: Callable[..., Handler]
) -> None:
    """Their SIGTERM was written to the descriptor by which the service hears of its own signals."""
    with asyncio.Runner(loop_factory=loop_factory() if fast else None) as runner:
        results, caught = runner.run(results_with_signals(tmp_path, way(function), jobs=2))
    assert (results, caught) == ([[1, 4, 9]] * 2, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_what_is_sent_to_a_forked_child_ends_it_and_is_not_heard_by_its_parent(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A single Ctrl-C counted once more for each child, and so hurried the service or killed it."""

    def signal_itself(payload: Any) -> int:
        child = new_child()
        os.kill(child, number)
        return code_of(child)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.get_loop().add_signal_handler(signal.SIGHUP, lambda: None)
        wrapped = in_a_thread(signal_itself)
        results, caught = runner.run(results_with_signals(tmp_path, wrapped, jobs=3))
    assert (results, caught) == ([-number] * 3, 0)


@pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])
def test_handlers_in_processes_run_at_the_first_attempt(tmp_path: Path, fast: bool) -> None:
    from tests.support.process_handlers import pid

    async def attempts() -> int:
        async with Service(tmp_path, [pid]) as service:
            job = await service.wait((await service.submit("pid")).job_id)
            assert job.status == "completed", job.error
            return job.attempt

    with asyncio.Runner(loop_factory=loop_factory() if fast else None) as runner:
        assert runner.run(attempts()) == 1


WAITS_FOR_ALL = """
import asyncio, os, signal, sys, uvloop
from eventjobs import Service, handler
from tests.support.process_handlers import loop
from tests.support.processes import first_report

@handler("waits for all")
async def waits_for_all(ctx, pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

async def main():
    async with Service(sys.argv[1], [loop, waits_for_all]) as service:
        victim = (await service.submit("loop", max_attempts=1)).job_id
        await service.submit("waits for all", (await first_report(service, victim))["pid"])
        print((await service.wait(victim)).error["code"])

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
"""


def test_a_handler_that_waits_for_all_children_leaves_no_job_without_an_end(tmp_path: Path) -> None:
    """The handler got the end of a process in place of uvloop: its job ran for ever."""
    command = [sys.executable, "-c", WAITS_FOR_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert done.stdout == "worker_crashed\n"


# --- descriptors


@pytest.fixture
def fork_pids() -> Iterator[list[int]]:
    """Processes that handlers have forked and that are still there at the end."""
    children: list[int] = []
    yield children
    for each in children:
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_forked_child_does_not_keep_the_data_directory(
    serve: Serve, tmp_path: Path, fork_pids: list[int], way: Callable[..., Handler]
) -> None:
    service = await serve(way(lambda payload: waiting_child()))
    fork_pids.append((await service.wait((await service.submit("forks")).job_id)).result)
    with pytest.raises(DirectoryLocked):
        lock_directory(tmp_path / "data")
    await service.close()
    os.close(lock_directory(tmp_path / "data"))


async def test_nor_does_the_child_of_a_program_that_has_a_service(
    serve: Serve, tmp_path: Path, fork_pids: list[int]
) -> None:
    service = await serve()
    fork_pids.append(waiting_child())
    await service.close()
    os.close(lock_directory(tmp_path / "data"))


async def test_a_forked_child_keeps_neither_the_port_nor_the_connections_of_clients(
    client: Connect, fork_pids: list[int]
) -> None:
    api = await client(in_a_thread(lambda payload: waiting_child()))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.listening.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n")
    fork_pids.append((await api.service.wait((await api.submit("forks"))["job_id"])).result)

    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.read()  # its end is heard, although the child lives
    writer.close()
    await api.listening.close()
    again = await listen(api.service, "127.0.0.1", api.listening.port)
    await again.close()


async def test_a_forked_child_does_not_keep_processes_and_guardian_from_seeing_the_end(
    serve: Serve, fork_pids: list[int]
) -> None:
    """They see the end of the service by that of a socket, which a child must not keep open."""
    from tests.support.process_handlers import pid

    service = await serve(pid, in_a_thread(lambda payload: waiting_child()))
    worker = (await service.wait((await service.submit("pid")).job_id)).result
    fork_pids.append((await service.wait((await service.submit("forks")).job_id)).result)
    processes = service.runner._processes
    assert processes is not None
    writer = processes._reaper._writer
    assert writer is not None
    number = writer.get_extra_info("socket").fileno()
    ours = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    assert ours in open_files(os.getpid())
    assert ours not in open_files(fork_pids[0])
    await service.close()
    assert not Path(f"/proc/{worker}").exists()


def open_files(pid: int) -> set[str]:
    files = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            files.add(os.readlink(each))  # noqa: PTH115  it is no path
    return files


def test_a_forked_child_does_not_keep_the_connections_of_a_worker(fork_pids: list[int]) -> None:
    """A service saw only at the end of the child that a killed worker waits for jobs no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: AddrInfoType = (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())
        with forks.create_private_socket(address) as ours:
            ours.connect(server.getsockname())
            theirs, _ = server.accept()
            fork_pids.append(waiting_child())
        with theirs:
            theirs.settimeout(10)
            assert theirs.recv(1) == b""


def test_a_number_that_is_another_files_by_now_stays_open(tmp_path: Path) -> None:
    ours = os.open(tmp_path, os.O_RDONLY)
    kept = os.open(tmp_path, os.O_RDONLY)
    forks.close_in_children(ours)
    forks.close_in_children(kept)
    os.close(ours)
    theirs = os.open(os.devnull, os.O_RDONLY)
    (tmp_path / "file").write_text("theirs")
    os.dup2(os.open(tmp_path / "file", os.O_RDONLY), ours)
    child = os.fork()
    if child == 0:
        closed = not os.path.samestat(os.fstat(kept), tmp_path.stat())
        os._exit(0 if closed and os.read(ours, 6) == b"theirs" else 1)
    assert code_of(child) == 0
    for each in {ours, kept, theirs}:
        os.close(each)


# --- a child never runs what is the service's


ENDS: dict[str, tuple[Callable[[], Any], int]] = {
    "return": (lambda: None, 0),
    "sys.exit": (lambda: sys.exit(3), 3),
    "exit with words": (lambda: sys.exit("no"), 1),
    "exception": (lambda: int("no"), 1),
}


@pytest.mark.parametrize("way", [in_a_thread, on_the_loop])
@pytest.mark.parametrize("end", ENDS)
async def test_a_forked_child_that_leaves_the_handler_ends(
    serve: Serve, tmp_path: Path, end: str, way: Callable[..., Handler]
) -> None:
    """It went on as a second service, with the log and the connections of the first."""
    leave, code = ENDS[end]

    def forks(payload: Any) -> int:
        child = os.fork()
        if child == 0:
            leave()
            return -1
        return code_of(child)

    mark = tmp_path / "atexit"
    atexit.register(mark.touch)
    try:
        service = await serve(way(forks))
        job = await service.wait((await service.submit("forks")).job_id)
    finally:
        atexit.unregister(mark.touch)
    assert (job.status, job.result) == ("completed", code)
    assert not mark.exists()


async def test_a_forked_child_that_returns_in_a_process_ends_as_well(serve: Serve) -> None:
    from tests.support.process_handlers import forks_and_returns

    service = await serve(forks_and_returns)
    job = await service.wait((await service.submit("forks and returns")).job_id)
    assert job.result == [0, 3]


async def test_a_forked_child_cannot_go_on_in_the_event_loop(serve: Serve) -> None:
    @handler("forks")
    async def forks(ctx: Context, payload: Any) -> int:
        child = os.fork()
        if child == 0:
            await asyncio.Event().wait()
        return await asyncio.to_thread(code_of, child)

    service = await serve(forks)
    assert (await service.wait((await service.submit("forks")).job_id)).result == 1


async def test_a_forked_child_has_no_context(serve: Serve) -> None:
    """It waited for ever for an event loop that only its parent has."""

    def tries(ctx: ThreadContext) -> Iterator[Callable[[], Any]]:
        yield lambda: ctx.log("from the child")
        yield lambda: ctx.progress(1)
        yield lambda: ctx.step("step", dict)
        yield lambda: ctx.submit("forks", 1)
        yield lambda: ctx.artifact("name", b"")

    @handler("forks")
    def forks(ctx: ThreadContext, payload: Any) -> int:
        child = os.fork()
        if child:
            return code_of(child)
        logging.getLogger("shop").warning("from the child, by logging")
        for each in tries(ctx):
            try:
                each()
            except RuntimeError:
                continue
            os._exit(9)
        os._exit(7)

    service = await serve(forks)
    job_id = (await service.submit("forks")).job_id
    assert (await service.wait(job_id)).result == 7
    assert not any(isinstance(each, LogWritten) for each in await events_of(service, job_id))


def test_a_fork_leaves_its_parent_as_it_was(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    descriptor = lock_directory(tmp_path)
    assert code_of(os.fork() or os._exit(0)) == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    with pytest.raises(DirectoryLocked):
        lock_directory(tmp_path)
    os.close(descriptor)


def test_without_a_service_a_fork_is_like_any_other() -> None:
    """A program that only imports eventjobs has its own signal handlers, and keeps them."""
    program = """
import os, signal, eventjobs
from eventjobs import Service
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 5


async def test_forks_from_many_threads_at_once(serve: Serve) -> None:
    def forks(payload: Any) -> list[int]:
        codes: list[int] = []

        def fork() -> None:
            child = new_child()
            os.kill(child, signal.SIGTERM)
            codes.append(code_of(child))

        threads = [threading.Thread(target=fork) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return codes

    service = await serve(in_a_thread(forks))
    job = await service.wait((await service.submit("forks")).job_id)
    assert job.result == [-signal.SIGTERM] * 8

"""No process outlives the service or the worker that started it."""

import asyncio
import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from eventjobs.execution.processes.reaper import ProcessReaper
from tests.support.cli import Tool
from tests.support.processes import wait_until_gone
from tests.support.servers import serving, start

APP = """
import os, re, signal, subprocess, sys
from pathlib import Path
from eventjobs import handler

@handler("forever", process=True)
def forever(context, payload):
    how, fifo = payload
    pids = [os.getpid()]
    if how == "others":
        program = [sys.executable, "-c", "import signal; signal.pause()"]
        pids += [subprocess.Popen(program).pid, os.fork() or signal.pause()]
    Path(fifo).write_text(" ".join(map(str, pids)))
    if how == "waits":
        signal.pause()
    if how == "no Python":
        re.match(r"(a+)+$", "a" * 64 + "b")  # holds the interpreter's lock all the time
    while True:
        pass
"""


def four_begun(tool: Tool) -> list[int]:
    """The processes in which handlers run that never return, and those that one has started."""
    pids: list[int] = []
    for how in ("waits", "loop", "no Python", "others"):
        fifo = tool.folder / how
        os.mkfifo(fifo)
        tool.ok("submit", "forever", orjson.dumps([how, str(fifo)]).decode())
        pids += map(int, fifo.read_text().split())
    return pids


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_service(tmp_path: Path, ending: signal.Signals) -> None:
    (tmp_path / "shop.py").write_text(APP)
    environment = {"PYTHONPATH": str(tmp_path), "EVENTJOBS_DRAIN_S": "0", "EVENTJOBS_GRACE_S": "1"}
    environment |= {"EVENTJOBS_PROCESSES": "4"}
    server = start(tmp_path / "data", "--app", "shop:forever", port=0, **environment)
    pids = four_begun(Tool(server.url, tmp_path))
    server.process.send_signal(ending)
    gently = ending == signal.SIGTERM
    assert server.process.wait(20) == (0 if gently else -ending)
    for each in pids:
        wait_until_gone(each)
    assert server.process.stdout is not None
    server.process.stdout.close()
    with closing(sqlite3.connect(tmp_path / "data" / "log.db")) as log:
        released = log.execute("SELECT count(*) FROM events WHERE type = 'AttemptReleased'")
        assert released.fetchone() == (4 if gently else 0,)


async def test_a_guardian_ends_all_that_it_was_told_of_and_not_told_to_forget() -> None:
    """Though it was killed itself: the next process is given to another."""
    program = (sys.executable, "-c", "import signal; signal.pause()")
    first, second, forgotten = [
        await asyncio.create_subprocess_exec(*program, start_new_session=True) for _ in range(3)
    ]
    reaper = ProcessReaper()
    await reaper.register(first.pid)
    await reaper.register(forgotten.pid)
    assert reaper.pid is not None
    os.kill(reaper.pid, signal.SIGKILL)
    while reaper.pid is not None:  # a thread waits for its end
        await asyncio.to_thread(str)
    await reaper.register(second.pid)
    reaper.unregister(forgotten.pid)
    await reaper.close()
    assert await first.wait() == await second.wait() == -signal.SIGKILL
    assert forgotten.returncode is None
    forgotten.kill()
    await forgotten.wait()


def test_nothing_outlives_a_worker_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    with serving(tmp_path, EVENTJOBS_WORKER_TYPES="forever") as server:
        tool = Tool(server.url, tmp_path)
        tool.environment["EVENTJOBS_PROCESSES"] = "4"
        with tool.start("worker", "--app", "shop") as worker:
            pids = four_begun(tool)
            worker.kill()
        for each in pids:
            wait_until_gone(each)

"""`eventjobs worker`, and one in another language, as processes: signals, crashes and silence."""

import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs.client import Client
from tests.conftest import program
from tests.support.cli import ROOT, Tool
from tests.support.servers import Server, serving, start

APP = '''
import asyncio
from pathlib import Path
from eventjobs import handler

@handler("until")
async def until(context, payload):
    """Runs until there is a file at *payload*, and tells a line before and after."""
    context.log("began")
    context.progress(1, 2)
    while not Path(payload).exists():
        await asyncio.sleep(0.01)
    context.log("ended")
    return context.attempt
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a module of handlers in it."""
    folder = tmp_path_factory.mktemp("worker")
    (folder / "shop.py").write_text(APP)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """It runs nothing itself."""
    types = {"EVENTJOBS_WORKER_TYPES": "until,shout", "EVENTJOBS_LEASE_S": "1"}
    with serving(folder, **types) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


@contextmanager
def worker(folder: Path, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`eventjobs worker`, once it claims jobs. Killed at the end if it still runs."""
    tool = Tool(url, folder)
    tool.environment["TMPDIR"] = str(folder)
    process = tool.start("worker", "--app", "shop", "--url", url, *options)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("worker-")
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], signal_number: int = signal.SIGTERM) -> list[Any]:
    """Stop a worker, which has to exit with 0. Returns its log lines."""
    process.send_signal(signal_number)
    _, lines = process.communicate(timeout=20)
    assert process.returncode == 0, lines
    return [orjson.loads(line) for line in lines.splitlines()]


async def events_until(client: Client, job_id: str, kind: str, count: int = 1) -> list[Any]:
    """A job's events, up to the *count*-th of this kind."""
    events = []
    async for event in client.events(job_id):
        events.append(event)
        count -= event["type"] == kind
        if count == 0:
            return events
    raise AssertionError(f"it ended without: {events}")


def kinds(events: list[Any]) -> list[str]:
    return [each["type"] for each in events]


async def test_an_attempt_outlives_the_service(folder: Path, tmp_path: Path) -> None:
    """The service comes after the worker, is killed while a job runs, and comes again."""
    data, ended, port = tmp_path / "data", tmp_path / "ended", free_port()
    with worker(folder, f"http://127.0.0.1:{port}") as process:
        assert process.stderr is not None
        for expected in ("working", "service does not answer; trying on"):
            assert orjson.loads(process.stderr.readline())["event"] == expected
        first = start(data, port=port, EVENTJOBS_WORKER_TYPES="until")
        async with Client(first.url) as client:
            job_id = (await client.submit("until", str(ended)))["job_id"]
            await events_until(client, job_id, "LogWritten")
            first.process.kill()
            first.process.communicate()
            ended.touch()  # the job ends while there is no service
            second = start(data, port=port, EVENTJOBS_WORKER_TYPES="until")
            job = await client.wait(job_id)
            events = [event async for event in client.events(job_id, follow=False)]
        lines = stop(process)
    second.process.terminate()
    second.process.communicate()
    assert second.process.returncode == 0
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 1, 1)
    assert kinds(events).count("AttemptStarted") == 1
    logged = [each["data"]["message"] for each in events if each["type"] == "LogWritten"]
    assert list(dict.fromkeys(logged)) == ["began", "ended"]
    messages = [line["event"] for line in lines]
    assert messages.count("service does not answer; trying on") == 1  # the first was read above
    assert messages.count("service answers again") == 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_told_to_stop_it_finishes_what_it_has_and_takes_nothing_more(
    client: Client, server: Server, folder: Path, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    with worker(folder, server.url) as process:
        job_id = (await client.submit("until", str(ended)))["job_id"]
        await events_until(client, job_id, "LogWritten")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while orjson.loads(process.stderr.readline())["event"] != "draining":
            pass
        ended.touch()
        later = (await client.submit("until", str(ended)))["job_id"]
        assert (await client.wait(job_id))["attempt"] == 1
        assert process.wait(20) == 0
    assert (await client.get(later))["status"] == "queued"
    await client.cancel(later)


async def test_told_twice_it_gives_back_what_it_has_and_one_that_dies_is_replaced(
    client: Client, server: Server, folder: Path, tmp_path: Path
) -> None:
    with worker(folder, server.url) as process:
        job_id = (await client.submit("until", str(tmp_path / "ended")))["job_id"]
        await events_until(client, job_id, "LogWritten")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while orjson.loads(process.stderr.readline())["event"] != "draining":
            pass
        assert stop(process, signal.SIGINT)[-1]["event"] == "stopped"
    await events_until(client, job_id, "AttemptReleased")
    with worker(folder, server.url) as dying:
        await events_until(client, job_id, "AttemptStarted", 2)
        dying.kill()
        events = await events_until(client, job_id, "AttemptFailed")
        assert events[-1]["data"]["code"] == "worker_lost"
    # What the dead one left is cleared by the next, and that one leaves nothing.
    assert len(files_in(folder)) == 1
    with worker(folder, server.url) as process:
        (tmp_path / "ended").touch()
        job = await client.wait(job_id)
        assert len(files_in(folder)) == 1
        stop(process)
    assert files_in(folder) == []
    assert (job["status"], job["attempt"]) == ("completed", 3)


def files_in(folder: Path) -> list[Path]:
    """Directories of workers."""
    return list(folder.glob("eventjobs-workers-*/*"))


async def test_a_worker_that_slept_gives_up_what_is_no_longer_its_own(
    client: Client, server: Server, folder: Path, tmp_path: Path
) -> None:
    """Stopped for longer than its lease, and continued: its attempt has no effect any more."""
    with worker(folder, server.url) as sleeper:
        job_id = (await client.submit("until", str(tmp_path / "ended")))["job_id"]
        events = await events_until(client, job_id, "LogWritten")
        sleeper.send_signal(signal.SIGSTOP)
        await events_until(client, job_id, "AttemptFailed")
        with worker(folder, server.url) as other:
            await events_until(client, job_id, "AttemptStarted", 2)
            sleeper.send_signal(signal.SIGCONT)
            events = await events_until(client, job_id, "LateReportRefused")
            (tmp_path / "ended").touch()
            job = await client.wait(job_id)
            stop(other)
        lines = stop(sleeper)
    assert (job["status"], job["attempt"], job["result"]) == ("completed", 2, 2)
    assert events[-1]["data"]["attempt"] == 1
    assert "attempt lost" in [line["event"] for line in lines]


def test_what_cannot_work_is_one_line_and_an_exit_code(folder: Path) -> None:
    tool = Tool("", folder)
    assert "Missing option '--app'" in tool.run("worker").stderr
    (folder / "nothing.py").write_text("from eventjobs import remote\nFAR = remote('far')\n")
    for name, concurrency, why in (
        ("unheard", "1", "unheard: No module named 'unheard'"),
        ("nothing", "1", "no handler in nothing can be run by a worker"),
        ("shop", "0", "a worker with concurrency 0 would never do anything"),
    ):
        tool.environment["EVENTJOBS_CONCURRENCY"] = concurrency
        ran = tool.spawn("worker", "--app", name)
        assert (ran.returncode, ran.stderr) == (2, f"error: invalid_input: {why}\n")


# --- in another language

NODE = ROOT / "docs" / "worker.mjs"


@pytest.fixture
def node() -> str:
    return program("node")


@contextmanager
def speaking(node: str, url: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([node, NODE, url])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_a_worker_in_another_language(client: Client, server: Server, node: str) -> None:
    with speaking(node, server.url) as process:
        job = await client.submit("shout", {"text": "hello", "times": 3})
        done = await client.wait(job["job_id"])
        assert (done["status"], done["result"]) == ("completed", "HELLO")
        # Longer than its lease of one second, and cancelled on the way.
        job = await client.submit("shout", {"text": "hello", "times": 1_000})
        await events_until(client, job["job_id"], "ProgressReported", 25)
        await client.cancel(job["job_id"])
        events = await events_until(client, job["job_id"], "JobCancelled")
        assert events[-1]["actor"].startswith("node-")
        job = await client.submit("shout", None, max_attempts=1)
        done = await client.wait(job["job_id"])
        assert done["error"]["code"] == "handler_error"
        assert "TypeError" in done["error"]["message"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_page_shows_the_worker_that_is_tested() -> None:
    page = (ROOT / "docs" / "workers.md").read_text()
    [shown] = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    assert shown == NODE.read_text()

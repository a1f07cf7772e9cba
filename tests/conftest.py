"""Fixtures, and what holds in every test."""

import ipaddress
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import blockbuster.blockbuster
import hypothesis
import pytest
import structlog
from blockbuster import BlockBuster, BlockingError

from eventjobs.clock import Clock
from eventjobs.handlers.registry import Handler
from eventjobs.handlers.schedule import CronSchedule
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support import threads as threads_at_work
from tests.support.clock import FakeClock
from tests.support.http_client import Client, connected
from tests.support.waiting import time_passing

CI = os.environ.get("CI") == "true"
ROOT = Path(__file__).parent.parent
OURS = (f"{ROOT}/eventjobs/", f"{ROOT}/projections/")

#: Where the event loop may be held up, by file and function; each with its reason.
MAY_BLOCK = [
    # Once, when a data directory is opened, before there is anybody to keep waiting.
    ("eventjobs/storage/sqlite.py", "lock_directory"),
    # A line of the log, as every handler of logging writes it.
    ("logging/__init__.py", "emit"),
    # It asks for a name that the kernel has in memory.
    ("eventjobs/settings.py", "working_directory"),
]

# Everybody's gate draws the examples that CI draws; `make soak` draws others.
hypothesis.settings.load_profile("ci")
hypothesis.settings.register_profile("soak", derandomize=False)

#: What a test records as this property is printed at the end, whichever process it ran in.
CAMPAIGN_RESULT = "told"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == CAMPAIGN_RESULT
    ]
    if told:
        terminalreporter.section("what campaigns came to")
        for each in told:
            terminalreporter.write_line(str(each))


@pytest.fixture(scope="session")
def detector() -> BlockBuster:
    # A tool has a loop of its own, with one task.
    detector = BlockBuster(["eventjobs"], excluded_modules=["eventjobs.tools"])
    for function in detector.functions.values():
        for file, name in MAY_BLOCK:
            function.can_block_in(file, name)
    return detector


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An async test fails when our code blocks its loop, even where the error is caught."""
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    detector: BlockBuster = request.getfixturevalue("detector")
    calls = []

    class Blocked(BlockingError):
        def __init__(self, function: str) -> None:
            super().__init__(function)
            calls.append(f"{function} in {_ours()}")

    monkeypatch.setattr(blockbuster.blockbuster, "BlockingError", Blocked)
    detector.activate()
    yield
    detector.deactivate()
    assert not calls, "the event loop was blocked; use a thread, or asyncio's own"


def _ours() -> str:
    """The innermost line of ours that is being run."""
    frame = sys._getframe(1)
    while frame.f_back and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


#: What tests of this process tried to send to other machines.
_sent_elsewhere: list[str] = []


def _refuse_other_machines(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no name is looked up and no socket connected but for loopback."""
    if event == "socket.getaddrinfo":
        elsewhere = not _is_loopback(arguments[0], numeric_is_fine=True)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = arguments[0], arguments[1]
        inet = sock.family in (socket.AF_INET, socket.AF_INET6) and address is not None
        elsewhere = inet and not _is_loopback(address[0])
    else:
        return
    if elsewhere:
        _sent_elsewhere.append(f"{event} {arguments}")
        raise PermissionError(f"a test may send to loopback alone: {_sent_elsewhere[-1]}")


def _is_loopback(host: str | bytes | None, *, numeric_is_fine: bool = False) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        # As the C library reads addresses: 0x7f.1 is 127.0.0.1.
        address = ipaddress.ip_address(
            str(name).partition("%")[0] if ":" in str(name) else socket.inet_aton(str(name))
        )
    except (ValueError, OSError):
        return False
    return numeric_is_fine or address.is_loopback


sys.addaudithook(_refuse_other_machines)


@pytest.fixture(autouse=True)
def nothing_is_sent_to_other_machines() -> Iterator[None]:
    """Also where the product would allow it, and where an error is caught."""
    yield
    sent, _sent_elsewhere[:] = _sent_elsewhere[:], []
    assert not sent, "let the test's resolver answer loopback"


@pytest.fixture(autouse=True)
def threads_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no time passes on a fake clock while one of them is busy."""
    threads_at_work.watch(monkeypatch)


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """Whatever a test makes of it in this process, which it shares with others."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = set(root.handlers), root.level
    ours, our_level = logging.getLogger("eventjobs"), logging.getLogger("eventjobs").level
    yield
    structlog.configure(**before)
    root.setLevel(level)
    ours.setLevel(our_level)
    for handler in set(root.handlers) - handlers:
        root.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """A thread that is no daemon keeps the interpreter from exiting."""
    before = set(threading.enumerate())
    yield
    left = [each for each in threading.enumerate() if not each.daemon and each not in before]
    assert not left, "close what started these threads"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser. Without one a test is skipped, but fails in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if CI:
        pytest.fail("Chromium is missing")
    pytest.skip("Chromium is missing")


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of strace. Without it a test is skipped, but fails in CI."""
    if found := shutil.which("strace"):
        return found
    if CI:
        pytest.fail("strace is missing; apt-get install strace")
    pytest.skip("strace is missing; apt-get install strace")


#: What a service is made of.
Part = Handler | CronSchedule


class Serve(Protocol):
    """Opens a service on tests' own data directory, with these handlers and settings."""

    async def __call__(
        self, *parts: Part, clock: Clock | None = None, **settings: Any
    ) -> Service: ...


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Services that are closed at the end, if the test has not done so."""
    services: list[Service] = []

    async def serve(*parts: Part, clock: Clock | None = None, **settings: Any) -> Service:
        made = Settings(**{"data": tmp_path / "data", **settings})
        service = Service(handlers=parts, settings=made, clock=clock)
        await service.start()
        services.append(service)
        return service

    yield serve
    for service in services:
        if isinstance(service.clock, FakeClock):
            await time_passing(service.clock, service.close())
        else:
            await service.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 3 MiB; needs root. Without it a test is skipped, but fails in CI."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        if CI:
            pytest.fail("cannot mount a disk; be root")
        pytest.skip("cannot mount a disk; be root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class Connect(Protocol):
    """Opens a service like Serve, and a client that talks to it over real HTTP."""

    async def __call__(
        self, *parts: Part, clock: Clock | None = None, **settings: Any
    ) -> Client: ...


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def client(*parts: Part, clock: Clock | None = None, **settings: Any) -> Client:
            service = await serve(*parts, clock=clock, **settings)
            return await stack.enter_async_context(connected(service))

        yield client

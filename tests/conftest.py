"""Fixtures, and checks of every test."""

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
from eventjobs.handlers.registry import Part
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.support import threads
from tests.support.clock import FakeClock
from tests.support.http_client import Client, connect_client
from tests.support.waiting import time_passing

CI = os.environ.get("CI") == "true"
ROOT = Path(__file__).parent.parent
OURS = (f"{ROOT}/eventjobs/", f"{ROOT}/projections/")

#: Functions that may block the event loop, by file; each with its reason.
MAY_BLOCK = [
    # Once, when a data directory is opened, before the service does anything else.
    ("eventjobs/storage/sqlite.py", "lock_directory"),
    # A line of the log, as every handler of the logging module writes it.
    ("logging/__init__.py", "emit"),
    # getcwd() reads a name from the kernel's memory.
    ("eventjobs/settings/__init__.py", "working_directory"),
]

# Every gate draws the same examples; `make soak` draws others.
hypothesis.settings.load_profile("ci")
hypothesis.settings.register_profile("soak", derandomize=False)

#: The name of a property that is printed at the end, also from another process.
CAMPAIGN_RESULT = "campaign result"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    results = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == CAMPAIGN_RESULT
    ]
    if results:
        terminalreporter.section("results of campaigns")
        for each in results:
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
    """An async test fails when eventjobs blocks its loop, even where the error is caught."""
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
    """The innermost frame of eventjobs, as FILE:LINE."""
    frame = sys._getframe(1)
    while frame.f_back and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


#: Attempts of tests in this process to reach other machines.
_refused: list[str] = []


def _refuse_other_machines(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: names and addresses other than loopback are refused."""
    if event == "socket.getaddrinfo":
        foreign = not _is_loopback(arguments[0], numeric_is_fine=True)
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = arguments[0], arguments[1]
        inet = sock.family in (socket.AF_INET, socket.AF_INET6) and address is not None
        foreign = inet and not _is_loopback(address[0])
    else:
        return
    if foreign:
        _refused.append(f"{event} {arguments}")
        raise PermissionError(f"a test may send to loopback alone: {_refused[-1]}")


def _is_loopback(host: str | bytes | None, *, numeric_is_fine: bool = False) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        # inet_aton, as the C library does: 0x7f.1 is 127.0.0.1.
        address = ipaddress.ip_address(
            str(name).partition("%")[0] if ":" in str(name) else socket.inet_aton(str(name))
        )
    except (ValueError, OSError):
        return False
    return numeric_is_fine or address.is_loopback


sys.addaudithook(_refuse_other_machines)


@pytest.fixture(autouse=True)
def nothing_is_sent_to_other_machines() -> Iterator[None]:
    """The test fails even where the error is caught."""
    yield
    refused, _refused[:] = _refused[:], []
    assert not refused, "let the test's resolver answer loopback"


@pytest.fixture(autouse=True)
def threads_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes on a fake clock while a thread is busy."""
    threads.watch(monkeypatch)


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """A test's changes to logging are undone."""
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
    """A thread that is not a daemon would keep the interpreter from exiting."""
    before = set(threading.enumerate())
    yield
    left = [each for each in threading.enumerate() if not each.daemon and each not in before]
    assert not left, "close what started these threads"


def program(*names: str) -> str:
    """The path of the first of these programs. Without one a test is skipped, but fails in CI."""
    for name in names:
        if path := shutil.which(name):
            return path
    if CI:
        pytest.fail(f"{names[0]} is missing")
    pytest.skip(f"{names[0]} is missing")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser."""
    return program("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def strace() -> str:
    """The path of strace."""
    return program("strace")


#: A part of a service.


class Serve(Protocol):
    """Opens a service on the test's data directory, with these handlers and settings."""

    async def __call__(
        self, *parts: Part, clock: Clock | None = None, **settings: Any
    ) -> Service: ...


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Opens services that are closed at the end of the test."""
    services: list[Service] = []

    async def serve(*parts: Part, clock: Clock | None = None, **settings: Any) -> Service:
        merged = Settings(**{"data": tmp_path / "data", **settings})
        service = Service(handlers=parts, settings=merged, clock=clock)
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
    """Opens a service like Serve, and a client of it over real HTTP."""

    async def __call__(
        self, *parts: Part, clock: Clock | None = None, **settings: Any
    ) -> Client: ...


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:

        async def client(*parts: Part, clock: Clock | None = None, **settings: Any) -> Client:
            service = await serve(*parts, clock=clock, **settings)
            return await stack.enter_async_context(connect_client(service))

        yield client

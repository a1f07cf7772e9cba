"""Fixtures, and what holds in every test."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import blockbuster.blockbuster
import pytest
from blockbuster import BlockBuster, BlockingError

CI = os.environ.get("CI") == "true"
ROOT = Path(__file__).parent.parent
OURS = (f"{ROOT}/eventjobs/", f"{ROOT}/projections/")

#: Where the event loop may be held up, by file and function; each with its reason.
MAY_BLOCK = [
    # Once, when a data directory is opened, before there is anybody to keep waiting.
    ("eventjobs/database.py", "lock_directory"),
]


@pytest.fixture(scope="session")
def detector() -> BlockBuster:
    detector = BlockBuster(["eventjobs", "projections"])
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

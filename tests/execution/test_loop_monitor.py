"""The loop monitor logs what blocks the event loop, and ends with it."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventjobs.execution.loop_monitor import LoopMonitor
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.conftest import Serve
from tests.support.log_lines import capture_logs


async def test_a_handler_that_blocks_the_loop_is_told_of(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopMonitor, "BEAT_S", 0.01)
    monkeypatch.setattr(LoopMonitor, "BLOCKED_S", 0.02)
    with capture_logs() as logs:

        @handler("blocks")
        async def blocks(context: Context, payload: Any) -> None:
            until = time.monotonic() + 10
            while not any(each["event"] == "event loop blocked" for each in list(logs)):
                assert time.monotonic() < until, "nobody noticed"

        service = await serve(blocks)
        job = await service.submit("blocks", max_attempts=1)
        assert (await service.wait(job.job_id)).status == "completed"
    lines = [each for each in logs if each["event"] == "event loop blocked"]
    assert f"job {job.job_id}" in [each["by"] for each in lines]
    assert any("in blocks" in each["stack"] for each in lines)


def test_a_watchdog_ends_with_its_loop() -> None:
    """It used to wait for an answer for ever, when the loop ended between question and answer."""
    loop = asyncio.new_event_loop()
    watchdog = LoopMonitor(loop)
    loop.close()
    watchdog.close()
    for each in threading.enumerate():
        if each.name == "watchdog":
            each.join(5)
            assert not each.is_alive()


def test_a_loop_that_responds_is_asked_again_and_not_logged() -> None:
    asked_again = threading.Event()

    class RespondingLoop(asyncio.SelectorEventLoop):
        asked = 0

        def call_soon_threadsafe(  # type: ignore[override]
            self, callback: Callable[[], object], *args: Any, context: Any = None
        ) -> None:
            callback()
            self.asked += 1
            if self.asked == 2:
                asked_again.set()

    class QuickMonitor(LoopMonitor):
        BEAT_S = 0.001

    loop = RespondingLoop()
    with capture_logs() as lines:
        monitor = QuickMonitor(loop)
        assert asked_again.wait(10)
        monitor.close()
    loop.close()
    assert lines == []

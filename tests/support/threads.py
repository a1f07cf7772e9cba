"""Unanswered calls to threads: a fake clock stands still while there are any.

Otherwise the outcome of a test would depend on the speed of a disk and a scheduler: an hour can
pass on a fake clock while a thread opens one file.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiosqlite
import pytest

#: Longer than a busy thread takes. A thread that waits for the test is no longer awaited.
PATIENCE_S = 0.5

#: One for each call, done when the thread has answered.
_unanswered: set[asyncio.Future[Any]] = set()


def watch(patch: pytest.MonkeyPatch) -> None:
    """Track the calls to the threads of asyncio and of SQLite from now on."""
    run_in_executor = asyncio.BaseEventLoop.run_in_executor
    execute = aiosqlite.Connection._execute

    def track_run_in_executor(
        loop: asyncio.BaseEventLoop, executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        return _track(run_in_executor(loop, executor, function, *arguments))

    async def track_execute(connection: Any, *arguments: Any, **named: Any) -> Any:
        call = _track(asyncio.get_running_loop().create_future())
        try:
            return await execute(connection, *arguments, **named)  # type: ignore[no-untyped-call]
        finally:
            call.cancel()

    _unanswered.clear()
    patch.setattr(asyncio.BaseEventLoop, "run_in_executor", track_run_in_executor)
    patch.setattr(aiosqlite.Connection, "_execute", track_execute)


def _track(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    _unanswered.add(future)
    future.add_done_callback(_unanswered.discard)
    return future


async def wait_for_answer() -> bool:
    """Wait for the next answer; False when no call is unanswered, or none is answered in time."""
    if not _unanswered:
        return False
    done, _ = await asyncio.wait(
        _unanswered, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
    )
    return bool(done)

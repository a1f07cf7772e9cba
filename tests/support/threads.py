"""What threads were asked for and have not answered: a fake clock stands still meanwhile.

Without that a test's outcome would depend on how fast a disk and a scheduler are: an hour can
pass on a fake clock while a thread opens one file.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiosqlite
import pytest

#: Longer than a thread takes that is only busy. One that waits for the test itself is left behind.
PATIENCE_S = 0.5

#: One for each request, done when the thread has answered.
_asked: set[asyncio.Future[Any]] = set()


def watch(patch: pytest.MonkeyPatch) -> None:
    """Note what is asked of asyncio's own threads and of SQLite's from now on."""
    run_in_executor = asyncio.BaseEventLoop.run_in_executor
    execute = aiosqlite.Connection._execute

    def noted_run_in_executor(
        loop: asyncio.BaseEventLoop, executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        return _noted(run_in_executor(loop, executor, function, *arguments))

    async def noted_execute(connection: Any, *arguments: Any, **named: Any) -> Any:
        noted = _noted(asyncio.get_running_loop().create_future())
        try:
            return await execute(connection, *arguments, **named)  # type: ignore[no-untyped-call]
        finally:
            noted.cancel()

    _asked.clear()
    patch.setattr(asyncio.BaseEventLoop, "run_in_executor", noted_run_in_executor)
    patch.setattr(aiosqlite.Connection, "_execute", noted_execute)


def _noted(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    _asked.add(future)
    future.add_done_callback(_asked.discard)
    return future


async def answered() -> bool:
    """Wait for the next answer; False when there is none to wait for."""
    if not _asked:
        return False
    done, _ = await asyncio.wait(_asked, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)

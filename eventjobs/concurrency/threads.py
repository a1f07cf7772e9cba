"""Runs a function in a new thread, which delays no other work and no exit if it never ends."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_in_new_thread(function: Callable[[], Result], name: str) -> Result:
    """The result of *function*, run in a daemon thread with the caller's context.

    Raises what *function* raises, including BaseException. When this is cancelled, the thread
    continues and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def set_result(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def work() -> None:
        value, raised = None, None
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 -- raised in the caller
            raised = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(set_result, value, raised)

    context = copy_context()
    threading.Thread(target=lambda: context.run(work), name=name, daemon=True).start()
    # Raised here and not by the future: a future refuses StopIteration, and a GeneratorExit from it
    # would close this coroutine.
    value, raised = await done
    if raised is not None:
        raise raised
    result: Result = value
    return result

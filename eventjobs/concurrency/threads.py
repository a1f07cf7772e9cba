"""A function in a thread of its own: one that never ends holds up nobody, and no exit."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

Answer = TypeVar("Answer")


async def run_in_new_thread(function: Callable[[], Answer], name: str) -> Answer:
    """What *function* returns, or raises, whatever that is. Cancelled, it leaves it to itself.

    The thread has the context of whoever calls.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def answer(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def work() -> None:
        value, raised = None, None
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 -- it goes to whoever waits
            raised = error
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            loop.call_soon_threadsafe(answer, value, raised)

    context = copy_context()
    threading.Thread(target=lambda: context.run(work), name=name, daemon=True).start()
    # Raised here, and not by the future: that refuses StopIteration, and GeneratorExit out of a
    # future would close this coroutine instead of ending its job.
    value, raised = await done
    if raised is not None:
        raise raised
    made: Answer = value
    return made

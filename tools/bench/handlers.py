"""Handlers that do nothing. A process imports its handler by name, so they are in no `__main__`."""

from typing import Any

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext


@handler("noop")
async def noop(context: Context, payload: Any) -> None:
    pass


@handler("noop-in-a-process", process=True)
def noop_in_a_process(context: ThreadContext, payload: Any) -> None:
    pass

"""The handlers of the remote workers: naps, on the loop and in threads."""

import asyncio
import time
from typing import Any

from eventjobs import Context, ThreadContext, handler
from eventjobs.handlers.declare import remote

#: More than any job loses.
ATTEMPTS = 50


@handler("nap", max_attempts=ATTEMPTS)
async def nap(context: Context, payload: Any) -> Any:
    context.progress(0, 1)
    await asyncio.sleep(payload["s"])
    return {"attempt": context.attempt}


@handler("doze", max_attempts=ATTEMPTS)
def doze(context: ThreadContext, payload: Any) -> Any:
    context.progress(0, 1)
    time.sleep(payload["s"])
    context.check_cancelled()
    return {"attempt": context.attempt}


HANDLERS = [nap, doze]
#: The same types for the service, without code.
REMOTE = [remote(each.type, max_attempts=ATTEMPTS) for each in HANDLERS]

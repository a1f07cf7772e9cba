"""The handlers of the campaign: quick, slow, in threads and processes, and failing."""

import asyncio
import time
from typing import Any

from eventjobs import Context, JobError, ThreadContext, handler


@handler("noop")
async def noop(context: Context, payload: Any) -> Any:
    return payload["token"]


@handler("progress")
async def progress(context: Context, payload: Any) -> Any:
    for number in range(1, 4):
        context.progress(number, 3, stage=f"stage {number}", message=payload["token"])
        await asyncio.sleep(0)
    context.log("nearly done", number=3)
    return {"stages": 3}


@handler("flaky", retry_delay_s=0.02, max_attempts=3)
async def flaky(context: Context, payload: Any) -> Any:
    """Fails the first attempts, of some jobs all."""
    if context.attempt <= payload["fails"]:
        context.progress(context.attempt, 4)
        raise JobError("flaky", f"attempt {context.attempt} of {payload['fails']} that fail")
    return context.attempt


@handler("broken")
async def broken(context: Context, payload: Any) -> Any:
    raise JobError("broken", "this cannot work", retryable=False, details=payload)


@handler("slow", retry_delay_s=0.02, max_attempts=5)
async def slow(context: Context, payload: Any) -> Any:
    """Takes long enough to be cancelled, or interrupted by a kill."""
    for number in range(5):
        context.progress(number, 5)
        await asyncio.sleep(payload["s"] / 5)
    return "slept"


@handler("thread")
def thread(context: ThreadContext, payload: Any) -> Any:
    for number in range(3):
        context.check_cancelled()
        context.progress(number, 3)
        time.sleep(payload["s"] / 3)
    context.log("a thread was here", level="debug")
    return "worked"


@handler("deaf")
def deaf(context: ThreadContext, payload: Any) -> Any:
    """Ignores that it is to stop."""
    time.sleep(10 * payload["s"])
    return "heard nothing"


@handler("process", process=True, retry_delay_s=0.02)
def process(context: ThreadContext, payload: Any) -> Any:
    return thread.function(context, payload)


@handler("artifact")
async def artifact(context: Context, payload: Any) -> Any:
    await context.artifact("report.txt", payload["token"].encode() * 50, "text/plain")
    return None


HANDLERS = [noop, progress, flaky, broken, slow, thread, deaf, process, artifact]

"""The handlers of the traced runs: they cause every kind of event and file."""

from typing import Any

from eventjobs import Context, JobError, ThreadContext, handler


@handler("noop")
async def noop(context: Context, payload: Any) -> Any:
    return payload


@handler("progress")
async def progress(context: Context, payload: Any) -> int:
    for number in range(1, 4):
        context.progress(number, 3, stage=f"stage {number}", message="m" * 20)
    context.log("nearly", number=3)
    return 3


@handler("flaky", retry_delay_s=0.01, max_attempts=3)
async def flaky(context: Context, payload: Any) -> int:
    if context.attempt < 3:
        raise JobError("flaky", f"attempt {context.attempt}")
    return context.attempt


@handler("broken")
async def broken(context: Context, payload: Any) -> None:
    raise JobError("broken", "cannot work", retryable=False, details=payload)


@handler("large")
async def large(context: Context, payload: Any) -> dict[str, str]:
    """A result that becomes a file."""
    return {"text": payload["text"] * 400}


@handler("file")
async def file(context: Context, payload: Any) -> None:
    await context.artifact("report.txt", payload["text"].encode() * 300, "text/plain")


@handler("files")
def files(context: ThreadContext, payload: Any) -> int:
    context.artifact("report.txt", payload["text"].encode() * 200, "text/plain")
    return len(context.input("in.txt").read_bytes())


@handler("steps")
async def steps(context: Context, payload: Any) -> int:
    return int(await context.step("one", lambda: 1))


HANDLERS = [noop, progress, flaky, broken, large, file, files, steps]

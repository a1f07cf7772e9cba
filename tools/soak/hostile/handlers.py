"""The handlers of the campaign: their payload is in everything that they report."""

from typing import Any

from eventjobs import Context, JobError, handler
from eventjobs.handlers.declare import remote


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("speak", max_attempts=1)
async def speak(context: Context, payload: Any) -> Any:
    """Reports the text *payload* in each field that a handler has."""
    context.progress(1, 2, stage=payload, message=payload, data={payload: payload})
    context.log(payload, field=payload)
    await context.artifact("text", str(payload).encode("utf-8", "replace"), "text/plain")
    raise JobError(payload, payload, retryable=False, details={payload: payload})


HANDLERS = [echo, speak, remote("far", max_attempts=1)]

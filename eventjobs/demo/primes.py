"""A job that is nothing but computing, and so runs in a process of its own."""

from math import isqrt

from pydantic import BaseModel, Field

from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext


class PrimesRequest(BaseModel, extra="forbid"):
    below: int = Field(100_000, ge=2, le=10**12, description="where to stop")


@handler("primes", process=True)
def primes(ctx: ThreadContext, payload: PrimesRequest) -> dict[str, int]:
    """Count the primes below a number, the slow way: it is about the waiting."""
    count = largest = 0
    for number in range(2, payload.below):
        if all(number % each for each in range(2, isqrt(number) + 1)):
            count, largest = count + 1, number
            if count % 1000 == 0:
                ctx.progress(number, payload.below, stage="counting", message=f"{count} so far")
    return {"count": count, "largest": largest}

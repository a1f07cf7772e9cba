"""Handlers that submit jobs and handlers of child jobs; the children of a job."""

import asyncio
from typing import Any

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.thread_context import ThreadContext
from eventjobs.service import Service
from tests.support.waiting import job_when


@handler("square")
async def square(context: Context, payload: int) -> int:
    return payload**2


@handler("sum")
async def sum_of(context: Context, payload: list[int]) -> Any:
    ids = [await context.submit("square", each, tags=["part"]) for each in payload]
    return sum([await context.result(each) for each in ids])


@handler("sum in a thread")
def sum_in_a_thread(context: ThreadContext, payload: list[int]) -> Any:
    ids = [context.submit("square", each, name=f"square of {each}") for each in payload]
    return sum(context.result(each) for each in ids)


@handler("hold")
async def hold(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


async def children(service: Service, parent: str) -> list[str]:
    await service.views.wait_for_position(service.log.head)
    selected = await service.views.jobs({"parent": parent}, order="oldest", cursor=None, limit=99)
    return [each.job.job_id for each in selected]


# --- cancelling


async def running(service: Service, job_id: str) -> None:
    await job_when(service, job_id, lambda job: job.status == "running")


async def child_of(service: Service, parent: str) -> str:
    """The id of the first child, once it exists."""
    while True:
        head = service.log.head  # read first: an event after it ends the wait
        if ids := await children(service, parent):
            return ids[0]
        await service.log.wait(head)

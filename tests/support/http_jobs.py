"""Handlers and jobs that tests of the HTTP endpoints share."""

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.support.http_client import Client
from tests.support.waiting import job_when

NOBODY = "00000000-0000-4000-8000-000000000000"


class Order(BaseModel):
    amount: int = Field(ge=1)


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


@handler("order")
async def order(context: Context, payload: Order) -> int:
    return payload.amount


@handler("wait")
async def wait(context: Context, payload: Any) -> None:
    """Runs until it is cancelled."""
    context.progress(1, 2, stage="waiting")
    await asyncio.Event().wait()


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise ValueError("no")


@handler("draw")
async def draw(context: Context, payload: dict[str, Any]) -> None:
    for name, (content, media_type) in payload.items():
        await context.artifact(name, content.encode(), media_type)


HANDLERS = (echo, order, wait, fail, draw)


async def ended_job(client: Client, job: Any) -> Any:
    """The JSON of *job* after it has ended."""
    await client.service.wait(job["job_id"])
    return (await client.get(f"/v1/jobs/{job['job_id']}")).json


async def running_job(client: Client) -> str:
    """The address of a running job that has reported progress."""
    job = await client.submit("wait")
    await job_when(client.service, job["job_id"], lambda job: job.version >= 3)
    return f"/v1/jobs/{job['job_id']}"

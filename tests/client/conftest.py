"""A service with a few handlers, and a client of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventjobs import Context, JobError, Service, Settings, handler, schedule
from eventjobs.client import Client
from eventjobs.http import serve


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    context.progress(1, 2, stage="echoing")
    return payload


@handler("sizes")
async def sizes(context: Context, payload: Any) -> Any:
    for each in context.spec.artifacts:
        content = await asyncio.to_thread(context.input(each.name).read_bytes)
        await context.artifact(f"copy of {each.name}", content)
    return {each.name: each.size for each in context.spec.artifacts}


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise JobError("broken", "it does not work")


@handler("for ever")
async def for_ever(context: Context, payload: Any) -> None:
    context.progress(stage="waiting")
    await asyncio.Event().wait()


nightly = schedule("nightly", "0 3 * * *", "echo", 1)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    settings = Settings(
        progress_interval_s=0.0, drain_s=0.0, page_max=5, outbound_allow="127.0.0.0/8"
    )
    async with Service(
        tmp_path / "data", [echo, sizes, fail, for_ever, nightly], settings=settings
    ) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    listening = await serve(service, "127.0.0.1", 0)
    try:
        async with Client(f"http://127.0.0.1:{listening.port}/") as client:
            yield client
    finally:
        await listening.close()

"""What a worker elsewhere says, as one request each."""

import asyncio
from typing import Any

from eventjobs.http.app_context import APP_CONTEXT
from tests.support.http_client import Client, Reply

WORKER = "worker-1"


async def claim(
    api: Client, worker: str = WORKER, types: tuple[str, ...] = ("far",), **asked: Any
) -> list[Any]:
    """Jobs that are *worker*'s now."""
    reply = await api("POST", "/v1/work/claim", {"worker": worker, "types": types, **asked})
    assert reply.status == 200, reply.body
    jobs: list[Any] = reply.json["jobs"]
    return jobs


async def claimed(api: Client, worker: str = WORKER, **spec: Any) -> str:
    """The id of a new job, which *worker* has claimed."""
    job = await api.submit("far", **spec)
    assert [each["job_id"] for each in await claim(api, worker)] == [job["job_id"]]
    return str(job["job_id"])


async def tell(
    api: Client, job_id: str, report: str, /, attempt: int = 1, worker: str = WORKER, **body: Any
) -> Reply:
    path = f"/v1/work/{job_id}/{attempt}/{report}"
    return await api("POST", path, {"worker": worker, **body})


async def somebody_waits(api: Client, worker: str, count: int = 1) -> None:
    """Return once *worker* waits for a job, with so many claims."""
    takers = api.listening._runner.app[APP_CONTEXT].remote_claims
    while len(takers._waiting.get(worker, ())) != count:  # noqa: ASYNC110  nobody is told
        await asyncio.sleep(0)

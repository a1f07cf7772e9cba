"""The requests of a remote worker."""

import asyncio
from typing import Any

from eventjobs.handlers.declare import remote
from eventjobs.http.app_context import APP_CONTEXT
from eventjobs.service import Service
from tests.support.http_client import Client, Reply
from tests.support.waiting import job_when

WORKER = "worker-1"
#: A type that only remote workers run.
FAR = remote("far")


async def claim(
    api: Client, worker: str = WORKER, types: tuple[str, ...] = ("far",), **body: Any
) -> list[Any]:
    """The jobs that *worker* gets for one claim."""
    reply = await api("POST", "/v1/work/claim", {"worker": worker, "types": types, **body})
    assert reply.status == 200, reply.body
    jobs: list[Any] = reply.json["jobs"]
    return jobs


async def submit_and_claim(api: Client, worker: str = WORKER, **spec: Any) -> str:
    """The id of a new job, which *worker* has claimed."""
    job = await api.submit("far", **spec)
    assert [each["job_id"] for each in await claim(api, worker)] == [job["job_id"]]
    return str(job["job_id"])


async def report(
    api: Client, job_id: str, name: str, /, attempt: int = 1, worker: str = WORKER, **body: Any
) -> Reply:
    """The answer to the report *name* of an attempt by *worker*."""
    path = f"/v1/work/{job_id}/{attempt}/{name}"
    return await api("POST", path, {"worker": worker, **body})


async def wait_for_claims(api: Client, worker: str, count: int = 1) -> None:
    """Return when so many claims of *worker* wait for a job."""
    claims = api.listening._runner.app[APP_CONTEXT].remote_claims
    while len(claims._waiting.get(worker, ())) != count:  # noqa: ASYNC110  a claim has no event
        await asyncio.sleep(0)


async def until_lost(service: Service, job_id: str) -> None:
    """Return once the job is queued again, its first attempt lost."""
    await job_when(service, job_id, lambda job: job.status == "queued" and job.attempt == 1)

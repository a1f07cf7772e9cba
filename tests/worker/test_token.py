"""A worker with an API key, and without one that is valid."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from eventjobs import Settings
from eventjobs.auth.api_keys import APIKey
from eventjobs.client.errors import ApiError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.service import Service
from eventjobs.worker.worker import Worker, WorkerRefused
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.keys import make_key
from tests.support.log_lines import capture_logs
from tests.support.remote_runner import declare_remote, remote_runner
from tests.support.waiting import job_when


@handler("double")
async def double(context: Context, payload: Any) -> Any:
    await context.step("once", lambda: 1)
    return payload * 2


@pytest.fixture
async def api(client: Connect) -> Client:
    return await client(*declare_remote(double), auth="required")


async def revoke(service: Service, key: str) -> None:
    parsed = APIKey.parse(key)
    assert parsed is not None
    await service.api_keys.revoke(parsed.key_id, actor="test")


async def test_a_worker_with_a_key_runs_jobs(api: Client, tmp_path: Path) -> None:
    key = await make_key(api.service, ["worker:double"], owner="shop")
    async with remote_runner(api, tmp_path / "worker", double, token=key):
        job = await api.service.submit("double", 2)
        assert (await api.service.wait(job.job_id)).result == 4


async def test_a_worker_whose_key_is_revoked_stops_its_jobs_and_claims_no_more(
    client: Connect, tmp_path: Path
) -> None:
    stopped = asyncio.Event()

    @handler("endless")
    async def endless(context: Context, payload: Any) -> None:
        context.progress(1, 2)
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    api = await client(*declare_remote(endless), auth="required")
    key = await make_key(api.service, ["worker:*"])
    async with remote_runner(api, tmp_path / "worker", endless, token=key, lease_s=1) as worker:
        job = await api.service.submit("endless")
        await job_when(api.service, job.job_id, lambda job: job.version >= 3)
        await revoke(api.service, key)
        refusal = await worker.source.outage.refused
        assert isinstance(refusal, ApiError)
        assert (refusal.status, refusal.code) == (401, "invalid_credential")
        await stopped.wait()
        # The lease expires, and no worker claims the job.
        await job_when(api.service, job.job_id, lambda job: job.status == "queued")


@pytest.mark.parametrize(
    ("scopes", "code"),
    [(None, "unauthenticated"), (["jobs:read"], "forbidden"), ([], "invalid_credential")],
)
async def test_a_worker_that_is_refused_ends_and_says_what_to_set(
    api: Client, tmp_path: Path, scopes: list[str] | None, code: str
) -> None:
    token = APIKey("0" * 22, "0" * 43).text if scopes == [] else None
    if scopes:
        token = await make_key(api.service, scopes)
    worker = Worker(
        "worker-1",
        api.listening.url,
        HandlerRegistry([double]),
        Settings(drain_s=0.0),
        tmp_path,
        None,
        token=token,
    )
    with capture_logs() as lines, pytest.raises(WorkerRefused, match="EVENTJOBS_TOKEN") as refused:
        await worker.run(asyncio.Event().wait())
    assert refused.value.code == code
    assert token is None or token not in repr(lines) + refused.value.message

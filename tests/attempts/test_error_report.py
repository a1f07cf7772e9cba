"""error.json: what a job that fails for good leaves, and what it links."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.events import ArtifactStored, AttemptFailed
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import DiskFull, JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.log import NewEvent
from tests.conftest import Connect, Serve
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.waiting import job_when, kinds, recorded_of, time_passing


@handler("fails")
async def fails(context: Context, payload: Any) -> None:
    raise JobError("no_stock", "There is none left.", details={"shelf": 7}, retry_after_s=0)


async def test_a_job_that_fails_for_good_leaves_error_json(client: Connect) -> None:
    api = await client(fails)
    job_id = (await api.submit("fails", max_attempts=2))["job_id"]
    await api.service.wait(job_id)
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    message = "There is none left."
    public = {"code": "no_stock", "class": "handler", "message": message, "retryable": True}
    assert job["error"] == public
    assert job["links"]["error"] == f"/v1/jobs/{job_id}/artifacts/error.json"
    [artifact] = job["artifacts"]
    assert (artifact["name"], artifact["media_type"]) == ("error.json", "application/json")
    report = (await api.get(job["links"]["error"])).json
    [failed] = (await recorded_of(api.service, job_id, AttemptFailed))[1:]
    assert report["jobId"] == job_id
    assert {name: report[name] for name in ("status", "error", "class", "message")} == {
        "status": "failed",
        "error": "no_stock",
        "class": "handler",
        "message": message,
    }
    assert (report["details"], report["attempt"], report["retryable"]) == ({"shelf": 7}, 2, True)
    assert [each["outcome"] for each in report["attempts"]] == ["failed", "failed"]
    assert report["attempts"][1]["ended_at"] == report["timestamp"]
    assert report["timestamp"].endswith("Z")
    assert abs(failed.at_us - api.service.clock.now_us()) < 60e6
    assert await kinds(api.service, job_id) == (
        "JobSubmitted AttemptStarted AttemptFailed AttemptStarted ArtifactStored AttemptFailed"
    )


async def test_only_a_failed_job_links_its_error(client: Connect) -> None:
    tries: list[int] = []

    @handler("once")
    async def once(context: Context, payload: Any) -> None:
        tries.append(context.attempt)
        if len(tries) == 1:
            raise JobError("no", "no", retryable=False)

    api = await client(once)
    submitted = await api.submit("once")
    job_id = submitted["job_id"]
    assert submitted["links"]["error"] is None
    await api.service.wait(job_id)
    assert (await api("POST", f"/v1/jobs/{job_id}/retry")).status == 200
    await api.service.wait(job_id)
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert (job["status"], job["error"], job["links"]["error"]) == ("completed", None, None)
    assert [each["name"] for each in job["artifacts"]] == ["error.json"], "it happened all the same"


async def test_error_json_has_the_time_of_its_failure_however_late_the_log_takes_that(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(fails, clock=clock)
    refusals = [DiskFull(), DiskFull(), DiskFull()]

    async def refuse(new: NewEvent) -> None:
        if isinstance(new.event, AttemptFailed) and refusals:
            raise refusals.pop()

    at_each_append(monkeypatch, api.service.log, before=refuse)
    job_id = (await api.submit("fails", max_attempts=1))["job_id"]
    for tries in (4, 1):
        failed_us = clock.now_us()
        await time_passing(clock, api.service.wait(job_id))
        report = (await api.get(f"/v1/jobs/{job_id}/artifacts/error.json")).json
        assert report["timestamp"] == rfc3339(failed_us)
        stored = (await recorded_of(api.service, job_id, ArtifactStored))[-tries:]
        assert stored[0].at_us == failed_us
        assert len({each.facts for each in stored}) == 1, "each time it is the same file"
        await clock.advance(60)
        await api("POST", f"/v1/jobs/{job_id}/retry")
    assert not refusals


@pytest.mark.parametrize("trouble", [DiskFull(), OSError(5, "the disk is broken")])
async def test_a_job_fails_although_error_json_cannot_be_stored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    service = await serve(fails)

    def refuse(content: bytes | Path) -> tuple[str, int]:
        raise trouble

    monkeypatch.setattr(service.artifacts, "store", refuse)
    job = await service.submit("fails", max_attempts=1)
    ended = await service.wait(job.job_id)
    assert (ended.status, ended.artifacts) == ("failed", ())
    assert ended.error is not None
    assert ended.error["code"] == "no_stock"


async def test_a_job_lost_for_good_leaves_error_json(serve: Serve, tmp_path: Path) -> None:
    @handler("fails")
    async def endless(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(endless, drain_s=0)
    job = await service.submit("fails", max_attempts=1)
    await job_when(service, job.job_id, lambda job: job.status == "running")
    copy = tmp_path / "copy"
    await asyncio.to_thread(shutil.copytree, service.settings.data, copy)
    again = await serve(endless, data=copy)
    lost = await again.wait(job.job_id)
    assert lost.error is not None
    assert (lost.error["code"], lost.error["class"]) == ("worker_lost", "worker")
    assert [each.name for each in lost.artifacts] == ["error.json"]

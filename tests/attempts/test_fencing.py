"""A report counts while its attempt holds the job, and is refused and recorded after that."""

import asyncio
from typing import Any

import pytest

from eventjobs.domain.events import JobCompleted, LateReportRefused
from eventjobs.errors import DiskFull
from eventjobs.handlers.declare import handler
from eventjobs.log import NewEvent
from tests.conftest import Connect
from tests.support.appends import at_each_append
from tests.support.clock import FakeClock
from tests.support.remote_worker import FAR, WORKER, claim, report, submit_and_claim, until_lost
from tests.support.waiting import job_when, kinds, recorded_of


async def test_a_late_report_is_refused_and_on_record_once(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(31)
    await until_lost(api.service, job_id)
    for _ in range(3):
        reply = await report(api, job_id, "complete", result="late")
        assert (reply.status, reply.code) == (409, "stale_attempt")
    [late] = await recorded_of(api.service, job_id, LateReportRefused)
    assert late.event == LateReportRefused(1, "complete")
    assert late.actor == WORKER
    # The job is done by the next attempt, and that is still the end of it.
    [job] = await claim(api, "worker-2")
    assert (await report(api, job_id, "complete", 2, "worker-2", result="good")).status == 200
    assert (await report(api, job_id, "complete", result="late")).code == "stale_attempt"
    assert (await api.get(f"/v1/jobs/{job_id}")).json["result"] == "good"
    assert len(await recorded_of(api.service, job_id, LateReportRefused)) == 1
    assert job["attempt"] == 2


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("heartbeat", {}),
        ("progress", {"done": 1}),
        ("log", {"lines": [{"message": "x"}]}),
        ("step", {"name": "x", "number": 0}),
        ("fail", {"code": "x", "message": "x"}),
        ("cancelled", {}),
        ("release", {"reason": "x"}),
        ("breaker", {"name": "x", "state": "open", "failures": 5}),
    ],
)
async def test_whatever_comes_late_is_refused(
    client: Connect, clock: FakeClock, name: str, body: dict[str, Any]
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(31)
    await until_lost(api.service, job_id)
    reply = await report(api, job_id, name, **body)
    assert (reply.status, reply.code) == (409, "stale_attempt")
    [late] = await recorded_of(api.service, job_id, LateReportRefused)
    assert late.event == LateReportRefused(1, name)


async def test_a_report_whose_attempt_is_lost_while_it_is_recorded_is_refused_and_on_record(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker holds the attempt when its report arrives, and not when it is appended."""
    api = await client(FAR)
    service, record = api.service, api.service.jobs.report
    job_id = await submit_and_claim(api)

    async def lost_before(*args: Any, **kwargs: Any) -> Any:
        job = await job_when(service, job_id, lambda job: True)
        await service.recorder.record_lost(job, "no report", actor="service")
        return await record(*args, **kwargs)

    monkeypatch.setattr(service.jobs, "report", lost_before)
    reply = await report(api, job_id, "progress", done=1)
    assert (reply.status, reply.code) == (409, "stale_attempt")
    [late] = await recorded_of(service, job_id, LateReportRefused)
    assert late.event == LateReportRefused(1, "progress")
    assert late.actor == WORKER


@pytest.mark.parametrize("name", ["heartbeat", "complete"])
async def test_a_late_report_is_refused_although_that_cannot_be_recorded(
    client: Connect, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With another answer the worker would send it again, and go on with the job."""
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    job = await job_when(api.service, job_id, lambda job: True)
    await api.service.recorder.record_lost(job, "no report", actor="service")
    full = [DiskFull()]

    async def refuse(new: NewEvent) -> None:
        if isinstance(new.event, LateReportRefused) and full:
            raise full.pop()

    at_each_append(monkeypatch, api.service.log, before=refuse)
    reply = await report(api, job_id, name)
    assert (reply.status, reply.code) == (409, "stale_attempt")
    assert not full


async def test_only_the_worker_that_claimed_may_report(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    for name in ("heartbeat", "progress", "complete"):
        reply = await report(api, job_id, name, worker="worker-2")
        assert (reply.status, reply.code) == (409, "stale_attempt")
    assert await kinds(api.service, job_id) == "JobSubmitted AttemptStarted"


async def test_a_final_report_may_be_repeated(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    for _ in range(2):
        reply = await report(api, job_id, "complete", result=1)
        assert (reply.status, reply.json) == (200, {})
    reply = await report(api, job_id, "fail", code="x", message="x")
    assert (reply.status, reply.code) == (409, "stale_attempt")
    reply = await report(api, job_id, "complete", worker="worker-2", result=1)
    assert (reply.status, reply.code) == (409, "stale_attempt")
    assert len(await recorded_of(api.service, job_id, JobCompleted)) == 1


async def test_a_heartbeat_that_crosses_the_end_is_no_late_report(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    await report(api, job_id, "complete", result=1)
    assert (await report(api, job_id, "heartbeat")).code == "stale_attempt"
    assert await recorded_of(api.service, job_id, LateReportRefused) == []


async def test_nobody_elsewhere_speaks_for_an_attempt_of_this_service(client: Connect) -> None:
    """Its worker's name is in the events, for everyone to read."""

    @handler("near")
    async def near(context: Any, payload: Any) -> None:
        await asyncio.Event().wait()

    api = await client(near, grace_s=0, drain_s=0)
    job = await api.submit("near")
    running = await job_when(api.service, job["job_id"], lambda job: job.status == "running")
    for name in ("heartbeat", "progress", "complete"):
        reply = await report(api, job["job_id"], name, worker=str(running.worker))
        assert (reply.status, reply.code) == (409, "stale_attempt")
    assert await kinds(api.service, job["job_id"]) == "JobSubmitted AttemptStarted"

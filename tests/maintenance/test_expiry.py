"""Jobs that ended long enough ago are hidden; the log keeps what happened."""

import asyncio
from typing import Any

import pytest

from eventjobs.domain.events import JobExpired
from eventjobs.domain.job import Job
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import InvalidInput
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.maintenance.expiry import INTERVAL_S
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect, Serve
from tests.support.clock import SECOND, FakeClock
from tests.support.waiting import job_when, kinds, recorded_of, time_passing

DAY_S = 86_400


@handler("ok")
async def ok(context: Context, payload: Any) -> Any:
    return payload


@handler("brief", ttl_s=60)
async def brief(context: Context, payload: Any) -> None: ...


@handler("hold")
async def hold(context: Context, payload: Any) -> None:
    await asyncio.Event().wait()


async def hidden(service: Service, job_id: str, clock: FakeClock) -> Job:
    """The job once it is hidden, which takes no longer than the service looks away."""
    is_hidden = job_when(service, job_id, lambda job: job.expired_us is not None)
    async with asyncio.timeout(20):
        return await time_passing(clock, is_hidden)


async def test_a_job_is_hidden_a_day_after_its_end(client: Connect, clock: FakeClock) -> None:
    api = await client(ok, clock=clock)
    job_id = (await api.submit("ok"))["job_id"]
    ended = await api.service.wait(job_id)
    assert ended.finished_us is not None
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert job["expires_at"] == rfc3339(ended.finished_us + DAY_S * SECOND)
    clock.jump_wall(DAY_S - 4 * INTERVAL_S)
    for _ in range(3):
        await clock.advance(INTERVAL_S)
        assert (await api.get(f"/v1/jobs/{job_id}")).status == 200
    clock.jump_wall(INTERVAL_S)
    gone = await hidden(api.service, job_id, clock)
    assert (gone.expired_us or 0) - ended.finished_us <= (DAY_S + 2 * INTERVAL_S) * SECOND
    for path in ("", "/events", "/history"):
        reply = await api.get(f"/v1/jobs/{job_id}{path}")
        assert (reply.status, reply.code) == (410, "job_gone")
        assert reply.json["expired_at"] == rfc3339(gone.expired_us or 0)
    assert (await api.get("/v1/jobs")).json["jobs"] == []
    assert (await api.get("/v1/counts")).json["counts"] == {}
    facts = (await api.get("/v1/events")).json["events"]
    assert [each["type"] for each in facts][-2:] == ["JobCompleted", "JobExpired"]
    assert facts[-1]["data"] == {"reason": "ttl"}
    assert facts[-1]["actor"] == "service"
    assert (await api("POST", f"/v1/jobs/{job_id}/retry")).status == 410


async def test_a_job_may_say_by_itself_when_it_expires(client: Connect, clock: FakeClock) -> None:
    api = await client(ok, brief, clock=clock, ttl_s=3600)
    at_once = (await api.submit("ok", ttl_s=0))["job_id"]
    soon = (await api.submit("brief"))["job_id"]
    later = (await api.submit("brief", ttl_s=600))["job_id"]
    usual = (await api.submit("ok"))["job_id"]
    for each in (at_once, soon, later, usual):
        await api.service.wait(each)
    await hidden(api.service, at_once, clock)
    clock.jump_wall(60)
    await hidden(api.service, soon, clock)
    left = {each["job_id"] for each in (await api.get("/v1/jobs")).json["jobs"]}
    assert left == {later, usual}
    clock.jump_wall(540)
    await hidden(api.service, later, clock)
    clock.jump_wall(3000)
    await hidden(api.service, usual, clock)


async def test_what_has_not_ended_does_not_expire(serve: Serve, clock: FakeClock) -> None:
    service = await serve(ok, hold, clock=clock, ttl_s=0, drain_s=0)
    running = await service.submit("hold")
    later = await service.submit("ok", run_at_us=clock.now_us() + 1000 * DAY_S * SECOND)
    await job_when(service, running.job_id, lambda job: job.status == "running")
    clock.jump_wall(10 * DAY_S)
    done = await service.submit("ok")
    await hidden(service, done.job_id, clock)
    for each in (running, later):
        assert not await recorded_of(service, each.job_id, JobExpired)


async def test_a_retry_by_hand_begins_the_time_anew(serve: Serve, clock: FakeClock) -> None:
    service = await serve(ok, clock=clock, ttl_s=100, concurrency=0)
    job = await service.submit("ok")
    await service.jobs.cancel(job.job_id, actor="test")
    clock.jump_wall(95)
    await service.jobs.retry(job.job_id, actor="test")
    await service.jobs.cancel(job.job_id, actor="test")
    clock.jump_wall(95)
    await time_passing(clock, service.views.wait_for_position(service.log.head))
    await clock.advance(4)
    assert not await recorded_of(service, job.job_id, JobExpired)
    clock.jump_wall(5)
    await hidden(service, job.job_id, clock)


async def test_what_was_due_while_the_service_was_down_is_hidden_at_the_next_start(
    serve: Serve, clock: FakeClock
) -> None:
    service = await serve(ok, clock=clock)
    ids = [(await service.submit("ok", number)).job_id for number in range(60)]
    for each in ids:
        await service.wait(each)
    await time_passing(clock, service.close())
    clock.jump_wall(2 * DAY_S)
    again = await serve(ok, clock=clock)
    for each in ids:
        await hidden(again, each, clock)
        assert (await kinds(again, each)).endswith("JobCompleted JobExpired")


async def test_never_is_a_time_too(
    serve: Serve, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_TTL", "inf")
    service = await serve(ok, clock=clock)
    assert service.settings.ttl_s == float("inf")
    kept, gone = await service.submit("ok"), await service.submit("ok", ttl_s=5)
    for each in (kept, gone):
        await service.wait(each.job_id)
    clock.jump_wall(10_000 * DAY_S)
    await hidden(service, gone.job_id, clock)
    assert not await recorded_of(service, kept.job_id, JobExpired)


@pytest.mark.parametrize("ttl_s", [-1, float("nan"), float("inf"), 1e300])
async def test_a_time_that_is_none_is_refused(serve: Serve, ttl_s: float) -> None:
    """Of the setting alone infinite is a value: JSON has none."""
    service = await serve(ok)
    with pytest.raises(InvalidInput) as refusal:
        await service.submit("ok", ttl_s=ttl_s)
    assert [each["field"] for each in refusal.value.errors] == ["ttl_s"]
    assert service.log.head == 0
    with pytest.raises(InvalidInput) as refusal:
        handler("wrong", ttl_s=ttl_s)(ok.function)
    assert [each["field"] for each in refusal.value.errors] == ["ttl_s"]


def test_the_usual_time_is_that_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().ttl_s == DAY_S
    monkeypatch.setenv("JOB_TTL", "3600")
    assert Settings().ttl_s == 3600

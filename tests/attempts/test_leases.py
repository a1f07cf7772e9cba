"""A lease expires without reports, survives restarts and clock jumps, and ends by stops."""

import asyncio
from typing import Any

import pytest

from eventjobs.domain.events import AttemptFailed, ProgressReported
from eventjobs.errors import DiskFull
from eventjobs.handlers.declare import handler
from eventjobs.projections.fold import Folded
from eventjobs.projections.store import Store
from eventjobs.service import Service
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.log_lines import capture_logs
from tests.support.remote_worker import (
    FAR,
    WORKER,
    claim,
    report,
    submit_and_claim,
    until_lost,
    wait_for_claims,
)
from tests.support.waiting import job_when, recorded_of, time_passing, turns

DAYS_S = 86_400.0


async def status(service: Service, job_id: str) -> str:
    job = await service.jobs.current(job_id)
    assert job is not None
    return job.status


# --- expiry


async def test_a_silent_worker_is_lost_within_its_lease_and_a_second(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(29.5)
    assert await status(api.service, job_id) == "running"
    with capture_logs() as lines:
        await clock.advance(1.5)
        await until_lost(api.service, job_id)
        await turns()
    assert [each["worker"] for each in lines if each["event"] == "attempt lost"] == [WORKER]
    [lost] = await recorded_of(api.service, job_id, AttemptFailed)
    assert isinstance(lost.event, AttemptFailed)
    assert (lost.event.code, lost.actor) == ("worker_lost", "service")
    assert lost.event.message == "not heard from for 30 s"
    assert [each["attempt"] for each in await claim(api, "worker-2")] == [2]


@pytest.mark.parametrize("sign", ["heartbeat", "progress", "log"])
async def test_every_sign_of_life_renews_the_lease(
    client: Connect, clock: FakeClock, sign: str
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    body: dict[str, Any] = {"lines": [{"message": "here"}]} if sign == "log" else {}
    for _ in range(5):
        await clock.advance(29)
        reply = await report(api, job_id, sign, **body)
        assert reply.json == {"cancel": False, "reason": None, "lease_s": 30.0}
    assert await status(api.service, job_id) == "running"


async def test_a_claim_can_ask_for_another_lease(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job = await api.submit("far")
    [given] = await claim(api, lease_s=5)
    assert given["lease_s"] == 5
    await clock.advance(6)
    await until_lost(api.service, job["job_id"])


@pytest.mark.parametrize("days", [30, -30])
async def test_a_clock_that_jumps_robs_nobody_and_saves_nobody(
    client: Connect, clock: FakeClock, days: int
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    clock.jump_wall(days * DAYS_S)
    await clock.advance(29)
    assert await status(api.service, job_id) == "running"
    assert (await report(api, job_id, "heartbeat")).status == 200
    clock.jump_wall(-days * DAYS_S)
    await clock.advance(29)
    assert await status(api.service, job_id) == "running"
    await clock.advance(2)
    await until_lost(api.service, job_id)


async def test_a_service_that_was_stopped_for_a_while_blames_nobody(
    client: Connect, clock: FakeClock
) -> None:
    """As with SIGSTOP, or a laptop that was closed: no report could arrive."""
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(10)
    clock.freeze(3_600)
    await clock.advance(15)
    assert await status(api.service, job_id) == "running"
    await clock.advance(6)
    await until_lost(api.service, job_id)


async def test_after_a_restart_every_lease_has_one_full_period(
    serve: Serve, client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(20)
    await time_passing(clock, api.service.close())
    await clock.advance(3_600)
    service = await serve(FAR, clock=clock)
    await clock.advance(29.5)
    assert await status(service, job_id) == "running"
    await clock.advance(1.5)
    await until_lost(service, job_id)


async def test_a_local_attempt_has_no_lease(serve: Serve, clock: FakeClock) -> None:
    @handler("near")
    async def near(context: Any, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(near, clock=clock, lease_s=30, grace_s=0, drain_s=0)
    job = await service.submit("near")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.views.wait_for_position(service.log.head)
    await clock.advance(100)
    assert await status(service, job.job_id) == "running"
    assert len(service.leases) == 0


async def test_a_log_that_takes_nothing_loses_the_attempt_later(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    append_many = api.service.log.append_many
    refused = asyncio.Event()

    async def full(*args: Any, **kwargs: Any) -> Any:
        refused.set()
        raise DiskFull

    monkeypatch.setattr(api.service.log, "append_many", full)
    await clock.advance(31)
    await refused.wait()
    monkeypatch.setattr(api.service.log, "append_many", append_many)
    await time_passing(clock, until_lost(api.service, job_id))


async def test_an_attempt_is_lost_once_though_the_views_are_behind(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await api.service.views.wait_for_position(api.service.log.head)
    fold, caught_up = Store.fold, asyncio.Event()

    async def fold_late(*given: Any, **more: Any) -> Folded:
        await caught_up.wait()
        return await fold(*given, **more)

    monkeypatch.setattr(Store, "fold", fold_late)
    await clock.advance(31)
    await until_lost(api.service, job_id)
    await turns()
    assert api.service.leases.held_by(WORKER) == []
    caught_up.set()


async def test_what_a_deaf_worker_loses_does_not_go_to_its_own_open_claim(
    client: Connect, clock: FakeClock
) -> None:
    """As of a stopped worker: its connections stay open, and it reads no response."""
    api = await client(FAR, clock=clock, lease_s=10)
    job_id = await submit_and_claim(api)
    open_claim = asyncio.create_task(claim(api, wait_s=20))
    await wait_for_claims(api, WORKER)
    await clock.advance(11)
    await until_lost(api.service, job_id)
    assert await open_claim == []
    await wait_for_claims(api, WORKER, 0)
    assert [each["job_id"] for each in await claim(api, "worker-2")] == [job_id]


async def test_an_attempt_that_ended_has_no_lease(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    await report(api, job_id, "progress", done=1)
    await report(api, job_id, "complete")
    await api.service.views.wait_for_position(api.service.log.head)
    assert len(api.service.leases) == 0


async def test_a_service_that_takes_no_more_reports_ends_no_attempt(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    api.service.leases.close()
    await clock.advance(60)
    assert await status(api.service, job_id) == "running"


# --- stops


async def test_a_cancel_reaches_the_worker_in_the_answer_to_its_heartbeat(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock)
    job_id = await submit_and_claim(api)
    assert (await api("POST", f"/v1/jobs/{job_id}/cancel")).status == 200
    reply = await report(api, job_id, "heartbeat")
    assert reply.json == {"cancel": True, "reason": "cancelled", "lease_s": 30.0}
    assert (await report(api, job_id, "cancelled")).status == 200
    assert (await report(api, job_id, "cancelled")).status == 200
    assert await status(api.service, job_id) == "cancelled"


async def test_a_worker_that_goes_on_after_a_cancel_is_cut_off_after_the_grace_time(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, grace_s=5, lease_s=30)
    job_id = await submit_and_claim(api)
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    await clock.advance(20)  # it does not know yet
    assert await status(api.service, job_id) == "running"
    for _ in range(6):
        await report(api, job_id, "progress", done=1)
        await clock.advance(1)
    await job_when(api.service, job_id, lambda job: job.status == "cancelled")
    assert (await report(api, job_id, "progress", done=1)).code == "stale_attempt"


async def test_a_worker_that_is_gone_cannot_hold_up_a_cancel(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    await clock.advance(31)
    await job_when(api.service, job_id, lambda job: job.status == "cancelled")


async def test_nobody_is_cancelled_who_was_not_asked_to_stop(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    reply = await report(api, job_id, "cancelled")
    assert (reply.status, reply.code) == (409, "wrong_state")
    assert await status(api.service, job_id) == "running"


@pytest.mark.parametrize(
    ("limit", "sign", "code"),
    [
        ({"timeout_s": 60}, "progress", "timeout"),
        ({"stall_timeout_s": 60}, "heartbeat", "stalled"),
    ],
)
async def test_a_limit_holds_for_a_worker_that_does_not_keep_it(
    client: Connect, clock: FakeClock, limit: dict[str, Any], sign: str, code: str
) -> None:
    api = await client(FAR, clock=clock, grace_s=5, lease_s=30, max_attempts=1)
    job_id = await submit_and_claim(api, **limit)
    for _ in range(3):
        await clock.advance(20)
        assert (await report(api, job_id, sign)).status == 200
    await clock.advance(1)
    assert (await report(api, job_id, "heartbeat")).json["reason"] == code
    with capture_logs() as lines:
        await clock.advance(5)
        job = await job_when(api.service, job_id, lambda job: job.status == "failed")
        await turns()
    assert [each["why"] for each in lines if each["event"] == "attempt ended"] == [code]
    assert job.error is not None
    assert job.error["code"] == code


async def test_a_time_limit_counts_from_the_claim(client: Connect, clock: FakeClock) -> None:
    """Not from when the service began to watch leases: another one is older."""
    api = await client(FAR, clock=clock, lease_s=60)
    await submit_and_claim(api)
    await clock.advance(50)
    job_id = await submit_and_claim(api, timeout_s=60)
    await clock.advance(55)
    assert (await report(api, job_id, "heartbeat")).json["reason"] is None
    await clock.advance(6)
    assert (await report(api, job_id, "heartbeat")).json["reason"] == "timeout"


async def test_who_stops_because_time_is_up_has_failed_and_was_not_cancelled(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock, lease_s=30, max_attempts=1)
    job_id = await submit_and_claim(api, timeout_s=10)
    await clock.advance(11)
    assert (await report(api, job_id, "cancelled")).status == 200
    job = await job_when(api.service, job_id, lambda job: job.status == "failed")
    assert job.error is not None
    assert job.error["code"] == "timeout"


async def test_progress_puts_off_a_stall(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api, stall_timeout_s=25)
    for done in range(5):
        await clock.advance(20)
        reply = await report(api, job_id, "progress", done=done, total=5, stage="far away")
        assert reply.json["cancel"] is False
    assert len(await recorded_of(api.service, job_id, ProgressReported)) == 5
    await turns()

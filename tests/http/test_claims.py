"""Remote workers claim jobs, and wait for them."""

import asyncio
from functools import partial
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from eventjobs.attempts.remote_claims import ClaimRequest, RemoteClaims
from eventjobs.domain.events import (
    AttemptStarted,
)
from eventjobs.execution.source import Capacity
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.log.long_poll import LongPolls
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.remote_worker import WORKER, claim, report, submit_and_claim, wait_for_claims
from tests.support.searches import during_a_search
from tests.support.waiting import job_when, kinds, recorded_of


class Length(BaseModel):
    metres: float


FAR = remote("far")
NEAR_AND_FAR = (remote("near"), FAR)


@handler("both")
async def both(context: Context, payload: Any) -> str:
    return "here"


async def test_a_worker_gets_all_that_it_needs(client: Connect) -> None:
    api = await client(FAR)
    upload = (await api("POST", "/v1/artifacts", data=b"1,2")).json["sha256"]
    job = await api.submit("far", {"x": 1}, artifacts={"data.csv": upload}, timeout_s=60)
    [given] = await claim(api)
    shown = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    assert given == shown | {"lease_s": 30.0, "steps": [], "sensitive": []}
    assert (given["status"], given["attempt"], given["payload"]) == ("running", 1, {"x": 1})
    assert (await api.get(given["artifacts"][0]["url"])).body == b"1,2"
    [started] = await recorded_of(api.service, job["job_id"], AttemptStarted)
    assert started.event == AttemptStarted(1, WORKER, 30.0)
    assert started.actor == WORKER


async def test_with_nothing_to_do_the_answer_is_no_job(client: Connect) -> None:
    assert await claim(await client(FAR)) == []


async def test_several_jobs_in_one_claim_best_first(client: Connect) -> None:
    api = await client(FAR)
    ids = [(await api.submit("far", priority=each))["job_id"] for each in (1, 3, 2)]
    assert [each["job_id"] for each in await claim(api, max=2)] == [ids[1], ids[2]]
    assert [each["job_id"] for each in await claim(api, max=2)] == [ids[0]]


async def test_a_claim_is_of_the_types_it_names(client: Connect) -> None:
    api = await client(*NEAR_AND_FAR)
    near, far = [(await api.submit(each))["job_id"] for each in ("near", "far")]
    assert [each["job_id"] for each in await claim(api, types=("far",), max=9)] == [far]
    assert [each["job_id"] for each in await claim(api, types=("near", "far"), max=9)] == [near]


async def test_a_claim_can_limit_some_of_its_types(client: Connect) -> None:
    api = await client(*NEAR_AND_FAR)
    for type in ("near", "near", "far", "far"):
        await api.submit(type)
    limits = [{"types": ["near"], "max": 1}]
    given = await claim(api, types=("near", "far"), max=4, limits=limits)
    assert sorted(each["type"] for each in given) == ["far", "far", "near"]


async def test_a_claim_can_be_of_children_only_for_some_of_its_types(client: Connect) -> None:
    """By a worker whose slots are held by jobs that wait for child jobs."""
    api = await client(*NEAR_AND_FAR)
    near, far = [await api.submit(each) for each in ("near", "far")]
    child = await api.submit("near", parent=far["job_id"])
    asked: dict[str, Any] = {"types": ("near", "far"), "max": 9, "children_only": ["near"]}
    limits = [{"types": ["near"], "max": 1}]
    given = await claim(api, **asked, limits=limits)
    assert {each["job_id"] for each in given} == {far["job_id"], child["job_id"]}
    assert await claim(api, **asked) == []
    assert [each["job_id"] for each in await claim(api, types=("near",))] == [near["job_id"]]


async def test_a_long_poll_is_answered_when_a_job_comes(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock)
    waiting = asyncio.create_task(claim(api, wait_s=20))
    await wait_for_claims(api, WORKER)
    job = await api.submit("far")
    assert [each["job_id"] for each in await waiting] == [job["job_id"]]


async def test_a_long_poll_is_answered_when_a_job_is_due(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock)
    job = await api.submit("far", delay_s=5)
    waiting = asyncio.create_task(claim(api, wait_s=20))
    await wait_for_claims(api, WORKER)
    await clock.advance(6)
    assert [each["job_id"] for each in await waiting] == [job["job_id"]]


@pytest.mark.parametrize("asked_s", [10, 600])
async def test_a_long_poll_in_vain_ends_in_time(
    client: Connect, clock: FakeClock, asked_s: int
) -> None:
    api = await client(FAR, clock=clock, wait_max_s=20)
    waiting = asyncio.create_task(claim(api, wait_s=asked_s))
    await wait_for_claims(api, WORKER)
    await clock.advance(min(asked_s, 20) + 1)
    assert await waiting == []


async def test_one_job_goes_to_one_of_those_who_wait(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock)
    waiting = [asyncio.create_task(claim(api, f"w{n}", wait_s=20)) for n in range(5)]
    for n in range(5):
        await wait_for_claims(api, f"w{n}")
    job = await api.submit("far")
    await job_when(api.service, job["job_id"], lambda job: job.status == "running")
    await clock.advance(21)
    given = [each for jobs in await asyncio.gather(*waiting) for each in jobs]
    assert [each["job_id"] for each in given] == [job["job_id"]]


async def test_a_claim_that_does_not_wait_ends_the_wait_of_an_earlier_one(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock)
    waiting = asyncio.create_task(claim(api, wait_s=20))
    other = asyncio.create_task(claim(api, "worker-2", wait_s=20))
    await wait_for_claims(api, WORKER)
    await wait_for_claims(api, "worker-2")
    assert await claim(api, types=()) == []
    assert await waiting == []
    job = await api.submit("far")
    assert [each["job_id"] for each in await other] == [job["job_id"]]


async def test_a_job_that_comes_while_a_claim_looks_for_jobs_is_its_answer(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still, so nothing but the job ends the wait."""
    api = await client(FAR, clock=clock)
    during_a_search(api.service, monkeypatch, partial(api.service.submit, "far", 1))
    async with asyncio.timeout(20):
        assert [each["payload"] for each in await claim(api, wait_s=20)] == [1]


async def test_a_claim_whose_wait_is_ended_while_it_looks_for_jobs_does_not_begin_to_wait(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a worker that stops just after a claim would wait for its own claim."""
    api = await client(FAR, clock=clock)
    pick = api.service.claims.select
    looks, go = asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        looks.set()
        await go.wait()
        return await pick(*args)

    monkeypatch.setattr(api.service.claims, "select", slow)
    waiting = asyncio.create_task(claim(api, wait_s=20))
    await looks.wait()
    assert await claim(api, types=()) == []
    go.set()
    assert await waiting == []


async def test_a_shutdown_ends_every_wait(client: Connect, clock: FakeClock) -> None:
    api = await client(FAR, clock=clock)
    waiting = asyncio.create_task(claim(api, wait_s=20))
    await wait_for_claims(api, WORKER)
    await api.listening.close()
    assert await waiting == []


async def test_nothing_is_claimed_for_a_worker_that_has_hung_up(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(FAR, clock=clock)
    body = orjson.dumps({"worker": WORKER, "types": ["far"], "wait_s": 20})
    head = "POST /v1/work/claim HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    _, writer = await asyncio.open_connection(api.listening.host, api.listening.port)
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await wait_for_claims(api, WORKER)
    writer.close()
    await writer.wait_closed()
    job = await api.submit("far")
    await wait_for_claims(api, WORKER, 0)  # the claim has found that the connection is closed
    assert "AttemptFailed" not in await kinds(api.service, job["job_id"])
    [given] = await claim(api, "worker-2")
    assert given["job_id"] == job["job_id"]
    tries = (await job_when(api.service, job["job_id"], lambda job: True)).tries
    assert tries == 1


async def test_a_claim_whose_answer_was_lost_is_answered_again(client: Connect) -> None:
    api = await client(FAR)
    held, lost, done = [await submit_and_claim(api) for _ in range(3)]
    await submit_and_claim(api, "worker-2")
    await report(api, done, "complete")
    assert [each["job_id"] for each in await claim(api, holds=[held])] == [lost]
    assert await claim(api, holds=[held, lost]) == []
    assert (await report(api, lost, "complete")).status == 200


async def test_a_claim_that_is_answered_again_renews_the_leases_of_its_jobs(
    client: Connect, clock: FakeClock
) -> None:
    """Else the worker would lose them soon after it gets them."""
    api = await client(FAR, clock=clock, lease_s=30)
    job_id = await submit_and_claim(api)
    await clock.advance(25)
    assert [each["job_id"] for each in await claim(api, holds=[])] == [job_id]
    await clock.advance(25)
    assert (await report(api, job_id, "heartbeat")).status == 200


async def test_a_job_whose_lease_has_outlived_its_attempt_is_not_answered_again(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease ends when the views show the end of its attempt, which is later."""
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    await report(api, job_id, "complete")
    monkeypatch.setattr(api.service.leases, "held_by", lambda worker: [job_id])
    assert await claim(api, holds=[]) == []


async def test_a_type_that_nobody_knows_cannot_be_claimed(client: Connect) -> None:
    api = await client(FAR)
    reply = await api("POST", "/v1/work/claim", {"worker": WORKER, "types": ["unheard"]})
    assert (reply.status, reply.code) == (422, "unknown_type")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"types": ["far"]}, "worker"),
        ({"worker": "", "types": ["far"]}, "worker"),
        ({"worker": "a b", "types": ["far"]}, "worker"),
        ({"worker": "w", "types": ["far"], "max": 0}, "max"),
        ({"worker": "w", "types": ["far"], "wait_s": -1}, "wait_s"),
        ({"worker": "w", "types": ["far"], "lease_s": 0.1}, "lease_s"),
        ({"worker": "w", "types": ["far"], "colour": "red"}, "colour"),
    ],
)
async def test_a_claim_that_makes_no_sense_says_why(
    client: Connect, body: dict[str, Any], field: str
) -> None:
    reply = await (await client(FAR))("POST", "/v1/work/claim", body)
    assert (reply.status, reply.fields) == (422, [field])


# --- which types there are


async def test_a_setting_declares_types_for_workers_elsewhere(client: Connect) -> None:
    api = await client(both, worker_types="far, further,both")
    job = await api.submit("further", 1)
    [given] = await claim(api, types=("further",))
    assert given["job_id"] == job["job_id"]
    job = await api.submit("both")  # its handler here stays
    assert (await api.service.wait(job["job_id"])).result == "here"


async def test_a_declared_type_checks_its_payloads_and_has_limits(client: Connect) -> None:
    api = await client(remote("measure", model=Length, max_attempts=7, timeout_s=9))
    spec = {"type": "measure", "payload": {"metres": "far"}}
    assert (await api("POST", "/v1/jobs", spec)).fields == ["payload.metres"]
    job = await api.submit("measure", {"metres": 1})
    assert (job["max_attempts"], job["timeout_s"]) == (7, 9)


async def test_workers_elsewhere_may_do_what_this_service_does_not(client: Connect) -> None:
    api = await client(both, concurrency=0)
    job = await api.submit("both")
    [given] = await claim(api, types=("both",))
    assert given["job_id"] == job["job_id"]


async def test_a_worker_that_has_gone_while_it_was_given_jobs_has_none(client: Connect) -> None:
    """Its response would not arrive: each job is queued again, and that is no attempt."""
    service = (await client(FAR)).service
    polls = LongPolls(service.log, service.clock, 20.0)
    claims = RemoteClaims(
        service.claims,
        service.leases,
        service.attempt_reports,
        service.recorder,
        service.clock,
        polls,
    )
    job = await service.submit("far")
    await service.views.wait_for_position(service.log.head)
    head = service.log.head
    request = ClaimRequest(WORKER, [Capacity(["far"], 1)], 1, 0.0, 60.0, None)
    assert await claims.claim(request, lambda: service.log.head > head) == []
    assert await kinds(service, job.job_id) == "JobSubmitted AttemptStarted AttemptReleased"
    assert (await job_when(service, job.job_id, lambda job: True)).tries == 0

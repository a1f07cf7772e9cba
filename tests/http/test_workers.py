"""Remote workers claim jobs over HTTP, and their reports are recorded."""

import asyncio
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from eventjobs.domain.events import (
    ArtifactStored,
    AttemptFailed,
    AttemptReleased,
    AttemptStarted,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.remote_worker import WORKER, claim, report, submit_and_claim, wait_for_claims
from tests.support.waiting import job_when, kinds, recorded_of, told


class Length(BaseModel):
    metres: float


FAR = remote("far")
NEAR_AND_FAR = (remote("near"), FAR)


@handler("both")
async def both(context: Context, payload: Any) -> str:
    return "here"


# --- claiming


async def test_a_worker_gets_all_that_it_needs(client: Connect) -> None:
    api = await client(FAR)
    upload = (await api("POST", "/v1/artifacts", data=b"1,2")).json["sha256"]
    job = await api.submit("far", {"x": 1}, artifacts={"data.csv": upload}, timeout_s=60)
    [given] = await claim(api)
    shown = (await api.get(f"/v1/jobs/{job['job_id']}")).json
    assert given == shown | {"lease_s": 30.0, "steps": []}
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
    """By a worker whose places are taken by jobs that wait for others."""
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


async def test_a_claim_whose_wait_is_ended_while_it_looks_for_jobs_does_not_begin_to_wait(
    client: Connect, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker that stops just after it has asked would be kept by its own question."""
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


# --- reporting


async def test_what_is_reported_is_what_happened(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    sha256 = (await api("POST", "/v1/artifacts", data=b"hello")).json["sha256"]
    reports: list[tuple[str, dict[str, Any]]] = [
        ("progress", {"done": 1, "total": 4, "stage": "a", "message": "b", "data": [1]}),
        ("log", {"lines": [{"message": "x"}, {"message": "y", "level": "error", "fields": {}}]}),
        ("step", {"name": "one", "number": 0, "result": {"a": 1}}),
        ("artifact", {"name": "x.txt", "sha256": sha256, "media_type": "text/plain"}),
    ]
    for name, body in reports:
        reply = await report(api, job_id, name, **body)
        assert (reply.status, reply.json["cancel"]) == (200, False), reply.body
    issues = [{"code": "slow", "message": "it was slow"}]
    assert (await report(api, job_id, "complete", result=[1], issues=issues)).json == {}
    assert (await told(api.service, job_id))[2:-1] == [
        ProgressReported(1, 1.0, 4.0, "a", "b", [1]),
        LogWritten(1, "info", "x"),
        LogWritten(1, "error", "y", {}),
        StepCompleted(1, "one", 0, {"a": 1}),
        ArtifactStored(1, "x.txt", sha256, 5, "text/plain"),
    ]
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert (job["status"], job["result"], job["issues"]) == ("completed", [1], issues)
    assert (await api.get(job["artifacts"][0]["url"])).body == b"hello"


async def test_the_next_attempt_gets_the_steps_that_are_done(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    for number, name in enumerate(("b", "a")):
        await report(api, job_id, "step", name=name, number=number, result=number)
    await report(api, job_id, "release", reason="enough for today")
    [given] = await claim(api)
    assert given["attempt"] == 2
    assert [(each["name"], each["result"]) for each in given["steps"]] == [("b", 0), ("a", 1)]


async def test_a_failure_is_tried_again_as_often_as_it_may(client: Connect) -> None:
    api = await client(FAR, retry_delay_s=0)
    job_id = await submit_and_claim(api, max_attempts=2)
    body: dict[str, Any] = {"code": "no_luck", "message": "It did not work.", "details": {"x": 1}}
    assert (await report(api, job_id, "fail", **body)).status == 200
    assert [each["attempt"] for each in await claim(api)] == [2]
    assert (await report(api, job_id, "fail", 2, **body)).status == 200
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["message"]) == ("no_luck", "It did not work.")
    first, last = [each.event for each in await recorded_of(api.service, job_id, AttemptFailed)]
    assert isinstance(first, AttemptFailed)
    assert isinstance(last, AttemptFailed)
    assert (first.retry_at_us is None, last.retry_at_us) == (False, None)
    assert last.details == {"x": 1}


async def test_a_failure_that_may_not_be_retried_is_the_end(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    await report(api, job_id, "fail", code="x", message="x", retryable=False)
    assert (await api.get(f"/v1/jobs/{job_id}")).json["status"] == "failed"


async def test_what_is_given_back_does_not_count(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api, max_attempts=1)
    for attempt in (1, 2, 3):
        assert (await report(api, job_id, "release", attempt, reason="shutdown")).status == 200
        assert (await report(api, job_id, "release", attempt, reason="shutdown")).status == 200
        assert [each["attempt"] for each in await claim(api)] == [attempt + 1]
    assert len(await recorded_of(api.service, job_id, AttemptReleased)) == 3


async def test_a_large_result_becomes_an_artifact_and_may_be_repeated(client: Connect) -> None:
    api = await client(FAR, result_bytes_max=1024)
    job_id = await submit_and_claim(api)
    for _ in range(2):
        assert (await report(api, job_id, "complete", result="x" * 5000)).status == 200
    job = (await api.get(f"/v1/jobs/{job_id}")).json
    assert job["result"]["artifact"] == "result.json"
    assert (await api.get(job["artifacts"][0]["url"])).json == "x" * 5000


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("log", {"lines": []}, "lines"),
        ("log", {"lines": [{"message": "x", "level": "loud"}]}, "lines.0.level"),
        ("step", {"name": "", "number": 0}, "name"),
        ("artifact", {"name": "../x", "sha256": "0" * 64}, "name"),
        ("fail", {"code": "x"}, "message"),
        ("complete", {"reslut": 1}, "reslut"),
        ("progress", {"done": "half"}, "done"),
    ],
)
async def test_a_report_that_makes_no_sense_says_why_and_changes_nothing(
    client: Connect, name: str, body: dict[str, Any], field: str
) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    reply = await report(api, job_id, name, **body)
    assert (reply.status, reply.fields) == (422, [field])
    assert await kinds(api.service, job_id) == "JobSubmitted AttemptStarted"


async def test_an_artifact_is_uploaded_before_it_is_named(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    reply = await report(api, job_id, "artifact", name="x", sha256="0" * 64)
    assert (reply.status, reply.code) == (422, "unknown_artifact")


async def test_reports_on_what_never_was(client: Connect) -> None:
    api = await client(FAR)
    job_id = await submit_and_claim(api)
    nobody = "00000000-0000-4000-8000-000000000000"
    assert (await report(api, nobody, "heartbeat")).code == "job_not_found"
    assert (await report(api, job_id, "complete", 7)).code == "stale_attempt"
    reply = await api("POST", f"/v1/work/{job_id}/x/complete", {"worker": WORKER})
    assert (reply.status, reply.code) == (404, "not_found")
    assert await kinds(api.service, job_id) == "JobSubmitted AttemptStarted"


async def test_several_completions_in_one_request_have_each_its_own_outcome(
    client: Connect,
) -> None:
    api = await client(FAR)
    first, second = await submit_and_claim(api), await submit_and_claim(api)
    other = await submit_and_claim(api, "worker-2")
    nobody = "00000000-0000-4000-8000-000000000000"
    done = [
        {"job_id": first, "attempt": 1, "result": {"x": 1}},
        {"job_id": other, "attempt": 1, "result": "not mine"},
        {"job_id": nobody, "attempt": 1},
        {"job_id": "x", "attempt": 1},
        {"job_id": second, "attempt": 1, "issues": [{"late": True}]},
    ]
    for _ in range(2):  # harmless to repeat
        reply = await api("POST", "/v1/work/complete", {"worker": WORKER, "jobs": done})
        assert reply.status == 200
        assert [each["job_id"] for each in reply.json["jobs"]] == [each["job_id"] for each in done]
        outcomes = [
            (each["status"], each["error"] and each["error"]["code"]) for each in reply.json["jobs"]
        ]
        unknown = (404, "job_not_found")
        assert outcomes == [(200, None), (409, "stale_attempt"), unknown, unknown, (200, None)]
    jobs = [await api.service.wait(each) for each in (first, second)]
    assert [(job.result, job.issues) for job in jobs] == [
        ({"x": 1}, None),
        (None, [{"late": True}]),
    ]
    for job_id in (first, second):
        assert await kinds(api.service, job_id) == "JobSubmitted AttemptStarted JobCompleted"
    assert await kinds(api.service, other) == "JobSubmitted AttemptStarted"

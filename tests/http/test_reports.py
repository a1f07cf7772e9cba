"""Reports of remote workers are recorded, refused, and safe to repeat."""

from typing import Any

import pytest

from eventjobs.domain.events import (
    ArtifactStored,
    AttemptFailed,
    AttemptReleased,
    LogWritten,
    ProgressReported,
    StepCompleted,
)
from eventjobs.handlers.declare import remote
from tests.conftest import Connect
from tests.support.remote_worker import WORKER, claim, report, submit_and_claim
from tests.support.waiting import events_of, kinds, recorded_of

FAR = remote("far")


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
    assert (await events_of(api.service, job_id))[2:-1] == [
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

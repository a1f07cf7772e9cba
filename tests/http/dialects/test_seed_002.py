"""The front end of a processing page: the job that it polls, retries, cancels, and callbacks."""

import asyncio
from typing import Any

import pytest

from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.handlers.hooks import CompletedJob, on_completion
from eventjobs.http.dialects.processing_page import page_fields
from eventjobs.projections import JobView
from eventjobs.projections.progress import Estimate
from tests.conftest import Connect
from tests.support.external_jobs import ACCEPTED, analyse, submit_and_accept
from tests.support.external_service import LOOPBACK, external_service
from tests.support.http_client import Client
from tests.support.http_jobs import NOBODY, echo, fail, wait
from tests.support.keys import bearer, make_key
from tests.support.waiting import job_when

LABELS = ["Uploading", "Analyzing", "Generating", "Visualizing"]


@handler("stages", max_attempts=1)
async def fail_in_stage(context: Context, payload: dict[str, Any]) -> None:
    """Fail in the stage of the payload, with its code or by a bug."""
    if payload.get("stage"):
        context.progress(payload.get("done", 50), 100, stage=payload["stage"])
    if code := payload.get("code"):
        raise JobError(code, "A message for people.", retryable=False)
    raise ValueError("a bug")


async def page_of(api: Client, job_id: str) -> Any:
    reply = await api.get(f"/api/jobs/{job_id}")
    assert reply.status == 200, reply.body
    return reply.json


async def ended_page(api: Client, type: str, payload: Any = None) -> Any:
    """The page of a new job that has ended."""
    job = await api.submit(type, payload)
    await api.service.wait(job["job_id"])
    return await page_of(api, job["job_id"])


def statuses(page: Any) -> list[str]:
    assert [each["name"] for each in page["stages"]] == LABELS
    assert all(each["description"] for each in page["stages"])
    return [each["status"] for each in page["stages"]]


async def test_a_waiting_job_has_every_field(client: Connect) -> None:
    api = await client(echo, dialects="002", concurrency=0)
    job_id = (await api.submit("echo", {"a": 1}))["job_id"]
    page = await page_of(api, job_id)
    prefixed = f"job_{job_id.replace('-', '')}"
    assert (page["jobId"], page["job_id"], page["status"]) == (prefixed, job_id, "pending")
    assert (page["canRetry"], page["errorDetails"], page["storyId"]) == (False, None, None)
    assert (page["etaSeconds"], page["metadata"], page["attempt"]) == (None, None, 1)
    assert statuses(page) == ["active", "pending", "pending", "pending"]
    assert await page_of(api, prefixed) == page


async def test_a_completed_job_has_all_stages_done(client: Connect) -> None:
    api = await client(echo, dialects="002")
    page = await ended_page(api, "echo", {"a": 1})
    assert (page["status"], page["progress"], page["result"]) == ("completed", 100, {"a": 1})
    assert (page["etaSeconds"], page["canRetry"]) == (0, False)
    assert statuses(page) == ["done"] * 4


@pytest.mark.parametrize(
    ("payload", "code", "stages"),
    [
        ({"stage": "reading"}, "PREPROCESSING_ERROR", "failed pending pending pending"),
        ({"stage": "analyzing"}, "ANALYSIS_ERROR", "done failed pending pending"),
        ({"stage": "narrating"}, "NARRATIVE_GENERATION_ERROR", "done done failed pending"),
        ({"stage": "visualizing"}, "VISUALIZATION_ERROR", "done done done failed"),
        ({"stage": "cooking"}, "PROCESSING_ERROR", "done done failed pending"),
        ({}, "PROCESSING_ERROR", "failed pending pending pending"),
        ({"stage": "reading", "code": "csv_empty"}, "PREPROCESSING_ERROR", None),
        ({"stage": "narrating", "code": "breaker_open"}, "NARRATIVE_GENERATION_ERROR", None),
        ({"stage": "reading", "code": "VISUALIZATION_ERROR"}, "VISUALIZATION_ERROR", None),
        ({"stage": "reading", "code": "timeout"}, "PROCESSING_ERROR", None),
    ],
)
async def test_an_error_has_the_category_of_its_stage(
    client: Connect, payload: Any, code: str, stages: str | None
) -> None:
    api = await client(fail_in_stage, dialects="002")
    page = await ended_page(api, "stages", payload)
    message = "A message for people." if "code" in payload else "ValueError: a bug"
    assert (page["status"], page["error"], page["canRetry"]) == ("failed", message, True)
    assert page["errorDetails"] == {
        "code": code,
        "message": message,
        "timestamp": page["completed_at"],
        "canRetry": True,
    }
    if stages is not None:
        assert " ".join(statuses(page)) == stages


async def test_the_current_stage_is_active_until_the_job_is_cancelled(client: Connect) -> None:
    api = await client(wait, dialects="002")
    job_id = (await api.submit("wait"))["job_id"]
    await job_when(api.service, job_id, lambda job: job.version >= 3)
    page = await page_of(api, job_id)
    assert (page["status"], page["progress"], page["progress_message"]) == ("running", 50, None)
    assert statuses(page) == ["done", "done", "active", "pending"]
    cancelled = await api("POST", f"/api/jobs/{job_id}/cancel")
    assert cancelled.status == 200
    await api.service.wait(job_id)
    page = await page_of(api, job_id)
    assert (page["status"], page["errorDetails"]["message"]) == ("failed", "Job was cancelled")
    assert (await api("POST", f"/api/jobs/{job_id}/cancel")).json == page


async def test_the_remaining_time_is_the_middle_of_the_estimate(client: Connect) -> None:
    api = await client(wait, dialects="002")
    job_id = (await api.submit("wait"))["job_id"]
    job = await job_when(api.service, job_id, lambda job: job.version >= 3)
    for estimate, eta_s in (
        (Estimate(2.0, 5.0, "usual"), 4),
        (Estimate(None, None, "stalled"), None),
        (None, None),
    ):
        assert page_fields(JobView(job, None, estimate), None)["etaSeconds"] == eta_s


async def test_a_job_is_run_three_times_in_all(client: Connect) -> None:
    api = await client(fail, dialects="002")
    page = await ended_page(api, "fail")
    path = f"/api/jobs/{page['jobId']}/retry"
    for attempt, can_retry in ((2, True), (3, False)):
        again = await api("POST", path)
        assert again.status == 200
        assert (again.json["job_id"], again.json["attempt"]) == (page["job_id"], attempt)
        await api.service.wait(page["job_id"])
        assert (await page_of(api, page["job_id"]))["canRetry"] is can_retry
    refused = await api("POST", path)
    assert (refused.status, refused.json["code"]) == (409, "wrong_state")
    assert "3 times" in refused.json["error"]
    assert refused.json["error"] == refused.json["detail"]
    assert (await page_of(api, page["job_id"]))["errorDetails"]["canRetry"] is False


async def test_only_failed_jobs_are_retried_and_a_waiting_one_waits_on(client: Connect) -> None:
    api = await client(echo, dialects="002")
    page = await ended_page(api, "echo")
    for command in ("retry", "cancel"):
        refused = await api("POST", f"/api/jobs/{page['job_id']}/{command}")
        assert (refused.status, refused.json["code"]) == (409, "wrong_state")
    waiting = await api.submit("echo", delay_s=60)
    again = await api("POST", f"/api/jobs/{waiting['job_id']}/retry")
    assert (again.status, again.json["status"], again.json["attempt"]) == (200, "pending", 1)


@pytest.mark.parametrize("id", [NOBODY, "job_abc", "42"])
async def test_a_job_that_does_not_exist_is_not_found(client: Connect, id: str) -> None:
    api = await client(echo, dialects="002")
    for method, path in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
        missing = await api(method, f"/api/jobs/{id}{path}")
        assert (missing.status, missing.json["error"]) == (404, "Job not found")


async def test_commands_are_for_the_owner_of_the_job(client: Connect) -> None:
    api = await client(fail, dialects="002", auth="required")
    ann, bob = [bearer(await make_key(api.service, owner=name)) for name in ("ann", "bob")]
    submitted = await api("POST", "/v1/jobs", {"type": "fail"}, headers=ann)
    job_id = submitted.json["job_id"]
    await api.service.wait(job_id)
    path = f"/api/jobs/{job_id}/retry"
    assert (await api("POST", path)).status == 401
    assert (await api("POST", path, headers=bob)).json["error"] == "Job not found"
    assert (await api("POST", path, headers=ann)).json["attempt"] == 2


async def test_retries_are_counted_in_the_views_and_after_a_rebuild(client: Connect) -> None:
    api = await client(fail, dialects="002")
    page = await ended_page(api, "fail")
    await api("POST", f"/api/jobs/{page['job_id']}/retry")
    await api.service.wait(page["job_id"])
    await api("POST", "/v1/views/rebuild")
    assert (await page_of(api, page["job_id"]))["attempt"] == 2


async def test_a_service_reports_by_the_callback_of_the_front_end(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await client(analyse(at), dialects="002", outbound_allow=LOOPBACK)
        sent = await submit_and_accept(api, at)
        job_id, token = sent.body["job_id"], bearer(sent.body["callback"]["token"])
        path = f"/api/jobs/job_{job_id.replace('-', '')}/callback"
        update = {"status": "processing", "progress": 40, "stage": "analyzing", "message": "Sums"}
        reply = await api("POST", path, update, headers=token)
        assert (reply.status, reply.json["status"]) == (200, "running")
        page = await page_of(api, job_id)
        assert (page["progress"], page["progress_message"]) == (40, "Sums")
        assert statuses(page) == ["done", "active", "pending", "pending"]
        for _ in range(2):  # a repeat changes nothing
            done = {"status": "completed", "result": {"rows": 3}}
            reply = await api("POST", path, done, headers=token)
            assert reply.json == {"jobId": page["jobId"], "job_id": job_id, "status": "completed"}
        assert (await page_of(api, job_id))["result"] == {"rows": 3}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("no rows", "PROCESSING_ERROR", "no rows"),
        ({"code": "ANALYSIS_ERROR", "message": "no rows"}, "ANALYSIS_ERROR", "no rows"),
        (None, "PROCESSING_ERROR", "PROCESSING_ERROR"),
    ],
)
async def test_a_service_reports_a_failure(
    client: Connect, error: Any, code: str, message: str
) -> None:
    async with external_service(ACCEPTED) as at:
        api = await client(analyse(at), dialects="002", outbound_allow=LOOPBACK)
        sent = await submit_and_accept(api, at)
        job_id, token = sent.body["job_id"], bearer(sent.body["callback"]["token"])
        update = {"status": "failed", "error": error}
        reply = await api("POST", f"/api/jobs/{job_id}/callback", update, headers=token)
        assert (reply.status, reply.json["status"]) == (200, "failed")
        details = (await page_of(api, job_id))["errorDetails"]
        assert (details["code"], details["message"]) == (code, message)


async def test_a_callback_that_is_not_valid_changes_nothing(client: Connect) -> None:
    async with external_service(ACCEPTED) as at:
        api = await client(analyse(at), dialects="002", outbound_allow=LOOPBACK)
        sent = await submit_and_accept(api, at)
        job_id, token = sent.body["job_id"], bearer(sent.body["callback"]["token"])
        path = f"/api/jobs/{job_id}/callback"
        for body, field in (
            ({"progress": 101}, "progress"),
            ({"status": "exploded"}, "status"),
            ({"status": "completed", "error": "x"}, "error"),
            ({"result": 1}, "result"),
            ({"progres": 1}, "progres"),
            ({"attempt": 2, "progress": 1}, "attempt"),
        ):
            refused = await api("POST", path, body, headers=token)
            assert refused.status == 422
            assert field in str(refused.json)
        for headers in ({}, bearer("ej_cb_1_" + "0" * 64)):
            refused = await api("POST", path, {"progress": 1}, headers=headers)
            assert (refused.status, refused.json["code"]) == (401, "bad_token")
        await api("POST", f"/v1/jobs/{job_id}/cancel")
        await api("POST", path, {"status": "failed"}, headers=token)
        late = await api("POST", path, {"progress": 1}, headers=token)
        assert (late.status, late.json["code"]) == (409, "stale_attempt")


# --- the story


async def test_a_job_is_completed_once_its_story_is_there(client: Connect) -> None:
    """The page redirects to the story as soon as the job is completed."""
    gate = asyncio.Event()

    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> dict[str, str]:
        await gate.wait()
        return {"id": "story-7", "url": "/stories/7"}

    api = await client(echo, save, dialects="002")
    job_id = (await api.submit("echo", {"a": 1}))["job_id"]
    await api.service.wait(job_id)
    page = await page_of(api, job_id)
    assert (page["status"], page["progress"], page["storyId"]) == ("running", 99, None)
    assert (page["result"], page["completed_at"]) == (None, None)
    gate.set()
    await api.service.wait(job_id, hooks=True)
    page = await page_of(api, job_id)
    assert (page["status"], page["progress"], page["storyId"]) == ("completed", 100, "story-7")
    assert page["result"] == {"a": 1}


async def test_a_job_without_a_story_is_completed_all_the_same(client: Connect) -> None:
    @on_completion("echo", name="story")
    async def save(job: CompletedJob) -> str:
        raise JobError("no_such_user", "There is no user ann.", retryable=False)

    api = await client(echo, save, dialects="002")
    job_id = (await api.submit("echo", {"a": 1}))["job_id"]
    await api.service.wait(job_id, hooks=True)
    page = await page_of(api, job_id)
    assert (page["status"], page["storyId"]) == ("completed", None)

"""The front end of jobs `job_…`: every body that its description prints."""

import asyncio
from typing import Any

import pytest

from eventjobs.errors import JobError
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http.dialects.job_ids import prefixed_id
from tests.conftest import Connect, Serve
from tests.support.clock import FakeClock
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS, ended_job, running_job
from tests.support.keys import ADMIN, bearer, make_key
from tests.support.waiting import job_when

ABSENT = "job_" + "0" * 32


def seconds(time: str) -> str:
    return time[:19] + "Z"


async def status_of(api: Client, job: Any) -> Any:
    return (await api.get(f"/api/job-status/{prefixed_id(job['job_id'])}")).json


async def local(api: Client, url: str) -> Any:
    """The JSON at a URL that a body of the service names."""
    assert url.startswith("http://127.0.0.1:")
    reply = await api.get("/" + url.split("/", 3)[3])
    assert reply.status == 200
    return reply.json


async def test_a_job_is_submitted_processing_and_completed(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="004", concurrency=0)
    job = await api.submit("echo")
    waiting = await status_of(api, job)
    assert waiting == {
        "jobId": prefixed_id(job["job_id"]),
        "status": "submitted",
        "progress": 0.0,
        "resultUrl": None,
        "error": None,
        "errorMessage": None,
        "createdAt": seconds(job["created_at"]),
        "updatedAt": seconds(job["updated_at"]),
        "cancelledAt": None,
    }


async def test_progress_goes_from_0_to_1_and_the_result_is_at_its_url(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="004", result_bytes_max=1024)
    running = await status_of(api, {"job_id": (await running_job(api)).rpartition("/")[2]})
    assert (running["status"], running["progress"]) == ("processing", 0.5)
    for payload in ({"rows": 3}, {"rows": "x" * 2000}):
        done = await status_of(api, await ended_job(api, await api.submit("echo", payload)))
        assert (done["status"], done["progress"]) == ("completed", 1.0)
        assert done["error"] is done["errorMessage"] is done["cancelledAt"] is None
        assert await local(api, done["resultUrl"]) == payload


@pytest.mark.parametrize("form", ["query", "json", "uuid"])
async def test_a_job_is_cancelled_once(client: Connect, clock: FakeClock, form: str) -> None:
    api = await client(*HANDLERS, dialects="004", concurrency=0, clock=clock)
    job_id = (await api.submit("echo"))["job_id"]
    text = job_id if form == "uuid" else prefixed_id(job_id)
    path, body = (
        ("/api/cancel", {"jobId": text}) if form == "json" else (f"/api/cancel?jobId={text}", None)
    )
    first = await api("POST", path, body)
    assert first.status == 200
    assert first.json == {
        "jobId": prefixed_id(job_id),
        "status": "cancelled",
        "cancelledAt": first.json["cancelledAt"],
    }
    await clock.advance(5.0)
    again = await api("POST", path, body)
    assert again.status == 200
    assert again.json == first.json | {"message": "Job was already cancelled"}
    status = await status_of(api, {"job_id": job_id})
    assert (status["status"], status["cancelledAt"]) == ("cancelled", first.json["cancelledAt"])
    assert status["resultUrl"] is status["error"] is None


@handler("stubborn")
async def stubborn(context: Context, payload: Any) -> None:
    """Runs until it is cancelled, and then for as long as *payload* takes."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


async def test_a_running_job_whose_cancellation_is_requested_is_cancelled_for_its_poller(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(stubborn, dialects="004", clock=clock)
    job = await api.submit("stubborn")
    await job_when(api.service, job["job_id"], lambda job: job.status == "running")
    path = f"/api/cancel?jobId={prefixed_id(job['job_id'])}"
    first = (await api("POST", path)).json
    assert first["status"] == "cancelled"
    assert (await api("POST", path)).json == first | {"message": "Job was already cancelled"}
    status = await status_of(api, job)
    assert (status["status"], status["cancelledAt"]) == ("cancelled", first["cancelledAt"])
    assert (await api.get(f"/v1/jobs/{job['job_id']}")).json["status"] == "running"
    await clock.advance(5.0)  # the time that it has to stop
    await ended_job(api, job)
    status = await status_of(api, job)
    assert (status["status"], status["cancelledAt"]) == ("cancelled", first["cancelledAt"])


@pytest.mark.parametrize(("type", "status"), [("echo", "completed"), ("fail", "failed")])
async def test_a_job_that_has_ended_is_not_cancelled(
    client: Connect, type: str, status: str
) -> None:
    api = await client(*HANDLERS, dialects="004")
    job = await ended_job(api, await api.submit(type))
    refused = await api("POST", f"/api/cancel?jobId={prefixed_id(job['job_id'])}")
    assert refused.status == 409
    assert refused.json == {
        "error": f"Cannot cancel job with status '{status}'",
        "jobId": prefixed_id(job["job_id"]),
        "status": status,
    }


@pytest.mark.parametrize(
    ("query", "body", "status", "error"),
    [
        ("?jobId=job_abc123", None, 404, "Job not found"),
        (f"?jobId={ABSENT}", None, 404, "Job not found"),
        ("?jobId=..%2F..%2Fetc", None, 404, "Job not found"),
        ("", None, 400, "Missing jobId: give it as ?jobId= or as JSON"),
        ("?jobId=", None, 400, "Missing jobId: give it as ?jobId= or as JSON"),
        ("", {}, 400, "Missing jobId: give it as ?jobId= or as JSON"),
        (f"?jobId={ABSENT}", {"jobId": "job_1"}, 400, None),
        ("", {"jobId": 5}, 422, None),
    ],
)
async def test_a_cancellation_names_one_job_that_there_is(
    client: Connect, query: str, body: Any, status: int, error: str | None
) -> None:
    api = await client(*HANDLERS, dialects="004")
    refused = await api("POST", f"/api/cancel{query}", body)
    assert refused.status == status
    assert error in (None, refused.json["error"])
    assert refused.json["path"] == "/api/cancel"


@handler("break", max_attempts=1)
async def break_(context: Context, payload: dict[str, str]) -> None:
    raise JobError(payload["code"], "why")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("timeout", "timeout"),
        ("stalled", "timeout"),
        ("handler_error", "processing_error"),
        ("text_empty", "processing_error"),
        ("artifact_missing", "processing_error"),
        ("artifact_not_stored", "blob_upload_failed"),
        ("files_unavailable", "blob_upload_failed"),
        ("worker_shutdown", "worker_shutdown"),
        ("worker_lost", "worker_shutdown"),
        ("breaker_open", "processing_error"),
    ],
)
async def test_a_failed_job_has_one_of_four_codes_and_its_error_file(
    client: Connect, code: str, shown: str
) -> None:
    api = await client(break_, dialects="004")
    job = await ended_job(api, await api.submit("break", {"code": code}))
    failed = await status_of(api, job)
    assert (failed["status"], failed["error"], failed["errorMessage"]) == ("failed", shown, "why")
    assert await local(api, failed["resultUrl"]) == {
        "jobId": prefixed_id(job["job_id"]),
        "status": "failed",
        "error": shown,
        "message": "why",
        "timestamp": seconds(job["finished_at"]),
    }


async def test_files_of_other_jobs_are_missing(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="004")
    done = await ended_job(api, await api.submit("echo"))
    failed = await ended_job(api, await api.submit("fail"))
    for job_id, name in (
        (prefixed_id(done["job_id"]), "error"),
        (failed["job_id"], "result"),
        ("x", "result"),
    ):
        missing = await api.get(f"/api/results/{job_id}/{name}.json")
        assert missing.status == 404


async def test_a_job_that_runs_at_a_shutdown_is_failed_where_its_type_says_so(
    serve: Serve, client: Connect
) -> None:
    @handler("cut", on_shutdown="fail")
    async def cut(context: Context, payload: Any) -> None:
        await asyncio.Event().wait()

    service = await serve(cut, drain_s=0)
    job = await service.submit("cut")
    await job_when(service, job.job_id, lambda job: job.status == "running")
    await service.close()
    api = await client(cut, dialects="004", concurrency=0)
    failed = await status_of(api, {"job_id": job.job_id})
    assert (failed["status"], failed["error"]) == ("failed", "worker_shutdown")


@handler("secret", sensitive=("code",), max_attempts=1)
async def secret(context: Context, payload: dict[str, str]) -> None:
    raise JobError("broken", f"{payload['code']} is wrong")


async def test_sensitive_values_are_for_the_owner_in_the_error_too(client: Connect) -> None:
    api = await client(secret, dialects="004", auth="required")
    ann = bearer(await make_key(api.service, owner="ann"))
    root = bearer(await make_key(api.service, ADMIN, owner="root"))
    body = {"type": "secret", "payload": {"code": "not-for-all"}}
    job_id = (await api("POST", "/v1/jobs", body, headers=ann)).json["job_id"]
    await api.service.wait(job_id)
    for key, seen in ((ann, True), (root, False)):
        for path in (f"/api/job-status/{prefixed_id(job_id)}", f"/api/results/{job_id}/error.json"):
            reply = await api.get(path, **key)
            assert reply.status == 200
            assert ("not-for-all" in reply.body.decode()) == seen

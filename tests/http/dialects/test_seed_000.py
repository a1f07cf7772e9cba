"""The front end of a "Check Status" button."""

from typing import Any
from uuid import uuid4

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS, ended_job
from tests.support.keys import ADMIN, bearer, make_key

MISSING = "00000000-0000-0000-0000-000000000000"


async def test_a_text_is_queued_and_its_status_is_read(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo")
    queued = await api("POST", "/api/queue-job", {"text": "Test protocol", "ta": "oncology"})
    assert queued.status == 200
    assert set(queued.json) == {"job_id", "status", "created_at"}
    assert queued.json["status"] == "queued"
    await ended_job(api, queued.json)
    status = await api.get(f"/api/job-status/{queued.json['job_id']}")
    assert status.json == {
        "job_id": queued.json["job_id"],
        "status": "completed",
        "created_at": queued.json["created_at"],
        "updated_at": status.json["updated_at"],
        "payload": {"text": "Test protocol", "ta": "oncology"},
        "result": {"text": "Test protocol", "ta": "oncology"},
        "progress": 100,
    }
    assert "Z" not in status.json["created_at"]


async def test_a_missing_job_and_an_id_that_is_none_have_the_words_of_the_dialect(
    client: Connect,
) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo")
    missing = await api.get(f"/api/job-status/{MISSING}")
    assert missing.status == 404
    assert missing.headers["Content-Type"] == "application/json"
    assert missing.json["detail"] == missing.json["error"] == "Job not found"
    assert missing.json["path"] == f"/api/job-status/{MISSING}"
    wrong = await api.get("/api/job-status/not-a-uuid")
    assert (wrong.status, wrong.json["error"]) == (400, "Invalid job_id format (must be UUID)")


async def test_dialects_are_served_only_where_they_are_switched_on(client: Connect) -> None:
    api = await client(*HANDLERS)
    assert (await api.get(f"/api/job-status/{uuid4()}")).code == "not_found"
    assert "/api/queue-job" not in (await api.get("/openapi.json")).json["paths"]


@handler("secret", sensitive=("text",))
async def echo_secret(context: Context, payload: Any) -> Any:
    return payload


async def test_values_of_sensitive_fields_are_for_the_owner(client: Connect) -> None:
    api = await client(echo_secret, dialects="000", queue_job_type="secret", auth="required")
    ann = bearer(await make_key(api.service, owner="ann"))
    root = bearer(await make_key(api.service, ADMIN, owner="root"))
    queued = await api("POST", "/api/queue-job", {"text": "not for all"}, headers=ann)
    await ended_job(api, queued.json)
    for key, text in ((ann, "not for all"), (root, "[hidden]")):
        status = await api.get(f"/api/job-status/{queued.json['job_id']}", **key)
        assert status.json["payload"] == status.json["result"] == {"text": text}


async def queue(api: Client, *texts: str) -> list[str]:
    """The ids of new jobs."""
    return [(await api("POST", "/api/queue-job", {"text": each})).json["job_id"] for each in texts]


async def test_jobs_are_listed_by_page_and_new_ones_do_not_shift_them(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo", concurrency=0)
    ids = (await queue(api, *"abcde"))[::-1]
    first = (await api.get("/api/jobs?page=1&limit=2")).json
    assert [each["job_id"] for each in first["jobs"]] == ids[:2]
    assert (first["page"], first["limit"], first["has_more"]) == (1, 2, True)
    await queue(api, "f")
    pinned = f"limit=2&as_of={first['as_of']}"
    for page, expected in ((2, ids[2:4]), (3, ids[4:]), (4, [])):
        answer = (await api.get(f"/api/jobs?page={page}&{pinned}")).json
        assert [each["job_id"] for each in answer["jobs"]] == expected
        assert answer["has_more"] == (page == 2)
    for query in ("page=0", "limit=101", "page=1002", "status=gone", "colour=red"):
        assert (await api.get(f"/api/jobs?{query}")).status == 422


async def test_a_job_is_cancelled_by_delete(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo", concurrency=0)
    [job_id] = await queue(api, "a")
    for _ in range(2):
        deleted = await api("DELETE", f"/api/job/{job_id}")
        assert (deleted.status, deleted.json["status"]) == (200, "cancelled")
    failed = (await api.get("/api/jobs?status=failed")).json["jobs"]
    assert [(each["job_id"], each["error_message"]) for each in failed] == [
        (job_id, "Job was cancelled")
    ]
    assert (await api("DELETE", f"/api/job/{MISSING}")).status == 404


async def test_pages_have_the_jobs_of_the_owner(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo", auth="required")
    keys = {name: bearer(await make_key(api.service, owner=name)) for name in ("ann", "bob")}
    for name, expected in (("ann", 1), ("bob", 0)):
        if expected:
            await api("POST", "/api/queue-job", {"text": "a"}, headers=keys[name])
        page = await api("GET", "/api/jobs", headers=keys[name])
        assert len(page.json["jobs"]) == expected

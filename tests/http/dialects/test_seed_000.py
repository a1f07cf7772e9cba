"""The front end of a "Check Status" button."""

from typing import Any
from uuid import uuid4

from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from tests.conftest import Connect
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

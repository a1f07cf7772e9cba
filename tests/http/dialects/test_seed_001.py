"""The front end that reads jobs by their UUID: every body that its description prints."""

import pytest

from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS, ended_job, running_job

MISSING = "00000000-0000-0000-0000-000000000000"


async def test_a_completed_job_has_its_result_and_no_error(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="001")
    job = await ended_job(api, await api.submit("echo", {"suggestions": [{"id": "1"}]}))
    status = await api.get(f"/api/job-status/{job['job_id']}")
    assert status.status == 200
    assert status.json == {
        "job_id": job["job_id"],
        "status": "completed",
        "created_at": job["created_at"].removesuffix("Z"),
        "updated_at": job["updated_at"].removesuffix("Z"),
        "payload": {"suggestions": [{"id": "1"}]},
        "result": {"suggestions": [{"id": "1"}]},
        "progress": 100,
    }


async def test_a_running_job_has_its_progress_in_percent(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="001")
    job_id = (await running_job(api)).rpartition("/")[2]
    status = (await api.get(f"/api/job-status/{job_id}")).json
    assert (status["status"], status["progress"]) == ("running", 50.0)
    assert not {"result", "error_message"} & status.keys()


async def test_failed_and_cancelled_jobs_stop_the_poller_with_a_message(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="001")
    failed = await ended_job(api, await api.submit("fail"))
    status = (await api.get(f"/api/job-status/{failed['job_id']}")).json
    assert (status["status"], status["error_message"]) == ("failed", "ValueError: no")
    path = await running_job(api)
    await api("POST", f"{path}/cancel")
    cancelled = await ended_job(api, {"job_id": path.rpartition("/")[2]})
    status = (await api.get(f"/api/job-status/{cancelled['job_id']}")).json
    assert (status["status"], status["error_message"]) == ("failed", "Job was cancelled")
    assert "result" not in status


@pytest.mark.parametrize(
    ("job_id", "status", "error"),
    [
        (MISSING, 404, "Job not found"),
        ("not-a-uuid", 400, "Invalid job_id format (must be UUID)"),
        ("1%20OR%201=1", 400, "Invalid job_id format (must be UUID)"),
    ],
)
async def test_errors_have_the_three_printed_fields(
    client: Connect, job_id: str, status: int, error: str
) -> None:
    api = await client(*HANDLERS, dialects="001")
    refused = await api.get(f"/api/job-status/{job_id}")
    assert (refused.status, refused.json["error"]) == (status, error)
    assert refused.json["path"] == f"/api/job-status/{job_id}"
    assert "T" in refused.json["timestamp"]
    assert not refused.json["timestamp"].endswith("Z")

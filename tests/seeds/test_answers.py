"""Answers of the dialects that the texts describe in words, and print no body of."""

from pathlib import Path
from uuid import UUID

import pytest

from eventjobs import Service
from eventjobs.demo.cases import analyze_calls, analyze_documents, analyze_with_agent
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS, ended_job
from tests.support.log_lines import capture_logs


@pytest.mark.parametrize(
    "body",
    [
        {"text": "Test"},
        {"text": "Test", "ta": "oncology"},
        {"text": "Test", "mode": "document_truncated"},
        {"text": "Test", "ta": "oncology", "mode": "document_truncated", "user_id_hash": "a1b2"},
    ],
    ids=lambda body: list(body)[-1],
)
async def test_a_text_is_queued_with_each_of_its_fields(
    client: Connect, body: dict[str, str]
) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo", concurrency=0)
    queued = await api("POST", "/api/queue-job", body)
    assert (queued.status, str(UUID(queued.json["job_id"]))) == (200, queued.json["job_id"])
    status = (await api.get(f"/api/job-status/{queued.json['job_id']}")).json
    assert (status["status"], status["progress"], status["payload"]) == ("queued", 0, body)
    assert "result" not in status
    assert "error_message" not in status


async def test_a_job_that_cannot_be_created_is_a_server_error(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo", concurrency=0)
    with capture_logs():  # the views stop, with an error in the log
        await api.service.log.close()
        refused = await api("POST", "/api/queue-job", {"text": "Test"})
    assert refused.status == 503  # this front end takes all from 500 on alike
    assert refused.json["error"] == refused.json["detail"]


async def test_health_answers_after_a_deployment(client: Connect) -> None:
    api = await client(*HANDLERS, dialects="000", queue_job_type="echo")
    health = await api.get("/health")
    assert (health.status, health.json) == (200, {"status": "healthy"})


async def test_the_data_directory_is_made_on_the_first_run(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there"
    async with Service(data, list(HANDLERS)) as service:
        await service.submit("echo")
    assert any(data.iterdir())


@pytest.mark.parametrize(
    "path",
    ["/vapi/re-analyze-call/{id}", "/cases/{id}/analyze-with-agent"],
)
@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_each_path_of_003_answers_with_a_job(client: Connect, prefix: str, path: str) -> None:
    api = await client(
        analyze_calls, analyze_documents, analyze_with_agent, dialects="003", queue_job_type="echo"
    )
    accepted = await api("POST", prefix + path.format(id="123"))
    assert accepted.status == 200
    assert accepted.json == {
        "status": "accepted",
        "job_id": accepted.json["job_id"],
        "poll_url": f"/jobs/{accepted.json['job_id']}",
        "message": "Job created. Poll for status.",
    }
    await ended_job(api, accepted.json)
    job = (await api.get(accepted.json["poll_url"])).json
    assert (job["status"], job["result"]["case_id"]) == ("completed", "123")


@pytest.mark.parametrize("id", ["abc-123-def-456", "job_abc123", "123", "x" * 300])
@pytest.mark.parametrize("path", ["/api/jobs/", "/jobs/"])
async def test_an_id_of_any_form_is_not_found(client: Connect, path: str, id: str) -> None:
    api = await client(*HANDLERS, dialects="003")
    missing = await api.get(path + id)
    assert (missing.status, missing.json["detail"]) == (404, "Job not found")

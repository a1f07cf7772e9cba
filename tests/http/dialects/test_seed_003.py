"""The front end of case analyses: a POST to a case's path, and polls of the job."""

from typing import Any

import pytest

from eventjobs.auth.principals import Scope
from eventjobs.demo.cases import analyze_calls, analyze_documents, analyze_with_agent
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.http_jobs import ended_job
from tests.support.keys import bearer, make_key

CASES = (analyze_documents, analyze_calls, analyze_with_agent)


@handler("document_analysis_form7801")
async def hopeless(context: Context, payload: Any) -> None:
    raise ValueError("no such case")


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_an_analysis_is_submitted_and_polled(client: Connect, prefix: str) -> None:
    api = await client(*CASES, dialects="003")
    accepted = await api("POST", f"{prefix}/cases/123/analyze-documents-form7801")
    job_id = accepted.json["job_id"]
    assert (accepted.status, accepted.json) == (
        200,
        {
            "status": "accepted",
            "job_id": job_id,
            "poll_url": f"/jobs/{job_id}",
            "message": "Job created. Poll for status.",
        },
    )
    await ended_job(api, accepted.json)
    job = (await api.get(f"{prefix}{accepted.json['poll_url']}")).json
    assert job["created_at"].endswith("Z")
    assert job["started_at"] <= job["completed_at"]
    assert {name: job[name] for name in ("job_type", "status", "progress", "error")} == {
        "job_type": "document_analysis_form7801",
        "status": "completed",
        "progress": 100,
        "error": None,
    }
    assert (job["result"]["case_id"], job["result"]["documents_analyzed"]) == ("123", 3)


async def test_the_states_have_the_words_of_the_front_end(client: Connect) -> None:
    api = await client(*CASES, dialects="003", concurrency=0)
    accepted = (await api("POST", "/cases/1/analyze-with-agent")).json
    job = (await api.get(accepted["poll_url"])).json
    assert (job["status"], job["progress"], job["progress_message"]) == ("pending", 0, None)
    assert (job["result"], job["started_at"], job["completed_at"]) == (None, None, None)
    await api("POST", f"/v1/jobs/{job['job_id']}/cancel")
    job = (await api.get(accepted["poll_url"])).json
    assert (job["status"], job["error"]) == ("failed", "Job was cancelled")
    await api("DELETE", f"/v1/jobs/{job['job_id']}")
    hidden = await api.get(accepted["poll_url"])
    assert (hidden.status, hidden.json["detail"]) == (404, "Job not found")


async def test_a_failed_job_has_its_error_as_text(client: Connect) -> None:
    api = await client(hopeless, analyze_calls, analyze_with_agent, dialects="003", max_attempts=1)
    accepted = (await api("POST", "/cases/1/analyze-documents-form7801")).json
    await ended_job(api, accepted)
    job = (await api.get(accepted["poll_url"])).json
    assert (job["status"], job["error"]) == ("failed", "ValueError: no such case")


async def test_users_see_their_own_jobs_and_administrators_all(client: Connect) -> None:
    api = await client(*CASES, dialects="003", auth="required", concurrency=0)
    keys = {name: bearer(await make_key(api.service, owner=name)) for name in ("ann", "bob")}
    keys["ops"] = bearer(await make_key(api.service, [Scope.ADMIN], owner="ops"))
    path = "/cases/1/analyze-documents-form7801"
    assert (await api("POST", path)).status == 401
    accepted = (await api("POST", path, headers=keys["ann"])).json
    for name, status in (("ann", 200), ("bob", 404), ("ops", 200)):
        assert (await api("GET", accepted["poll_url"], headers=keys[name])).status == status


async def test_paths_are_declared_in_the_settings(client: Connect) -> None:
    declared = '[{"path": "/orders/{order}/bill/{part}", "type": "agent_analysis",'
    declared += ' "payload": {"case_id": "{order}-{part}"}}]'
    api = await client(*CASES, dialects="003", domain_routes=declared)
    accepted = (await api("POST", "/api/orders/17/bill/last")).json
    await ended_job(api, accepted)
    assert (await api.get(accepted["poll_url"])).json["result"]["case_id"] == "17-last"
    assert (await api("POST", "/cases/1/analyze-with-agent")).status == 404
    for path in ("/v1/jobs", "cases", "/cases/{Case}", "/a b", "/api/x"):
        with pytest.raises(ValueError, match="path"):
            Settings(domain_routes=[{"path": path, "type": "x"}])


async def test_a_part_of_a_path_is_text_whatever_it_holds(client: Connect) -> None:
    api = await client(*CASES, dialects="003")
    accepted = (await api("POST", "/cases/%22%0A%00/analyze-with-agent")).json
    await ended_job(api, accepted)
    assert (await api.get(accepted["poll_url"])).json["result"]["case_id"] == '"\n\0'

"""The module that polls, in pages of the service and of another origin, in a real browser."""

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page

from tests.browser.test_cors import app
from tests.conftest import Connect
from tests.support.http_jobs import echo, fail
from tests.support.keys import make_key

__all__ = ["app"]

SCRIPT = """
async ([url, path, options]) => {
  const { poll } = await import(`${url}/poll.js`);
  const seen = [];
  const onStatus = (job) => seen.push(job.status);
  try {
    return { seen, job: await poll(url + path, { ...options, onStatus }) };
  } catch (error) {
    return { seen, error: [error.name, error.status, error.message] };
  }
}
"""


@pytest.mark.parametrize("origin", ["same", "other"])
async def test_pages_poll(page: Page, app: str, client: Connect, origin: str) -> None:
    api = await client(echo, fail, auth="required", dialects="all", cors_origins=app)
    token = await make_key(api.service)
    headers = {"Authorization": f"Bearer {token}"}
    await page.goto(app if origin == "other" else f"{api.listening.url}/login")
    for type, status in (("echo", "completed"), ("fail", "failed")):
        job = (await api("POST", "/v1/jobs", {"type": type}, headers=headers)).json
        for path in ("/v1/jobs/", "/api/jobs/", "/api/job-status/"):
            read = await page.evaluate(
                SCRIPT, [api.listening.url, path + job["job_id"], {"token": token}]
            )
            assert (read["job"]["status"], read["seen"][-1]) == (status, status), path
    unknown = "/api/jobs/00000000-0000-4000-8000-000000000000"
    read = await page.evaluate(SCRIPT, [api.listening.url, unknown, {"token": token}])
    assert read == {"seen": [], "error": ["PollError", 404, "Job not found"]}
    read = await page.evaluate(SCRIPT, [api.listening.url, unknown, {}])
    assert read["error"][1] == 401


async def test_a_page_sees_the_end_through_the_stream(
    page: Page, app: str, client: Connect
) -> None:
    api = await client(echo, concurrency=0, dialects="all", cors_origins=app)
    job_id: Any = (await api("POST", "/v1/jobs", {"type": "echo"})).json["job_id"]
    await page.goto(app)
    arguments = [api.listening.url, f"/api/jobs/{job_id}", {"delays": [3600]}]
    polling = asyncio.create_task(page.evaluate(SCRIPT, arguments))
    async with page.expect_response("**/v1/jobs/*"):
        pass
    await api("POST", f"/v1/jobs/{job_id}/cancel")
    read = await polling
    assert read["seen"] == ["pending", "failed"]
    assert read["job"]["error"] == "Job was cancelled"

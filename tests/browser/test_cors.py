"""A page of another origin, in a real browser."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page

from tests.conftest import Connect
from tests.support.keys import make_key
from tests.support.sessions import open_client

#: Submits a job, reads it as a stream, and returns what the page could read.
SCRIPT = """
async ([url, key]) => {
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json" };
  const send = (path, options) => fetch(url + path, { headers, ...options });
  try {
    const submitted = await send("/v1/jobs", { method: "POST", body: '{"type": "echo"}' });
    const job = await submitted.json();
    const Accept = "text/event-stream";
    const stream = await send(`/v1/jobs/${job.job_id}`, { headers: { ...headers, Accept } });
    const { value } = await stream.body.getReader().read();
    const cookies = await send("/v1/jobs", { credentials: "include" }).catch(() => "refused");
    const etag = submitted.headers.get("ETag");
    return { etag, frame: new TextDecoder().decode(value), cookies, job };
  } catch (error) {
    return { error: error.name };
  }
}
"""


@pytest.fixture
async def app() -> AsyncIterator[str]:
    """The origin of an empty page, which is of another site than the service."""

    async def empty(request: web.Request) -> web.Response:
        return web.Response(content_type="text/html")

    application = web.Application()
    application.router.add_get("/", empty)
    async with TestServer(application) as server:
        yield f"http://localhost:{server.port}"


async def try_api(page: Page, app: str, client: Connect, **settings: Any) -> Any:
    """What a page of *app* can read."""
    api = await open_client(client, **settings)
    await page.goto(app)
    return await page.evaluate(SCRIPT, [api.listening.url, await make_key(api.service)])


async def test_a_page_of_a_listed_origin_uses_a_key(page: Page, app: str, client: Connect) -> None:
    read = await try_api(page, app, client, cors_origins=app)
    assert read["etag"] == '"1"'
    assert read["frame"].startswith("retry: ")
    assert read["job"]["status"] == "queued"
    assert read["cookies"] == "refused"


async def test_a_page_of_another_origin_cannot_use_a_key(
    page: Page, app: str, client: Connect
) -> None:
    assert await try_api(page, app, client) == {"error": "TypeError"}

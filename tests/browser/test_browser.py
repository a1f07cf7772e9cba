"""The dashboard in a real browser."""

import signal
from pathlib import Path

from playwright.async_api import Page, expect

from eventjobs.client import Client
from tests.support.servers import serving, start

FAILS = """
from eventjobs import handler

@handler("fails", max_attempts=1)
async def fails(context, payload):
    raise LookupError("<b>no such thing")
"""


async def test_a_job_appears_moves_and_ends_without_a_reload(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path, "--demo") as server:
        await page.goto(server.url)
        await expect(page.locator("#connection")).to_have_text("live")
        async with Client(server.url) as client:
            await client.submit("countdown", {"steps": 5, "interval_s": 0.05})
        row = page.locator("#jobs tr")
        await expect(row).to_have_attribute("data-status", "completed")
        await expect(row.locator("progress")).to_have_js_property("value", 100)
        await row.click()
        await expect(page.locator("#history li").last).to_contain_text("completed by attempt 1")


async def test_where_a_handler_failed_is_shown(page: Page, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    with serving(tmp_path, "--app", "fails", PYTHONPATH=str(tmp_path)) as server:
        await page.goto(server.url)
        async with Client(server.url) as client:
            await client.submit("fails")
        row = page.locator("#jobs tr")
        await expect(row).to_have_attribute("data-status", "failed")
        await row.click()
        await expect(page.locator("#history pre")).to_contain_text("LookupError: <b>no such thing")


async def test_a_job_is_cancelled_from_the_page(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path, "--demo") as server:
        await page.goto(server.url)
        async with Client(server.url) as client:
            await client.submit("countdown", {"steps": 100, "interval_s": 1})
        await page.get_by_role("button", name="cancel").click()
        await expect(page.locator("#jobs tr")).to_have_attribute("data-status", "cancelled")
        await expect(page.get_by_role("button", name="retry")).to_be_visible()
        async with Client(server.url) as client:
            async for job in client.list():
                await client.delete(job["job_id"])
        await expect(page.locator("#jobs tr")).to_have_count(0)


async def test_what_people_wrote_is_text_and_never_markup(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path, "--demo") as server:
        await page.goto(server.url)
        async with Client(server.url) as client:
            text = "<img src=x onerror=alert(1)>"
            job = await client.submit("analyze-text", {"text": text, "mode": text})
            await client.wait(job["job_id"])
        await expect(page.locator("#jobs tr")).to_have_count(1)
        assert await page.locator("#jobs img").count() == 0


async def test_the_page_comes_back_by_itself_after_the_server_was_killed(
    page: Page, tmp_path: Path
) -> None:
    server = start(tmp_path / "data", "--demo")
    port = int(server.url.rsplit(":", 1)[1])
    await page.goto(server.url)
    async with Client(server.url) as client:
        await client.submit("countdown", {"steps": 1, "interval_s": 0})
    await expect(page.locator("#jobs tr")).to_have_attribute("data-status", "completed")
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()
    await expect(page.locator("#connection")).to_have_text("reconnecting")
    again = start(tmp_path / "data", "--demo", port=port)
    try:
        async with Client(again.url) as client:
            await client.submit("noop")
        await expect(page.locator("#connection")).to_have_text("live", timeout=30_000)
        await expect(page.locator("#jobs tr")).to_have_count(2)
    finally:
        again.process.send_signal(signal.SIGTERM)
        assert again.process.wait(30) == 0
        assert again.process.stdout is not None
        again.process.stdout.close()

"""The code of the texts for pages, as it is printed, in a real browser, on one server."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, async_playwright, expect

from eventjobs.http.dialects.job_ids import prefixed_id
from tests.browser.conftest import FLAGS
from tests.seeds.conftest import call, submit, wait
from tests.support.seed_texts import snippets
from tests.support.servers import Server

SNIPPETS = snippets()
REACT = Path(__file__).with_name("react")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
ENDLESS = {"steps": 100, "interval_s": 1}


@pytest.fixture(scope="module")
def jobs(server: Server) -> dict[str, str]:
    """A job in each state, by the state."""
    jobs = {
        "completed": submit(server, "countdown", {"steps": 2, "interval_s": 0.05}),
        "failed": submit(server, "countdown", ENDLESS, timeout_s=0.1, max_attempts=1),
        "cancelled": submit(server, "noop", delay_s=600),
        "expired": submit(server, "noop", ttl_s=0.01),
    }
    call("POST", f"{server.url}/v1/jobs/{jobs['cancelled']}/cancel")
    for state, job_id in jobs.items():
        if state != "expired":
            wait(server, job_id)
    while call("GET", f"{server.url}/v1/jobs/{jobs['expired']}").status != 410:
        pass
    return jobs | {"unknown": UNKNOWN, "running": submit(server, "countdown", ENDLESS)}


#: One browser for all tests, in one loop: to start it takes longer than most of them.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser, server: Server) -> AsyncIterator[Page]:
    """An empty page of the front end, which has the origin of the service."""
    page = await browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def record(message: Any) -> None:
        # A browser reports each response from 400 on.
        if message.type == "error" and "Failed to load resource" not in message.text:
            errors.append(message.text)

    async def show(route: Route) -> None:
        await route.fulfill(content_type="text/html", body="<div id=root></div>")

    page.on("console", record)
    await page.route("**/site", show)
    await page.clock.install()
    await page.goto(f"{server.url}/site")
    yield page
    await page.close()
    assert not errors


# --- the button of 000

FIRST, SECOND = SNIPPETS["000.5"].code.split("\n\n")
FIND, MISSING = SNIPPETS["000.6"].code.split("\n\n")
READ = SNIPPETS["001.13"].code.split("\n\n", 1)[1].replace("// Process job status...", "")

#: checkJobStatus of the texts: its printed parts, in their order.
CHECK_STATUS = f"""
const API_BASE_URL = location.origin;
const toasts = [], failures = [], stopped = [], telemetry = [];
const showToast = (text) => toasts.push(text);
const handleJobStatusError = (id, message) => failures.push(message);
const stopJobPoller = (id) => stopped.push(id);
const getDocumentText = async () => "A protocol";
const analyzeProtocol = () => telemetry.push("analyze");
const CARD = (jobId) => `{SNIPPETS["000.9"].code}`;
const showJobNotFound = (jobId) => {{
    {FIND.split(";")[0]};
    if (card) card.innerHTML = CARD(jobId);
}};
const showJobQueuedMessage = (jobId) => {{
    const card = document.createElement("div");
    card.className = "job-queued-card";
    card.dataset.jobId = jobId;
    card.innerHTML = '<button class="check-status-btn">Check Status</button>';
    card.firstChild.addEventListener("click", () => checkJobStatus(jobId, true));
    document.getElementById("root").append(card);
}};
async function checkJobStatus(jobId, isManualCheck) {{
    let checkStatusBtn;
    {FIND}
    {MISSING}
    {FIRST}
    try {{
        {SNIPPETS["000.4"].code}
        {READ}
        if (response.ok) {{ {SNIPPETS["000.7"].code} }}
    }} catch (error) {{
        {SNIPPETS["000.8"].code}
    }} finally {{
        {SECOND}
    }}
}}
{SNIPPETS["000.10"].code}
"""


@pytest_asyncio.fixture(loop_scope="module")
async def button_page(site: Page) -> Page:
    await site.add_script_tag(content=CHECK_STATUS)
    return site


async def check(page: Page, job_id: str) -> None:
    """Press the button of the job, and wait until it has been restored."""
    await page.evaluate("(id) => showJobQueuedMessage(id)", job_id)
    button = page.locator(f"[data-job-id='{job_id}'] .check-status-btn").first
    await button.click()
    await page.wait_for_function(
        "(id) => !document.querySelector(`[data-job-id='${id}'] [aria-busy]`)"
        " && (toasts.length || stopped.length || failures.length)",
        arg=job_id,
    )


@pytest.mark.parametrize(
    ("state", "toast"),
    [
        ("completed", "Job is completed (100%)."),
        ("failed", "Job is failed."),
        ("cancelled", "Job is failed."),
        ("running", "Job is running"),
    ],
)
async def test_a_status_button_shows_the_state(
    button_page: Page, jobs: dict[str, str], state: str, toast: str
) -> None:
    await check(button_page, jobs[state])
    [shown] = await button_page.evaluate("toasts")
    assert shown.startswith(toast), shown
    assert shown.endswith("Check back in a few minutes.")
    button = button_page.locator(".check-status-btn")
    await expect(button).to_be_enabled()
    await expect(button).to_have_text("Check Status")


@pytest.mark.parametrize("state", ["expired", "unknown"])
async def test_a_job_that_is_gone_has_a_card_that_creates_another(
    button_page: Page, jobs: dict[str, str], state: str
) -> None:
    await check(button_page, jobs[state])
    card = button_page.locator(".job-queued-card")
    await expect(card.locator("h3")).to_contain_text("Job Not Found")
    await expect(card.locator("code")).to_have_text(jobs[state])
    await expect(card).to_contain_text("may have expired or been removed")
    assert await button_page.evaluate("stopped") == [jobs[state]]
    await card.get_by_text("Analyze Again").click()
    assert await button_page.evaluate("telemetry") == ["analyze"]
    await card.get_by_text("Create New Job").click()
    await button_page.wait_for_function("toasts.length")
    assert (await button_page.evaluate("toasts"))[-1] == "New job created successfully!"
    created = button_page.locator(".job-queued-card").last
    assert await created.get_attribute("data-job-id") != jobs[state]
    await expect(button_page.locator(".job-queued-card")).to_have_count(2)


async def test_a_button_is_busy_while_its_job_is_checked_and_a_fetch_ends_after_10_s(
    button_page: Page, jobs: dict[str, str]
) -> None:
    asked = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()

    await button_page.route("**/api/job-status/*", hold)
    await button_page.evaluate("(id) => showJobQueuedMessage(id)", jobs["running"])
    button = button_page.locator(".check-status-btn")
    await button.click()
    await asked.wait()
    await expect(button).to_be_disabled()
    await expect(button).to_have_text("Checking...")
    await expect(button).to_have_attribute("aria-busy", "true")
    await button_page.clock.fast_forward(10_000)
    await expect(button).to_be_enabled()
    await expect(button).to_have_text("Check Status")
    assert await button.get_attribute("aria-busy") is None
    assert await button_page.evaluate("failures") == ["Request timed out"]


async def test_an_error_of_the_server_restores_the_button(
    button_page: Page, jobs: dict[str, str]
) -> None:
    async def fail(route: Route) -> None:
        await route.fulfill(status=503, json={"error": "overloaded"})

    await button_page.route("**/api/job-status/*", fail)
    await check(button_page, jobs["running"])
    assert (await button_page.evaluate("failures"))[0] == "Server error: 503"
    await expect(button_page.locator(".check-status-btn")).to_be_enabled()


async def test_several_jobs_are_on_a_page_and_one_without_a_card_is_a_warning(
    button_page: Page, jobs: dict[str, str]
) -> None:
    for state in ("completed", "failed"):
        await check(button_page, jobs[state])
    assert len(await button_page.evaluate("toasts")) == 2
    async with button_page.expect_console_message() as warned:
        await button_page.evaluate("checkJobStatus('none', true)")
    message = await warned.value
    assert (message.type, message.text) == ("warning", "Job card not found for jobId: none")


# --- the pollers of 003 and 004


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
async def test_a_poller_of_004_stops(site: Page, jobs: dict[str, str], state: str) -> None:
    await site.add_script_tag(content=SNIPPETS["004.9"].code)
    job = await site.evaluate("(id) => pollJobStatus(id)", prefixed_id(jobs[state]))
    assert job["status"] == state


@pytest.mark.parametrize("state", ["expired", "unknown", "running"])
async def test_a_poller_of_004_gives_up(site: Page, jobs: dict[str, str], state: str) -> None:
    await site.add_script_tag(content=SNIPPETS["004.9"].code)
    await site.evaluate(
        "(id) => { pollJobStatus(id).catch((error) => { window.refusal = error.message }) }",
        prefixed_id(jobs[state]),
    )
    while await site.evaluate("window.refusal === undefined"):
        await site.clock.run_for(15_000)
    assert await site.evaluate("refusal") == "Job polling timeout"


async def poll_003(page: Page, start: str) -> str:
    """What the poller of 003 prints or raises, after *start*."""
    await page.evaluate(
        f"""async () => {{
        const token = "YOUR_TOKEN";
        window.end = new Promise((resolve) => {{
            window.console.log = (...words) => resolve(words.map(String).join(" "));
            window.addEventListener("unhandledrejection", (event) => {{
                event.preventDefault();
                resolve(event.reason.message);
            }});
        }});
        {start}
        {SNIPPETS["003.1"].code}
        }}"""
    )
    await page.evaluate("void end.then(() => { window.isOver = true })")
    while not await page.evaluate("window.isOver === true"):
        await page.clock.run_for(2000)
    return str(await page.evaluate("end"))


async def test_a_poller_of_003_prints_the_result(site: Page) -> None:
    assert await poll_003(site, SNIPPETS["003.0"].code) == "Result: [object Object]"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_poller_of_003_raises_the_error_of_a_job(
    site: Page, jobs: dict[str, str], state: str
) -> None:
    message = await poll_003(site, f"const job_id = {jobs[state]!r};")
    expected = "Job was cancelled" if state == "cancelled" else "longer than"
    assert expected in message


# --- the React component of 003


async def mount(page: Page) -> None:
    for name in ("react.production.min.js", "react-dom.production.min.js"):
        await page.add_script_tag(path=REACT / name)
    component = (REACT / "AnalyzeButton.js").read_text()
    await page.add_script_tag(
        content=f"""{{
        const {{ useState, useEffect }} = React;
        {component}
        window.root = ReactDOM.createRoot(document.getElementById("root"));
        root.render(React.createElement(AnalyzeButton, {{ caseId: "123" }}));
        }}"""
    )


async def test_the_component_is_the_one_of_the_text() -> None:
    """AnalyzeButton.js is made of it: `esbuild AnalyzeButton.tsx --target=es2020`."""
    digest = hashlib.sha256(SNIPPETS["003.6"].code.encode()).hexdigest()
    assert digest == "f8bea1e0d07f053a37e6953e34719117e9409926097b7091eaee86d608e1679b"


async def test_a_button_of_react_starts_an_analysis_and_shows_its_end(site: Page) -> None:
    await mount(site)
    await site.get_by_role("button", name="Analyze").click()
    await expect(site.get_by_role("button")).to_be_disabled()
    async with site.expect_response("**/api/jobs/*"):
        await site.clock.run_for(2000)
    status = site.locator("#root div div")
    await expect(status).to_contain_text("%)")
    while await status.inner_text() != "Status: completed (100%)":
        async with site.expect_response("**/api/jobs/*"):
            await site.clock.run_for(2000)
    await assert_it_has_stopped(site)


async def assert_it_has_stopped(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await page.clock.run_for(10_000)
    assert not requests


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_button_of_react_stops_at_a_failure(
    site: Page, jobs: dict[str, str], state: str
) -> None:
    await start_with(site, jobs[state])
    await expect(site.locator("#root div div")).to_contain_text("Status: failed (")
    await assert_it_has_stopped(site)


@pytest.mark.parametrize("state", ["expired", "unknown"])
async def test_a_button_of_react_polls_a_job_that_is_gone_until_its_page_is_left(
    site: Page, jobs: dict[str, str], state: str
) -> None:
    await start_with(site, jobs[state])
    await expect(site.locator("#root div div")).to_have_text("Status: (%)")
    async with site.expect_response("**/api/jobs/*") as response:
        await site.clock.run_for(2000)
    assert (await response.value).status == 404
    await site.evaluate("root.unmount()")
    await assert_it_has_stopped(site)


async def start_with(page: Page, job_id: str) -> None:
    """Press the button; the analysis that it starts is this job."""

    async def accept(route: Route) -> None:
        await route.fulfill(json={"status": "accepted", "job_id": job_id})

    await page.route("**/api/cases/**", accept)
    await mount(page)
    await page.get_by_role("button", name="Analyze").click()
    await expect(page.get_by_role("button")).to_be_disabled()
    async with page.expect_response("**/api/jobs/*"):
        await page.clock.run_for(2000)

"""Logging in and out in a real browser."""

from urllib.parse import quote

from playwright.async_api import Page, expect

from tests.conftest import Connect
from tests.support.keys import make_key
from tests.support.sessions import open_client

LOGIN_ENDED = "Your session has ended. Log in again."


async def fill_in(page: Page, credential: str) -> None:
    await page.get_by_label("API key or token").fill(credential)
    await page.get_by_role("button", name="Log in").click()


async def test_a_key_shows_the_list_live_until_the_logout(page: Page, client: Connect) -> None:
    api = await open_client(client)
    key = await make_key(api.service, owner="alice")
    home = f"{api.listening.url}/"
    await page.goto(f"{home}?x=1#y")
    await expect(page).to_have_url(f"{home}login?next=%2F%3Fx%3D1%23y")
    await expect(page.get_by_text(LOGIN_ENDED)).to_be_hidden()
    await fill_in(page, "unknown")
    await expect(page.get_by_role("alert")).to_contain_text("mistyped, expired or revoked")
    await fill_in(page, f" {key} ")
    await expect(page).to_have_url(f"{home}?x=1#y")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#user span")).to_have_text("alice")
    job = await api.service.submit("echo", owner="alice")
    await expect(page.locator("#jobs tr")).to_have_attribute("data-status", "queued")
    await page.get_by_role("button", name="cancel").click()
    await expect(page.locator("#jobs tr")).to_have_attribute("data-status", "cancelled")
    assert (await api.service.wait(job.job_id)).status == "cancelled"
    await page.get_by_role("button", name="Log out").click()
    await expect(page).to_have_url(f"{home}login")
    assert not await page.context.cookies()
    await page.goto(home)
    await expect(page).to_have_url(f"{home}login?next=%2F")


async def test_an_expired_session_leads_to_the_login(page: Page, client: Connect) -> None:
    api = await open_client(client)
    key = await make_key(api.service, owner="alice")
    home = f"{api.listening.url}/"
    await page.goto(home)
    await fill_in(page, key)
    await expect(page.locator("#connection")).to_have_text("live")
    job = await api.service.submit("echo", owner="alice")
    row = page.locator(f'#jobs tr[data-job-id="{job.job_id}"]')
    await expect(row).to_be_visible()
    cookies = await page.context.cookies()
    session = await api.service.credentials.verify(cookies[0].get("value", ""))
    api.service.credentials.revoke(session.credentials[0], session.expires_us)
    await row.click()
    await expect(page).to_have_url(f"{home}login?next=%2F&ended")
    await expect(page.get_by_text(LOGIN_ENDED)).to_be_visible()


async def test_the_login_leads_to_no_other_site(page: Page, client: Connect) -> None:
    api = await open_client(client)
    key = await make_key(api.service, owner="alice")
    home = f"{api.listening.url}/"
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    for next_page in (
        "//evil.example/x",
        "/\\evil.example/x",
        "/\t/evil.example/x",
        "/.//evil.example/x",
        "https:evil.example/x",
        "javascript:alert(1)",
        f"blob:{home}x",
    ):
        await page.goto(f"{home}login?next={quote(next_page)}")
        await fill_in(page, key)
        await page.wait_for_url(lambda url: "/login" not in url)
        assert page.url.startswith(home), next_page
    assert all(url.startswith((home, "data:")) for url in requested)


async def test_without_a_login_the_page_stays_where_it_is_optional(
    page: Page, client: Connect
) -> None:
    api = await open_client(client, "optional")
    key = await make_key(api.service)
    await page.goto(api.listening.url)
    await expect(page.locator("#connection")).to_have_text("not logged in")
    await page.get_by_role("link", name="Log in").click()
    await page.get_by_role("link", name="Continue without logging in").click()
    await expect(page.locator("#connection")).to_have_text("not logged in")
    await page.goto(f"{api.listening.url}/login")
    await fill_in(page, key)
    await expect(page.locator("#connection")).to_have_text("live")


async def test_without_authentication_the_login_leads_to_the_page(
    page: Page, client: Connect
) -> None:
    api = await open_client(client, "off")
    await page.goto(f"{api.listening.url}/login")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#user")).to_be_hidden()


async def test_a_revoked_key_ends_the_page(page: Page, client: Connect) -> None:
    api = await open_client(client)
    key = await make_key(api.service)
    home = f"{api.listening.url}/"
    await page.goto(home)
    await fill_in(page, key)
    await expect(page.locator("#connection")).to_have_text("live")
    await api.service.api_keys.revoke(key.split("_")[2], actor="test")
    # The stream ends, and the browser reconnects after the delay that the service names.
    await expect(page).to_have_url(f"{home}login?next=%2F&ended", timeout=15_000)
    await expect(page.get_by_text(LOGIN_ENDED)).to_be_visible()
    await fill_in(page, key)
    await expect(page.get_by_role("alert")).to_contain_text("revoked")


async def test_a_key_that_may_not_list_jobs_is_told_so(page: Page, client: Connect) -> None:
    api = await open_client(client)
    await page.goto(api.listening.url)
    await fill_in(page, await make_key(api.service, ["worker:echo"]))
    await expect(page.locator("#connection")).to_contain_text("does not permit")

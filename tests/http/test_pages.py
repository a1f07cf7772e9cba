"""The pages and their files: what a browser is permitted to do with them."""

import re

import pytest

from eventjobs.http.routes import ROUTES
from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS
from tests.support.keys import ADMIN, bearer, make_key


@pytest.mark.parametrize(
    "path",
    ["/", "/login", "/dashboard.js", "/login.js", "/dashboard.css", "/poll.js", "/login?next=/x"],
)
@pytest.mark.parametrize("auth", ["off", "required"])
async def test_a_page_is_public_and_locked_in(client: Connect, path: str, auth: str) -> None:
    api = await client(*HANDLERS, concurrency=0, auth=auth)
    page = await api.get(path)
    assert page.status == 200
    policy = page.headers["Content-Security-Policy"].split("; ")
    for directive in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert directive in policy
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }.items() <= dict(page.headers).items()


@pytest.mark.parametrize("path", ["/", "/login"])
async def test_a_page_has_no_script_or_style_in_it(client: Connect, path: str) -> None:
    text = (await (await client(*HANDLERS, concurrency=0)).get(path)).body.decode()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=\"/[a-z]+\.js\")", text)
    assert not re.search(r"(?:https?:)?//", text)
    assert "name=" not in text.replace('<meta name="viewport"', "")  # a form sends no field


async def test_what_depends_on_the_principal_is_in_no_shared_cache(client: Connect) -> None:
    api = await client(*HANDLERS, auth="required")
    admin = bearer(await make_key(api.service, ADMIN))
    drawn = {"type": "draw", "payload": {"a.svg": ["<svg/>", "image/svg+xml"]}}
    job = (await api("POST", "/v1/jobs", drawn, headers=admin)).json
    await api.service.wait(job["job_id"])
    values = {"id": job["job_id"], "name": "a.svg", "webhook_id": "none"}
    for each in ROUTES:
        if each.method == "GET" and each.action is not None:
            path = each.path.format_map(values)
            for headers in ({}, {"Accept": "text/event-stream", "Last-Event-ID": "9999"}, {}):
                async with api.session.get(path, headers=admin | headers) as reply:
                    assert reply.status in {200, 204} or "none" in path, path
                    control = reply.headers["Cache-Control"]
                    assert {"private", "no-store"} & set(control.split(", ")), path
                    vary = reply.headers["Vary"].removeprefix("Accept, ")
                    assert vary == "Authorization, Cookie", path


async def test_without_a_principal_to_depend_on_nothing_varies(client: Connect) -> None:
    api = await client(*HANDLERS, concurrency=0, auth="required")
    for path in ("/", "/login", "/healthz", "/readyz"):
        assert "Vary" not in (await api.get(path)).headers

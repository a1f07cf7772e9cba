"""The pages and their files: what a browser is permitted to do with them."""

import re

import pytest

from tests.conftest import Connect
from tests.support.http_jobs import HANDLERS


@pytest.mark.parametrize(
    "path", ["/", "/login", "/dashboard.js", "/login.js", "/dashboard.css", "/login?next=/x"]
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

"""A page of another site changes nothing with the cookie of a session (CSRF)."""

import re
from typing import Any

import pytest

from eventjobs.auth.principals import Scope
from eventjobs.http.routes import ROUTES
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.keys import make_key
from tests.support.sessions import log_in, open_client

JOB = b'{"type": "echo"}'

#: What a browser says of a request of a page of another site; older ones say less.
ORIGINS: dict[str, dict[str, str]] = {
    "cross-site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "cross-site, old browser": {"Origin": "https://evil.example"},
    "same-site sub-domain": {"Sec-Fetch-Site": "same-site", "Origin": "http://evil.127.0.0.1"},
    "no Origin": {"Sec-Fetch-Site": "cross-site"},
    "sandboxed frame": {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    "Origin null, old browser": {"Origin": "null"},
    "another port": {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    "another port, old browser": {"Origin": "http://127.0.0.1:1"},
    "a longer host": {"Origin": "http://127.0.0.1.evil.example"},
    "empty Origin": {"Origin": ""},
    "unknown Sec-Fetch-Site": {"Sec-Fetch-Site": "elsewhere"},
    "a navigation": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
}
#: What a page can send without a preflight, and the JSON that it cannot.
BODIES = {
    "form as text": ("text/plain", JOB),
    "form": ("application/x-www-form-urlencoded", b"type=echo"),
    "multipart": ("multipart/form-data; boundary=x", b'--x\r\nname="type"\r\n\r\necho\r\n--x--'),
    "JSON": ("application/json", JOB),
}


async def refuse(api: Client, method: str, path: str, **request: Any) -> tuple[int, str]:
    """Status and code of the refusal; it changed nothing."""
    head = api.service.log.head
    reply = await api(method, path, **request)
    assert api.service.log.head == head
    assert "Access-Control-Allow-Origin" not in reply.headers
    return reply.status, reply.code


@pytest.mark.parametrize("site", ORIGINS)
async def test_a_page_of_another_site_sends_nothing(client: Connect, site: str) -> None:
    api = await open_client(client)
    cookie = await log_in(api)
    job = (await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie)).json
    for media_type, body in BODIES.values():
        headers = cookie | ORIGINS[site] | {"Content-Type": media_type}
        for path in ("/v1/jobs", "/v1/artifacts", "/v1/jobs/batch", "/v1/session"):
            refused = await refuse(api, "POST", path, data=body, headers=headers)
            assert refused == (403, "cross_origin")
    headers = cookie | ORIGINS[site]
    for method, path in (
        ("POST", f"/v1/jobs/{job['job_id']}/cancel"),
        ("DELETE", f"/v1/jobs/{job['job_id']}"),
        ("DELETE", "/v1/session"),
        ("PATCH", "/v1/jobs"),
    ):
        assert await refuse(api, method, path, headers=headers) == (403, "cross_origin")
    assert (await api("GET", "/v1/session", headers=cookie)).status == 200


@pytest.mark.parametrize("name", ["form as text", "form", "multipart"])
async def test_a_form_is_no_body_of_a_session(client: Connect, name: str) -> None:
    """Also from a browser that does not say where the page is from."""
    api = await open_client(client)
    cookie = await log_in(api)
    job = (await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie)).json
    media_type, body = BODIES[name]
    for path in ("/v1/jobs", "/v1/jobs/batch", "/v1/artifacts", job["links"]["self"] + "/cancel"):
        for headers in ({"Content-Type": media_type}, {"Content-Type": media_type.upper()}):
            refused = await refuse(api, "POST", path, data=body, headers=cookie | headers)
            assert refused == (415, "unsupported_media_type"), path


async def test_a_body_without_a_type_is_no_body_of_a_session(client: Connect) -> None:
    api = await open_client(client)
    cookie = (await log_in(api))["Cookie"]
    answer = await api.raw(
        b"POST /v1/artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Length: 2\r\nCookie: " + cookie.encode() + b"\r\n\r\nhi"
    )
    assert answer.startswith(b"HTTP/1.1 415 ")


async def test_the_own_pages_and_programs_use_the_session(client: Connect) -> None:
    api = await open_client(client)
    cookie = await log_in(api)
    here = api.listening.url
    for headers in (
        {},
        {"Origin": here},
        {"Sec-Fetch-Site": "same-origin", "Origin": here},
        {"Sec-Fetch-Site": "none"},
    ):
        reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie | headers)
        assert reply.status == 202
        reply = await api("POST", f"{reply.json['links']['self']}/cancel", headers=cookie | headers)
        assert reply.status == 200


async def test_reading_changes_nothing(client: Connect) -> None:
    """A link or an image of another site sends the cookie with GET."""
    api = await open_client(client)
    cookie = await log_in(api, await make_key(api.service, [Scope.ADMIN]))
    await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie)
    head = api.service.log.head
    for path in {each.path for each in ROUTES}:
        address = re.sub("{.*?}", "00000000-0000-4000-8000-000000000000", path)
        for method in ("GET", "HEAD"):
            await api(method, address, headers=cookie | ORIGINS["cross-site"])
    assert api.service.log.head == head
    assert (await api("GET", "/v1/session", headers=cookie)).status == 200


async def test_a_method_is_not_overridden(client: Connect) -> None:
    api = await open_client(client)
    cookie = await log_in(api)
    job = (await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie)).json
    head = api.service.log.head
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        address, headers = job["links"]["self"], cookie | {name: "DELETE"}
        assert (await api("GET", address, headers=headers)).json["status"] == "queued"
        assert (await api("GET", f"{address}?_method=DELETE", headers=headers)).status == 422
    assert api.service.log.head == head

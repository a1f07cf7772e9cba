"""Pages of other origins use the service only where a setting names the origin."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from eventjobs.http.routes import ROUTES
from tests.conftest import Connect
from tests.support.http_client import Client, Reply
from tests.support.http_jobs import HANDLERS, NOBODY
from tests.support.keys import bearer, make_key
from tests.support.sessions import log_in

APP = "https://app.example.com"
#: What a browser says of a request by a page of APP.
PAGE = {"Origin": APP, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
NDJSON = {"Content-Type": "application/x-ndjson"}
QUESTION = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}


async def open_api(client: Connect, **settings: Any) -> Client:
    return await client(
        *HANDLERS, concurrency=0, **{"auth": "required", "cors_origins": APP, **settings}
    )


def readable(headers: Mapping[str, str]) -> bool:
    """Whether a page of APP may read the response. No other value permits anybody."""
    assert "Access-Control-Allow-Credentials" not in headers
    allowed = headers.get("Access-Control-Allow-Origin")
    assert allowed in {None, APP}
    assert (allowed is None) == ("Access-Control-Expose-Headers" not in headers)
    return allowed is not None


async def test_a_listed_origin_reads_every_kind_of_response(client: Connect) -> None:
    api = await open_api(client)
    key = bearer(await make_key(api.service))
    page = PAGE | key
    submitted = await api("POST", "/v1/jobs", {"type": "echo"}, headers=page)
    address = submitted.json["links"]["self"]
    lines = {"data": b'{"type": "echo"}\n', "headers": page | NDJSON}
    replies: list[tuple[int, Reply]] = [
        (202, submitted),
        (200, await api("GET", address, headers=page)),
        (200, await api("GET", address, headers=page)),  # from memory
        (304, await api("GET", address, headers=page | {"If-None-Match": "*"})),
        (200, await api("GET", "/v1/jobs", headers=page)),
        (200, await api("POST", "/v1/jobs/batch", **lines)),
        (200, await api("GET", "/healthz", headers=PAGE)),
        (401, await api("GET", "/v1/jobs", headers=PAGE)),
        (404, await api("GET", f"/v1/jobs/{NOBODY}", headers=page)),
        (404, await api("GET", "/nothing", headers=page)),
        (405, await api("PATCH", "/v1/jobs", headers=page)),
        (422, await api("POST", "/v1/jobs", {}, headers=page)),
        (417, await api("GET", "/v1/jobs", headers=page | {"Expect": "the-best"})),
    ]
    for status, reply in replies:
        assert reply.status == status, reply.body
        assert readable(reply.headers), status
        assert "Origin" in reply.headers["Vary"]
    assert "ETag" in replies[0][1].headers["Access-Control-Expose-Headers"]
    async with api.session.get(address, headers=page | {"Accept": "text/event-stream"}) as events:
        assert events.status == 200
        assert readable(events.headers)
        assert events.headers["Vary"].split(", ")[-1] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://sub.app.example.com",
        "null",
    ],
)
async def test_another_origin_gets_nothing(client: Connect, origin: str) -> None:
    api = await open_api(client)
    page = PAGE | bearer(await make_key(api.service)) | {"Origin": origin}
    head = api.service.log.head
    assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=page)).code == "cross_origin"
    assert api.service.log.head == head
    for reply in (
        await api("GET", "/v1/jobs", headers=page),
        await api("OPTIONS", "/v1/jobs", headers=page | QUESTION),
    ):
        assert not readable(reply.headers)
        assert reply.headers["Vary"].endswith("Origin")
    assert reply.status == 405


async def test_without_the_setting_no_response_says_anything(client: Connect) -> None:
    api = await open_api(client, cors_origins="")
    page = PAGE | bearer(await make_key(api.service))
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("OPTIONS", "/v1/jobs")):
        reply = await api(method, path, headers=page | QUESTION)
        assert not readable(reply.headers)
        assert "Origin" not in reply.headers.get("Vary", "")


async def test_a_preflight_needs_no_credential_and_names_the_methods(client: Connect) -> None:
    api = await open_api(client)
    for path in {each.path for each in ROUTES}:
        reply = await api("OPTIONS", re.sub("{.*?}", "1", path), headers=PAGE | QUESTION)
        assert (reply.status, reply.body) == (204, b"")
        assert readable(reply.headers)
        methods = {each.method for each in ROUTES if each.path == path}
        methods |= {"HEAD"} if "GET" in methods else set()
        assert set(reply.headers["Access-Control-Allow-Methods"].split(", ")) == methods
        allowed = reply.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"Authorization", "Content-Type", "Idempotency-Key", "If-Match"} <= set(allowed)
        assert reply.headers["Access-Control-Max-Age"] == "600"
        assert reply.headers["Vary"].split(", ")[-1] == "Origin"
    assert (await api("OPTIONS", "/v1/jobs", headers=PAGE)).status == 405  # it asks nothing
    strange = PAGE | QUESTION | {"Host": "evil.example"}
    assert (await api("OPTIONS", "/v1/jobs", headers=strange)).code == "misdirected"


async def test_a_page_of_a_listed_origin_cannot_use_the_session(client: Connect) -> None:
    api = await open_api(client)
    cookie = await log_in(api)
    head = api.service.log.head
    for site in ({}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
        page = {"Origin": APP, **site, **cookie}
        reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=page)
        assert reply.code == "cross_origin"
        reply = await api("DELETE", "/v1/session", headers=page)
        assert reply.code == "cross_origin"
    assert api.service.log.head == head
    key = bearer(await make_key(api.service))
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=PAGE | cookie | key)
    assert reply.status == 202


async def test_a_listed_origin_needs_no_key_without_authentication(client: Connect) -> None:
    api = await open_api(client, auth="off")
    assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=PAGE)).status == 202
    evil = PAGE | {"Origin": "https://evil.example"}
    assert (await api("POST", "/v1/jobs", {"type": "echo"}, headers=evil)).code == "cross_origin"

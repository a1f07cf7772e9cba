"""API keys over HTTP."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema_rs import Draft202012Validator

from eventjobs.tools import audit, replay
from tests.conftest import Connect
from tests.support.http_client import Client, Reply
from tests.support.http_jobs import echo
from tests.support.keys import ADMIN, bearer, make_key


async def open_client(client: Connect) -> tuple[Client, dict[str, str]]:
    """A client of a service that requires keys, and the headers of its admin."""
    api = await client(echo, concurrency=0, auth="required")
    return api, bearer(await make_key(api.service, ADMIN, owner="root"))


async def create(api: Client, admin: dict[str, str], **body: Any) -> Reply:
    return await api("POST", "/v1/keys", {"name": "deploy", **body}, headers=admin)


async def test_a_key_is_shown_once_and_works(client: Connect) -> None:
    api, admin = await open_client(client)
    scopes = ["jobs:submit", "jobs:read"]
    options = {"owner": "ann", "scopes": scopes, "expires_at": "2999-01-01T00:00:00Z"}
    created = await create(api, admin, **options)
    assert created.status == 201
    assert created.headers["Cache-Control"] == "no-store"
    key = created.json.pop("key")
    root, shown = (await api("GET", "/v1/keys", headers=admin)).json["keys"]
    assert shown == {name: value for name, value in created.json.items() if name != "key"}
    assert shown == {
        "key_id": key[7:29],
        "name": "deploy",
        "owner": "ann",
        "scopes": sorted(scopes),
        "created_at": shown["created_at"],
        "actor": f"key:{root['key_id']}",
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "last_used_at": None,
    }
    assert root["last_used_at"] is not None
    reply = await api("POST", "/v1/jobs", {"type": "echo"}, headers=bearer(key))
    assert reply.status == 202
    assert (await api("GET", "/v1/keys", headers=bearer(key))).code == "forbidden"


async def test_a_revoked_key_is_refused(client: Connect) -> None:
    api, admin = await open_client(client)
    created = (await create(api, admin)).json
    path, key = f"/v1/keys/{created['key_id']}", bearer(created["key"])
    assert (await api("GET", "/v1/jobs", headers=key)).status == 200
    assert (await api("DELETE", path, headers=key)).code == "forbidden"
    for _ in range(2):
        assert (await api("DELETE", path, headers=admin)).status == 204
    reply = await api("GET", "/v1/jobs", headers=key)
    assert (reply.status, reply.code) == (401, "invalid_credential")
    assert "revoked" in reply.json["detail"]
    [root] = (await api("GET", "/v1/keys", headers=admin)).json["keys"]
    assert root["owner"] == "root"


async def test_what_is_no_key_is_not_found(client: Connect) -> None:
    api, admin = await open_client(client)
    for key_id in ("x", "0" * 22, "%00", "z" * 22):
        reply = await api("DELETE", f"/v1/keys/{key_id}", headers=admin)
        assert (reply.status, reply.code) == (404, "key_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x" * 201}, "name"),
        ({"owner": "anonymous"}, "owner"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"digest": "0" * 64}, "digest"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(
    client: Connect, body: dict[str, Any], field: str
) -> None:
    api, admin = await open_client(client)
    head = api.service.log.head
    reply = await create(api, admin, **body)
    assert (reply.status, reply.code, reply.fields) == (422, "invalid_input", [field])
    assert api.service.log.head == head


async def test_the_limit_of_keys_is_a_conflict(client: Connect) -> None:
    api = await client(echo, api_keys_max=1)
    assert (await create(api, {})).status == 201, "everybody is an admin while it is off"
    reply = await create(api, {})
    assert (reply.status, reply.code) == (409, "limit_reached")


async def test_keys_are_listed_in_pages(client: Connect) -> None:
    api = await client(echo)
    created = [(await create(api, {}, name=f"key {number}")).json["key_id"] for number in range(5)]
    page = (await api.get("/v1/keys?limit=3")).json
    last = (await api.get(f"/v1/keys?cursor={page['next']}")).json
    assert [each["key_id"] for each in page["keys"] + last["keys"]] == created
    assert last["next"] is None


async def test_the_answers_fit_their_schemas(client: Connect) -> None:
    api = await client(echo)
    spec = (await api.get("/openapi.json")).json
    for answer, name in (
        (await create(api, {}), "CreatedKey"),
        (await api.get("/v1/keys"), "KeyList"),
    ):
        schema = {"$ref": f"#/components/schemas/{name}", "components": spec["components"]}
        Draft202012Validator(schema).validate(answer.json)
    assert "/v1/keys/{key_id}" in spec["paths"]


# --- readers of the log


async def test_events_of_a_key_are_about_no_job(client: Connect, tmp_path: Path) -> None:
    api = await client(echo, concurrency=0)
    key = (await create(api, {})).json
    await api("DELETE", f"/v1/keys/{key['key_id']}")
    job = await api.submit("echo")
    page = (await api.get("/v1/events")).json
    created, revoked, _ = page["events"]
    assert [each["type"] for each in page["events"]] == ["KeyCreated", "KeyRevoked", "JobSubmitted"]
    assert created["data"]["name"] == "deploy"
    assert revoked["job_id"] == created["job_id"]
    assert key["key"] not in orjson.dumps(page).decode()
    for path in ("", "/events", "/history", "/why", "/receipt"):
        assert (await api.get(f"/v1/jobs/{created['job_id']}{path}")).code == "job_not_found"
    reply = await api("PUT", f"/v1/jobs/{created['job_id']}", {"type": "echo"})
    assert (reply.status, reply.code) == (409, "job_exists")
    assert [each["job_id"] for each in (await api.get("/v1/jobs")).json["jobs"]] == [job["job_id"]]
    stream = {"Accept": "text/event-stream"}
    async with api.session.get("/v1/events?after=0", headers=stream) as everything:
        text = b""
        while b"JobSubmitted" not in text:
            text += await everything.content.readline()
        assert text.index(b'"KeyCreated"') < text.index(b'"KeyRevoked"')
    wanted = {"url": "http://127.0.0.1/", "events": ["KeyCreated"]}
    assert (await api("POST", "/v1/webhooks", wanted)).status == 422, "no event of a job"
    await api.service.close()
    data, exported = api.service.settings.data, tmp_path / "export"
    assert await asyncio.to_thread(replay.main, [str(data), "--check"]) == 0
    assert await asyncio.to_thread(audit.main, [str(data), "-o", str(exported)]) == 0
    assert exported.read_text().count('"KeyCreated"') == 1

"""Browsers for tests: services that they log in to, and their cookies."""

from typing import Any

from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.http_jobs import echo
from tests.support.keys import make_key


async def open_client(client: Connect, auth: str = "required", **settings: Any) -> Client:
    """A client of a service with authentication, on which no job runs."""
    return await client(echo, concurrency=0, auth=auth, **settings)


async def log_in(api: Client, key: str | None = None, **headers: str) -> dict[str, str]:
    """The headers of a browser that has logged in; by default with a new key."""
    credential = {"credential": key or await make_key(api.service, owner="alice")}
    reply = await api("POST", "/v1/session", credential, headers=headers)
    assert reply.status == 201, reply.body
    return {"Cookie": reply.headers["Set-Cookie"].partition(";")[0], **headers}

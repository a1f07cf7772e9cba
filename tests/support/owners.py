"""A service with authentication, and its owners."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse

from eventjobs.auth.principals import Scope
from eventjobs.domain.events import JobSubmitted
from tests.conftest import Connect
from tests.support.http_client import Client, Reply
from tests.support.http_jobs import echo
from tests.support.keys import bearer, make_key
from tests.support.remote_worker import FAR

ANN, BOB = "ann", "bob"


class Site:
    """A service with authentication, and requests by owners and others."""

    def __init__(self, api: Client) -> None:
        self.api = api
        self.keys: dict[str, str] = {}

    async def add(self, name: str, *scopes: str) -> str:
        self.keys[name] = await make_key(self.api.service, scopes or None, owner=name)
        return self.keys[name]

    async def send(self, name: str, method: str, path: str, json: Any = None, **more: Any) -> Reply:
        headers = {**bearer(self.keys[name]), **more.pop("headers", {})}
        return await self.api(method, path, json, headers=headers, **more)

    async def get(self, name: str, path: str) -> Reply:
        return await self.send(name, "GET", path)

    async def submit(self, name: str, type: str = "echo", **spec: Any) -> str:
        reply = await self.send(name, "POST", "/v1/jobs", {"type": type, **spec})
        assert reply.status == 202, reply.body
        return str(reply.json["job_id"])

    @asynccontextmanager
    async def stream(self, name: str, path: str) -> AsyncIterator[ClientResponse]:
        headers = {**bearer(self.keys[name]), "Accept": "text/event-stream"}
        async with self.api.session.get(path, headers=headers) as response:
            yield response


async def open_site(client: Connect, *parts: Any, **settings: Any) -> Site:
    parts = parts or (echo, FAR)
    site = Site(await client(*parts, auth="required", **{"concurrency": 0, **settings}))
    for name in (ANN, BOB):
        await site.add(name)
    await site.add("ops", Scope.ADMIN)
    await site.add("audit", Scope.AUDIT)
    return site


async def job_submitted(site: Site) -> None:
    """Return when there is a job."""
    log = site.api.service.log
    head = log.head
    while not any(isinstance(each.event, JobSubmitted) for each in await log.read(0)):
        head = await log.wait(head)


def job_ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.body
    return [each["job_id"] for each in reply.json["jobs"]]


async def until_contains(response: ClientResponse, text: str) -> bytes:
    """What the stream has sent, once *text* is in it."""
    received = b""
    while text.encode() not in received:
        part = await response.content.readany()
        assert part, f"the stream ended without {text!r}: {received!r}"
        received += part
    return received

"""A receiver of webhooks on this machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.support.external_service import http_server
from tests.support.http_client import Client


@dataclass
class Receiver:
    """A server. It responds with each status of *answers*, and then with 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.answers.pop(0) if self.answers else 200
        async with self.came:
            self.got.append((dict(request.headers), body))
            self.came.notify_all()
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"})

    async def has(self, count: int) -> list[Any]:
        """The first *count* messages, once they have arrived."""
        async with self.came:
            await self.came.wait_for(lambda: len(self.got) >= count)
        return [orjson.loads(body) for _, body in self.got]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with http_server(receiver.receive, "POST", "/hook") as port:
        receiver.url = f"http://127.0.0.1:{port}/hook"
        yield receiver


async def subscribe(api: Client, receiver: Receiver, **more: Any) -> Any:
    reply = await api("POST", "/v1/webhooks", {"url": receiver.url, **more})
    assert reply.status == 201, reply.body
    return reply.json


async def deliveries(api: Client, webhook: Any) -> list[Any]:
    reply = await api.get(webhook["links"]["deliveries"])
    jobs: list[Any] = reply.json["jobs"]
    return jobs

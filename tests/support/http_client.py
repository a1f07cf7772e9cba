"""A service over real HTTP, and how tests talk to it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import ClientSession

from eventjobs.http import serve
from eventjobs.http.server import Listening
from eventjobs.service import Service


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """Of a problem, which this has to be."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["request_id"] == self.headers["X-Request-ID"]
        code: str = self.json["code"]
        return code

    @property
    def fields(self) -> list[str]:
        """What a problem says is wrong."""
        return [each["field"] for each in self.json["errors"]]


@dataclass
class Client:
    service: Service
    listening: Listening
    session: ClientSession

    async def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> Reply:
        """Send *json*, or what aiohttp's `data` and `headers` say."""
        if json is not None:
            more["data"] = json if isinstance(json, bytes) else orjson.dumps(json)
            more["headers"] = {"Content-Type": "application/json", **more.get("headers", {})}
        async with self.session.request(method, path, **more) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Reply:
        """*headers* with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self("GET", path, headers=named)

    async def submit(self, type: str, payload: Any = None, **spec: Any) -> Any:
        """The new job, as it was answered."""
        reply = await self("POST", "/v1/jobs", {"type": type, "payload": payload, **spec})
        assert reply.status == 202, reply.body
        return reply.json

    async def somebody_waits(self) -> None:
        """Return when a long poll has come to waiting; the views alone always do."""
        tail = self.service.log._tail
        while not tail._waiting_by_job and len(tail._waiting) < 2:  # noqa: ASYNC110  nobody is told
            await asyncio.sleep(0)

    async def raw(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        address = self.listening.host, self.listening.port
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Client]:
    listening = await serve(service, "127.0.0.1", 0)
    try:
        address = f"http://127.0.0.1:{listening.port}"
        async with ClientSession(address, auto_decompress=False) as session:
            yield Client(service, listening, session)
    finally:
        await listening.close()

"""A service over real HTTP, and a client for tests."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import ClientSession

from eventjobs.http import serve
from eventjobs.http.server import Listening
from eventjobs.http.streams.subscriber import EventWait
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
        """The code of the problem that this answer has to be."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["request_id"] == self.headers["X-Request-ID"]
        code: str = self.json["code"]
        return code

    @property
    def fields(self) -> list[str]:
        """The fields that the problem names."""
        return [each["field"] for each in self.json["errors"]]


@dataclass
class Client:
    service: Service
    listening: Listening
    session: ClientSession

    async def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> Reply:
        """The answer to a request with *json*, or with aiohttp's `data` and `headers`."""
        if json is not None:
            more["data"] = json if isinstance(json, bytes) else orjson.dumps(json)
            more["headers"] = {"Content-Type": "application/json", **more.get("headers", {})}
        async with self.session.request(method, path, **more) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Reply:
        """The answer to a GET; the names of *headers* have _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self("GET", path, headers=named)

    async def submit(self, type: str, payload: Any = None, **spec: Any) -> Any:
        """The JSON of a new job."""
        reply = await self("POST", "/v1/jobs", {"type": type, "payload": payload, **spec})
        assert reply.status == 202, reply.body
        return reply.json

    async def wait_for_long_poll(self) -> None:
        """Return when a long poll waits for events."""
        by_job = self.service.log._tail._waiting_by_job
        events = self.listening.context.streams._events.broadcaster
        while not (by_job or any(isinstance(each, EventWait) for each in events._all())):  # noqa: ASYNC110  a wait has no event
            await asyncio.sleep(0)

    async def wait_for_stream(self) -> None:
        """Return when a stream of events is live."""
        while not self.listening.context.streams._events:  # noqa: ASYNC110  a stream has no event
            await asyncio.sleep(0)

    async def raw(self, data: bytes) -> bytes:
        """All bytes of the server until it closes the connection."""
        address = self.listening.host, self.listening.port
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@asynccontextmanager
async def connect_client(service: Service) -> AsyncIterator[Client]:
    """A client of *service*, which is served on a port of its own."""
    listening = await serve(service, "127.0.0.1", 0)
    try:
        address = f"http://127.0.0.1:{listening.port}"
        async with ClientSession(address, auto_decompress=False) as session:
            yield Client(service, listening, session)
    finally:
        await listening.close()


async def half_closed(listening: Listening, sent: bytes) -> bytes:
    """All bytes that a client receives that sends *sent*, and then ends its side."""
    reader, writer = await asyncio.open_connection(listening.host, listening.port)
    try:
        writer.write(sent)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()

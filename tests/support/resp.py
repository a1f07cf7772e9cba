"""A strict client of the protocol of Redis, and a listener for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from eventjobs.resp import protocol
from eventjobs.resp.server import RespListening, listen
from tests.support.http_client import Client


class ErrorReply(Exception):
    """The reply is an error; its text has the code in front."""


@dataclass
class Redis:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *arguments: str | bytes) -> None:
        encoded = [each.encode() if isinstance(each, str) else each for each in arguments]
        self.writer.write(protocol.bulks(encoded))

    async def __call__(self, *arguments: str | bytes) -> Any:
        """The reply to a command."""
        self.send(*arguments)
        return await self.reply()

    async def error(self, *arguments: str | bytes) -> str:
        """The text of the error that answers a command."""
        try:
            reply = await self(*arguments)
        except ErrorReply as error:
            return str(error)
        raise AssertionError(f"not an error: {reply}")

    async def reply(self) -> Any:
        """The next reply. Raises ErrorReply, and IncompleteReadError at the end."""
        line = await self.reader.readuntil(b"\r\n")
        kind, text = line[:1], line[1:-2]
        if kind == b"*":
            return [await self.reply() for _ in range(int(text))]
        if kind == b"$":
            if text == b"-1":
                return None
            data = await self.reader.readexactly(int(text) + 2)
            assert data.endswith(b"\r\n")
            return data[:-2].decode()
        if kind == b":":
            return int(text)
        if kind == b"-":
            raise ErrorReply(text.decode())
        assert kind == b"+", line
        return text.decode()

    async def is_closed(self) -> bool:
        """Wait for the next byte or the end; whether it is the end."""
        try:
            return not await self.reader.read(1)
        except ConnectionError:
            return True


@dataclass
class RedisSite:
    """A listener, and connections to it that are closed with it."""

    listening: RespListening
    _stack: AsyncExitStack

    async def connect(self) -> Redis:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listening.port)
        self._stack.callback(writer.close)
        return Redis(reader, writer)


@asynccontextmanager
async def serving_redis(api: Client) -> AsyncIterator[RedisSite]:
    """The listener of the service of *api*."""
    listening = await listen(api.listening.context, 0, api.listening.url)
    try:
        async with AsyncExitStack() as stack:
            yield RedisSite(listening, stack)
    finally:
        await listening.close()

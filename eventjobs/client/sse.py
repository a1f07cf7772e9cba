"""Reading server-sent events the way browsers do (WHATWG HTML 9.2)."""

import random
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from eventjobs.clock import Clock, sleep

#: Seconds before the first attempt to reconnect, unless the stream says; doubled up to the last.
RECONNECT_S = 1.0
RECONNECT_MAX_S = 30.0

LINE_END = re.compile(rb"\r\n|\r|\n")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Message:
    """One dispatched event. *id* is the cursor to resume from, which it may have inherited."""

    event: str
    data: str
    id: str


class Broken(Exception):
    """The connection was lost, or the answer is about this moment only: come back later."""


class Parser:
    """One connection's bytes in, cut anywhere; messages out (9.2.6).

    What is unfinished at the end is dropped. *last_id* says where to resume: give it to the parser
    of the next connection.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._after_cr = False  # the line's LF may be the next chunk's first byte
        self._first = True
        self._id = last_id
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that *chunk* completes. Iterate to the end before feeding more."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        *ended, rest = LINE_END.split(chunk)
        for piece in ended:
            line = b"".join([*self._line, piece])
            self._line.clear()
            if self._first:
                line = line.removeprefix(BOM)
                self._first = False
            if line:
                self._read(line.decode("utf-8", "replace"))
            elif (message := self._dispatch()) is not None:
                yield message
        if rest:
            self._line.append(rest)

    def _read(self, line: str) -> None:
        name, _, value = line.partition(":")  # a comment's name is empty
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit() and len(value) < 10:
                self.retry_ms = int(value)

    def _dispatch(self) -> Message | None:
        """An empty line: the id holds from here on, with data or without."""
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        self.last_id = self._id
        return Message(event, "\n".join(data), self._id) if data else None


class EventSource:
    """A stream that is continued where it was whenever it breaks, until the server ends it."""

    def __init__(
        self,
        open: Callable[[str], AbstractAsyncContextManager[aiohttp.ClientResponse]],
        last_id: str,
        clock: Clock,
        lost: Callable[[float], object],
    ) -> None:
        self.last_id = last_id
        self._open = open
        self._clock = clock
        self._lost = lost
        self._reconnect_s = RECONNECT_S
        self._failed = 0

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Every message once. Ends at a 204, or after the message `end`.

        What *open* raises when a stream breaks is Broken; everything else goes to the caller.
        """
        while True:
            try:
                async with self._open(self.last_id) as response:
                    if response.status == HTTPStatus.NO_CONTENT:
                        return
                    async with aclosing(self._read(response)) as messages:
                        async for message in messages:
                            yield message
                            if message.event == "end":
                                return
            except Broken:
                pass
            await self._pause()

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Message, None]:
        parser = Parser(self.last_id)
        async for chunk in response.content.iter_any():
            self._failed = 0
            for message in parser.feed(chunk):
                self.last_id = message.id
                yield message
            self.last_id = parser.last_id
            if parser.retry_ms is not None:
                self._reconnect_s = parser.retry_ms / 1000

    async def _pause(self) -> None:
        """Never sooner than the server asks for, and not all clients at the same moment."""
        longest_s = max(self._reconnect_s, RECONNECT_MAX_S)
        delay_s = min(self._reconnect_s * 2 ** min(self._failed, 10), longest_s)
        delay_s *= random.uniform(1, 1.5)  # noqa: S311
        self._failed += 1
        self._lost(delay_s)
        await sleep(self._clock, delay_s)

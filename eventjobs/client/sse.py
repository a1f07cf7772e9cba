"""Server-sent events, parsed and resumed as browsers do (WHATWG HTML, 9.2)."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from eventjobs.backoff import POSITIVE_JITTER, Backoff
from eventjobs.clock import Clock, sleep

#: Seconds before the first reconnect, if the stream has no `retry`; doubled up to the maximum.
RECONNECT_S = 1.0
RECONNECT_MAX_S = 30.0

LINE_END = re.compile(rb"\r\n|\r|\n")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Message:
    """One dispatched event. *id* is the cursor to resume from: its own, or an earlier one."""

    event: str
    data: str
    id: str


class StreamBroken(Exception):
    """The connection was lost, or the service is not available now: reconnect."""


class Parser:
    """Parses the bytes of one connection, cut anywhere (9.2.6).

    An unfinished message at the end is dropped. *last_id* is the cursor to resume from: the
    parser of the next connection begins with it.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self._line: list[bytes] = []  # the pieces of an unfinished line
        self._after_cr = False  # an LF at the start of the next chunk belongs to this line
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
        *pieces, rest = LINE_END.split(chunk)
        for piece in pieces:
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
        """End a message at an empty line. Its id counts even if it has no data."""
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        self.last_id = self._id
        return Message(event, "\n".join(data), self._id) if data else None


class EventSource:
    """A stream that is resumed from its last message whenever it breaks.

    *open* connects with a Last-Event-ID. It raises StreamBroken to reconnect later; any other
    exception ends the stream. *on_connection_lost* is called with the seconds until then.
    """

    def __init__(
        self,
        open: Callable[[str], AbstractAsyncContextManager[aiohttp.ClientResponse]],
        last_id: str,
        clock: Clock,
        on_connection_lost: Callable[[float], object],
    ) -> None:
        self.last_id = last_id
        self._open = open
        self._clock = clock
        self._on_connection_lost = on_connection_lost
        self._reconnect_s = RECONNECT_S
        self._failures = 0  # since the last byte

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Every message once. Ends at a 204, or after the message `end`."""
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
            except StreamBroken:
                pass
            await self._pause()

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncGenerator[Message, None]:
        parser = Parser(self.last_id)
        async for chunk in response.content.iter_any():
            self._failures = 0
            for message in parser.feed(chunk):
                self.last_id = message.id
                yield message
            self.last_id = parser.last_id
            if parser.retry_ms is not None:
                self._reconnect_s = parser.retry_ms / 1000

    async def _pause(self) -> None:
        """Wait at least as long as the server's `retry`, with jitter between clients."""
        longest_s = max(self._reconnect_s, RECONNECT_MAX_S)
        backoff = Backoff(self._reconnect_s, max_s=longest_s, jitter=POSITIVE_JITTER)
        self._failures += 1
        delay_s = backoff.delay_s(self._failures)
        self._on_connection_lost(delay_s)
        await sleep(self._clock, delay_s)

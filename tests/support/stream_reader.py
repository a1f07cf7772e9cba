"""A strict reader of streams, by RFC 9112 and WHATWG HTML 9.2. It shares no code with eventjobs."""

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson


class Message(NamedTuple):
    """A dispatched event. *id* is its own, or the last one before it."""

    event: str
    data: str
    id: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


def whatwg(stream: bytes, last_id: str = "") -> list[Message]:
    """The messages that a browser dispatches (9.2.6), step by step."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    messages = []
    data, event = "", ""
    for line in re.split("\r\n|\n|\r", text)[:-1]:  # the last one has no end yet
        if not line:
            if data:
                messages.append(Message(event or "message", data.removesuffix("\n"), last_id))
            data, event = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return messages


LINE = re.compile(r"(?:id: (?P<id>0|[1-9]\d*)|retry: (?P<retry>[1-9]\d*)|event: [a-z]+|data: .*|:)")


class Wire:
    """Parses an event stream, cut anywhere. Accepts only what this service writes."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.blocks = 0
        self.beats = 0
        self.retries: list[int] = []
        self._rest = b""
        self._floor = int(last_id) if re.fullmatch(r"[0-9]+", last_id) else 0

    def feed(self, data: bytes) -> list[Message]:
        assert b"\r" not in data, f"a carriage return in {data!r}"
        assert b"\0" not in data, f"a null character in {data!r}"
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        return [message for block in blocks for message in self._read(block)]

    @property
    def unfinished(self) -> bytes:
        return self._rest

    def _read(self, block: bytes) -> list[Message]:
        self.blocks += 1
        lines = block.decode().split("\n")  # raises for what is no UTF-8
        names = []
        for line in lines:
            match = LINE.fullmatch(line)
            assert match is not None, f"no line of this service: {line!r}"
            names.append(line.partition(":")[0])
            if (retry := match["retry"]) is not None:
                self.retries.append(int(retry))
        assert names in ORDERS, f"no block of this service: {block!r}"
        self.beats += names == [""]
        messages = whatwg(block + b"\n\n", self.last_id)
        if "id" in names:
            self.last_id = lines[0].removeprefix("id: ")
            assert int(self.last_id) >= self._floor, "ids go back"
            self._floor = int(self.last_id)
        if any(each.event == "reset" for each in messages):
            self._floor = 0
        return messages


ORDERS = (
    ["id", "event", "data"],  # what is in the log
    ["id"],  # a cursor alone
    ["event", "data"],  # what is not in the log: reset, end
    ["retry"],
    ["retry", ""],
    [""],
)


class Chunks:
    """The body of a chunked response (RFC 9112, 7.1), without extensions and trailers."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._left: int | None = None  # missing bytes of the chunk, without its CRLF
        self._last = False

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in *data*, those of an unfinished chunk included."""
        self._rest += data
        body = []
        while self._rest:
            assert not self.ended, f"after the end: {self._rest!r}"
            if self._left is None:
                size, separator, rest = self._rest.partition(b"\r\n")
                if not separator:
                    assert len(self._rest) < 10, f"no chunk: {self._rest!r}"
                    break
                assert re.fullmatch(rb"[0-9a-f]{1,8}", size), f"no size of a chunk: {size!r}"
                self._left, self._rest = int(size, 16), rest
                self._last = self._left == 0
            elif self._left > 0:
                part = self._rest[: self._left]
                self._left -= len(part)
                self._rest = self._rest[len(part) :]
                body.append(part)
            else:
                if len(self._rest) < 2:
                    break
                assert self._rest.startswith(b"\r\n"), f"no end of a chunk: {self._rest!r}"
                self._left, self._rest, self.ended = None, self._rest[2:], self._last
        return b"".join(body)


@dataclass
class Head:
    """Status line and headers."""

    status: int
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> "Head":
        first, *lines = raw.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [A-Za-z ]+", first)
        assert match is not None, f"no status line: {first!r}"
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon, f"no header: {line!r}"
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        return cls(int(match[1]), headers)


def request(
    path: str,
    *,
    last_id: str | None = None,
    method: str = "GET",
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    sent = {"Host": "localhost", "Accept": "text/event-stream", **(headers or {})}
    if last_id is not None:
        sent["Last-Event-ID"] = last_id
    lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {sent[name]}" for name in sent)]
    return "\r\n".join([*lines, "", ""]).encode()


class Stream:
    """One connection to a stream. It reads only when a method is called."""

    def __init__(
        self,
        head: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        last_id: str,
        *,
        keep: bool,
    ) -> None:
        self.status, self.headers = head.status, head.headers
        self.wire = Wire(last_id)
        self.raw = b""  # the bytes of the body that were read
        self._chunks = Chunks() if "transfer-encoding" in head.headers else None
        self._reader, self._writer = reader, writer
        self._keep = keep
        self._read: list[Message] = []
        self._closed = False

    @classmethod
    async def open(
        cls, port: int, path: str, *, limit: int = 2**16, keep: bool = False, **options: Any
    ) -> "Stream":
        """Send the request, and read the headers of the response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        writer.write(request(path, **options))
        try:
            head = Head.parse(await reader.readuntil(b"\r\n\r\n"))
        except BaseException:
            writer.transport.abort()
            raise
        return cls(head, reader, writer, options.get("last_id") or "", keep=keep)

    def send(self, data: bytes) -> None:
        """Send bytes after the request."""
        self._writer.write(data)

    @property
    def ended(self) -> bool:
        """Whether the server has ended the response."""
        return self._closed if self._chunks is None else self._chunks.ended

    @property
    def last_id(self) -> str:
        return self.wire.last_id

    async def message(self) -> Message | None:
        """The next message; None when the response or the connection ends."""
        while not self._read:
            if not await self.more():
                return None
        return self._read.pop(0)

    async def messages(self, count: int) -> list[Message]:
        """*count* messages; fewer only when the stream ends."""
        read: list[Message] = []
        while len(read) < count and (message := await self.message()) is not None:
            read.append(message)
        return read

    async def rest(self) -> list[Message]:
        """All messages up to the end."""
        while await self.more():
            pass
        return self.take()

    def take(self) -> list[Message]:
        """The messages that were read since the last call."""
        messages, self._read = self._read, []
        return messages

    async def more(self) -> bool:
        """Wait for bytes and read them. False at the end."""
        if self._chunks is not None and self._chunks.ended:
            return False
        try:
            data = await self._reader.read(2**16)
        except ConnectionError:
            data = b""
        self._closed = not data
        body = self._chunks.feed(data) if self._chunks is not None else data
        if self._keep:
            self.raw += body
        if self.headers.get("content-type") == "text/event-stream":
            self._read += self.wire.feed(body)
        else:
            self.raw += b"" if self._keep else body
        return bool(data)

    async def beat(self) -> None:
        """Read until a heartbeat."""
        beats = self.wire.beats
        while self.wire.beats == beats:
            assert await self.more(), "the stream ended"

    def drop(self) -> None:
        """Abort the connection, as a browser does whose tab is closed."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def positions(messages: Iterable[Message]) -> list[int]:
    """The positions of the events among *messages*: the id, which the data repeats."""
    positions = []
    for message in messages:
        if message.event == "event":
            assert message.json["position"] == int(message.id)
            positions.append(int(message.id))
    return positions

"""How the stream tests read: by the letter of RFC 9112 and WHATWG HTML 9.2, lenient in nothing.

It shares no code with eventjobs. What it takes in is tried at the end of this file.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import pytest


class Message(NamedTuple):
    """A dispatched event; *id* is the last one given, by this message or before it."""

    event: str
    data: str
    id: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.data)


def whatwg(stream: bytes, last_id: str = "") -> list[Message]:
    """What a browser dispatches (9.2.6), written down step by step."""
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
    """An event stream as this service writes it, and no other way; cut anywhere."""

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
            found = LINE.fullmatch(line)
            assert found is not None, f"no line of ours: {line!r}"
            names.append(line.partition(":")[0])
            if (retry := found["retry"]) is not None:
                self.retries.append(int(retry))
        assert names in ORDERS, f"no block of ours: {block!r}"
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
    ["event", "data"],  # what is not: reset, end
    ["retry"],
    ["retry", ""],
    [""],
)


class Chunks:
    """The body of a chunked response (RFC 9112, 7.1), without extensions and trailers."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._left: int | None = None  # bytes of the chunk that are still to come, CRLF not counted
        self._last = False

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in *data*; of a chunk that is not whole yet, what is there."""
        self._rest += data
        body = []
        while self._rest:
            assert not self.ended, f"after the end: {self._rest!r}"
            if self._left is None:
                size, found, rest = self._rest.partition(b"\r\n")
                if not found:
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
        found = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [A-Za-z ]+", first)
        assert found is not None, f"no status line: {first!r}"
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon, f"no header: {line!r}"
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value
        return cls(int(found[1]), headers)


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
    """One connection to a stream. It is read only when it is asked to."""

    def __init__(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last_id: str
    ) -> None:
        self.status, self.headers = head.status, head.headers
        self.wire = Wire(last_id)
        self.raw = b""  # of the body, as far as it was read
        self._chunks = Chunks() if "transfer-encoding" in head.headers else None
        self._reader, self._writer = reader, writer
        self._read: list[Message] = []
        self._closed = False

    @classmethod
    async def open(
        cls, port: int, path: str, *, limit: int = 2**16, keep: bool = False, **told: Any
    ) -> "Stream":
        """Send the request, and read the headers of what comes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
        writer.write(request(path, **told))
        try:
            head = Head.parse(await reader.readuntil(b"\r\n\r\n"))
        except BaseException:
            writer.transport.abort()
            raise
        stream = cls(head, reader, writer, told.get("last_id") or "")
        stream._keep = keep
        return stream

    _keep = False

    @property
    def ended(self) -> bool:
        """Whether the server said that this was all."""
        return self._closed if self._chunks is None else self._chunks.ended

    @property
    def last_id(self) -> str:
        return self.wire.last_id

    async def message(self) -> Message | None:
        """The next one; None at the end, whichever end that is."""
        while not self._read:
            if not await self.more():
                return None
        return self._read.pop(0)

    async def messages(self, count: int) -> list[Message]:
        """So many; fewer only when it ends."""
        read: list[Message] = []
        while len(read) < count and (message := await self.message()) is not None:
            read.append(message)
        return read

    async def rest(self) -> list[Message]:
        """All, up to the end."""
        while await self.more():
            pass
        return self.taken()

    def taken(self) -> list[Message]:
        """What was read so far, and not taken yet."""
        taken, self._read = self._read, []
        return taken

    async def more(self) -> bool:
        """Read what is there, or wait for it; whether there was something."""
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
        """Read on until a heartbeat has come."""
        beats = self.wire.beats
        while self.wire.beats == beats:
            assert await self.more(), "the stream ended"

    def drop(self) -> None:
        """Vanish, like a browser whose tab is closed."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        with suppress(ConnectionError):
            await self._writer.wait_closed()


def positions(messages: Iterable[Message]) -> list[int]:
    """Where the facts among *messages* stand; each says so twice, and alike."""
    told = []
    for message in messages:
        if message.event == "event":
            assert message.json["position"] == int(message.id)
            told.append(int(message.id))
    return told


# --- the reader itself


def test_the_reader_dispatches_as_a_browser_does() -> None:
    stream = (
        b"\xef\xbb\xbf: hello\n\nretry: 5\n\n"
        b"id: 1\nevent: job\ndata: a\rdata:b\r\ndata\n\n"
        b"id: 2\n\ndata: x\n\nid: 3\0\ndata:  y\n\nid: 4\ndata: lost"
    )
    assert whatwg(stream) == [
        Message("job", "a\nb\n", "1"),
        Message("message", "x", "2"),
        Message("message", " y", "2"),
    ]


def test_the_reader_takes_what_the_service_writes_however_it_is_cut() -> None:
    body = 'retry: 9\n:\n\nid: 7\nevent: job\ndata: "\u2028é"\n\n:\n\nid: 8\n\n'.encode()
    whole = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:30], body[30:], b""))
    for cut in range(1, 20):
        wire, chunks = Wire(), Chunks()
        parts = [whole[at : at + cut] for at in range(0, len(whole), cut)]
        read = [each for part in parts for each in wire.feed(chunks.feed(part))]
        assert read == [Message("job", '"\u2028é"', "7")]
        assert (wire.last_id, wire.retries, wire.beats, chunks.ended) == ("8", [9], 1, True)


@pytest.mark.parametrize(
    "bad",
    [
        b"id: 1\r\n\n",
        b"data: a\0\n\n",
        b"id:1\nevent: job\ndata: {}\n\n",
        b"id: x\nevent: job\ndata: {}\n\n",
        b"id: 01\n\n",
        b"event: job\ndata: {}\nid: 1\n\n",
        b"id: 1\ndata: {}\n\n",
        b"id: 1\nevent: job\ndata: {}\ndata: {}\n\n",
        b"\n\n",
        b"foo: bar\n\n",
        b"id: 2\n\nid: 1\n\n",
        b"event: end\ndata: \xff\n\n",
    ],
)
def test_the_reader_takes_nothing_else(bad: bytes) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        Wire().feed(bad)


@pytest.mark.parametrize(
    "bad", [b"5;x=y\r\nhello\r\n", b"5\r\nhelloXX", b"A\r\n", b"0\r\n\r\n0", b"hello world"]
)
def test_the_reader_takes_no_chunks_that_are_none(bad: bytes) -> None:
    with pytest.raises(AssertionError):
        Chunks().feed(bad)

"""A strict reader of the stream of events (WHATWG HTML, 9.2.6)."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson

from .answers import Malformed

_BLOCK = re.compile(rb"id: (\d+)\nevent: event\ndata: ([^\r\n\0]*)|retry: \d+(?:\n:)?|:")


async def read_events(reader: asyncio.StreamReader, count: int) -> AsyncIterator[dict[str, Any]]:
    """The next *count* events of a response that is not in chunks.

    Raises Malformed for bytes that end a line, a field or the stream for some client.
    """
    while count:
        block = (await reader.readuntil(b"\n\n")).removesuffix(b"\n\n")
        match = _BLOCK.fullmatch(block)
        if match is None:
            raise Malformed(f"no block of the stream: {block!r:.500}")
        if match[1] is not None:
            try:
                event = orjson.loads(match[2])
            except orjson.JSONDecodeError:
                raise Malformed(f"no JSON in {block!r:.500}") from None
            if event["position"] != int(match[1]):
                raise Malformed(f"another position in {block!r:.500}")
            count -= 1
            yield event

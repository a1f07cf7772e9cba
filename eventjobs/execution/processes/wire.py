"""Messages on the socket between the service and a handler process.

A message is its length in four bytes, then a JSON array that begins with its kind.
"""

from io import BufferedReader
from typing import Any

import orjson

from eventjobs.domain.codec import decode, encode
from eventjobs.domain.events import Event

#: Largest message, and so largest result in one: the event loop reads it. Files have no such limit.
MESSAGE_BYTES_MAX = 16 * 2**20


def frame(*message: Any) -> bytes:
    """The bytes of a message."""
    content = orjson.dumps(message)
    return len(content).to_bytes(4) + content


def take_message(received: bytearray) -> list[Any] | None:
    """Remove the first message from *received*, if it is complete.

    Raises ValueError for a message that is too large or no JSON.
    """
    if len(received) < 4:
        return None
    end = 4 + int.from_bytes(received[:4])
    if end > 4 + MESSAGE_BYTES_MAX:
        raise ValueError
    if len(received) < end:
        return None
    content = bytes(received[4:end])
    del received[:end]
    message: list[Any] = orjson.loads(content)
    return message


def read_message(file: BufferedReader) -> Any:
    """Wait for the next message; None at the end."""
    try:
        size = file.read(4)
        content = file.read(int.from_bytes(size)) if len(size) == 4 else b""
    except ConnectionError:
        return None
    return orjson.loads(content) if content else None


def encode_event(event: Event) -> tuple[str, str, str]:
    """An event as three fields of a message."""
    type, facts, body = encode(event)
    return type, facts.decode(), body.decode()


def decode_event(type: str, facts: str, body: str) -> Event:
    """The event of three fields of a message. Raises CorruptLog."""
    return decode(type, facts.encode(), body.encode())

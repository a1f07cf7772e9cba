"""Frames on the pipe between the service and a handler process."""

from typing import Any

import orjson

#: Of one message, and so of a result: the event loop reads it. Files are as large as they like.
MESSAGE_BYTES_MAX = 16 * 2**20


def frame(*message: Any) -> bytes:
    """A message as it goes over the socket: its length in four bytes, then JSON."""
    content = orjson.dumps(message)
    return len(content).to_bytes(4) + content

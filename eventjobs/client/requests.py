"""How the client builds requests and reads answers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eventjobs.domain.validation import read_part, read_time
from eventjobs.errors import InvalidInput
from eventjobs.storable import storable_text

BLOCK_BYTES = 2**18

Fields = dict[str, Any]


def _path(job_id: str, *more: str) -> str:
    parts = [quote(str(read_part(each, "id")), safe="") for each in (job_id, *more)]
    return "/".join(["/v1/jobs", *parts])


def _params(**given: Any) -> Fields:
    """What is None is left out; several values become one, with commas."""
    params = {}
    for name, value in given.items():
        if issubclass(type(value), datetime):
            params[name] = _time(value, name)
        elif issubclass(type(value), Iterable) and not issubclass(type(value), str):
            params[name] = ",".join(map(str, value))
        elif value is not None:
            params[name] = storable_text(value)
    return params


def _time(at: datetime, field: str) -> str:
    """A naive one is refused, as over HTTP: nobody can tell of which time zone it is."""
    return str(read_time(at, field).isoformat())


def _quoted(key: str) -> str:
    """As a string of structured fields (RFC 9651, 3.3.3). Raises InvalidInput."""
    if type(key) is not str or not key.isascii() or not key.isprintable():
        raise InvalidInput("an idempotency key has printable ASCII characters only")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _readable(path: Path) -> None:
    path.open("rb").close()


async def blocks(path: Path) -> AsyncIterator[bytes]:
    """The content of a file, without holding up the loop."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            yield block
    finally:
        await asyncio.to_thread(file.close)

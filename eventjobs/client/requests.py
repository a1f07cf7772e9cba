"""Paths, parameters and bodies of the client's requests."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from yarl import URL

from eventjobs.domain.validation import read_part, read_time
from eventjobs.errors import InvalidInput
from eventjobs.storable import storable_text

#: Bytes of a file that are read or written at once.
BLOCK_BYTES = 2**18

JSONObject = dict[str, Any]

_TOKEN = re.compile("[!-~]+")


def base_url(url: str) -> str:
    """*url* in the form that paths are appended to. Raises InvalidInput."""
    try:
        parsed = URL(url)
    except ValueError as error:
        raise InvalidInput(f"{url} is not an address: {error}") from error
    if parsed.scheme not in ("http", "https") or parsed.host is None:
        raise InvalidInput(f"{url} is not an address like http://127.0.0.1:8080")
    return str(parsed).rstrip("/")


def bearer(url: str, token: str | None) -> dict[str, str]:
    """The headers of requests to *url* with *token* (RFC 6750, 2.1). Raises InvalidInput, whose
    message does not have the token.
    """
    if token is None:
        return {}
    if type(token) is not str or not _TOKEN.fullmatch(token):
        raise InvalidInput("the token is empty, or has characters that a header cannot have")
    if URL(url).user is not None:
        raise InvalidInput("there are a token and a user in the address; give one of them")
    return {"Authorization": f"Bearer {token}"}


def api_path(*parts: str) -> str:
    return "/".join(["/v1", *(quote(each, safe="") for each in parts)])


def job_path(job_id: str, *parts: str) -> str:
    """The path of a job, or of something of it. Raises InvalidInput."""
    return api_path("jobs", *(str(read_part(each, "id")) for each in (job_id, *parts)))


def query_params(**values: Any) -> dict[str, str]:
    """*values* as query parameters: None is left out, several values are joined by commas."""
    params = {}
    for name, value in values.items():
        if issubclass(type(value), datetime):
            params[name] = format_time(value, name)
        elif issubclass(type(value), Iterable) and not issubclass(type(value), str):
            params[name] = ",".join(map(str, value))
        elif value is not None:
            params[name] = storable_text(value)
    return params


def format_time(at: datetime, field: str) -> str:
    """*at* in ISO 8601. Raises InvalidInput for a naive time, whose zone is not known."""
    return str(read_time(at, field).isoformat())


def quote_key(key: str) -> str:
    """An idempotency key as a quoted string (RFC 9651, 3.3.3). Raises InvalidInput."""
    if type(key) is not str or not key.isascii() or not key.isprintable():
        raise InvalidInput("an idempotency key has printable ASCII characters only")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def encode_json(body: JSONObject) -> bytes:
    """*body* as it is sent. Raises InvalidInput."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidInput(f"this cannot be sent as JSON: {error}") from error


def check_readable(path: Path) -> None:
    """Raises OSError for a file that cannot be read."""
    path.open("rb").close()


async def blocks(path: Path) -> AsyncIterator[bytes]:
    """The content of a file, read in threads."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            yield block
    finally:
        await asyncio.to_thread(file.close)

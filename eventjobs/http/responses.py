"""JSON responses and their cache headers."""

from typing import Any

import orjson
from aiohttp import web

#: Most responses depend on who asks: no cache that others use may store them.
NO_CACHE = {"Cache-Control": "private, no-cache"}
JSON_HEADERS = {"Content-Type": "application/json", **NO_CACHE}


def reply(value: Any, status: int = 200) -> web.Response:
    """A response with *value* as JSON."""
    return web.Response(status=status, body=orjson.dumps(value), headers=JSON_HEADERS)

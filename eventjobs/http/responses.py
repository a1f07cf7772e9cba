"""JSON responses with their cache headers and ETags."""

from typing import Any

import orjson
from aiohttp import web

NO_CACHE = {"Cache-Control": "no-cache"}
JSON = {"Content-Type": "application/json", **NO_CACHE}


# --- what they share


def reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), headers=JSON)

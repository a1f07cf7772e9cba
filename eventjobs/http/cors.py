"""Pages of other origins that may use the service (Fetch, 3.2). By default there are none.

They send a key or token: no response permits credentials, so that browsers keep the cookie of a
session to the pages of this service.
"""

from collections.abc import Iterable, MutableMapping

from aiohttp import web

from eventjobs.worker.wire import CHILD_HEADER

#: Seconds for which a browser may keep the answer to a preflight.
MAX_AGE_S = 600
ALLOWED_HEADERS = ", ".join(
    (
        "Authorization",
        "Content-Type",
        CHILD_HEADER,
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
        "Prefer",
        "Range",
        "X-Request-ID",
    )
)
#: Headers of responses that scripts may read, besides those of Fetch, 2.2.2.
EXPOSED_HEADERS = ", ".join(
    (
        "Content-Range",
        "ETag",
        "Link",
        "Location",
        "Preference-Applied",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Request-ID",
    )
)


class CrossOriginPolicy:
    """Permits pages of *origins* to read responses."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)

    def preflight(self, request: web.BaseRequest, methods: Iterable[str]) -> web.Response | None:
        """The answer to the question of a browser whether a page may send a request with one of
        *methods*; None for other requests, and for other origins.
        """
        if (
            request.method != "OPTIONS"
            or "Access-Control-Request-Method" not in request.headers
            or request.headers.get("Origin") not in self._origins
        ):
            return None
        headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
        return web.Response(status=204, headers=headers)

    def add_headers(self, request: web.BaseRequest, headers: MutableMapping[str, str]) -> None:
        """Add to the *headers* of the response to *request*."""
        varies = headers.get("Vary")
        headers["Vary"] = "Origin" if varies is None else f"{varies}, Origin"
        origin = request.headers.get("Origin")
        if origin in self._origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """A signal of aiohttp, so that streams have the headers."""
        self.add_headers(request, response.headers)

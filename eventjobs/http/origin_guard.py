"""Rejects requests that a page of another site makes a browser send (DNS rebinding, CSRF)."""

import ipaddress
import re
from functools import lru_cache

from aiohttp import web

from eventjobs.errors import InvalidInput
from eventjobs.http.request_errors import BadHost, CrossOrigin, Misdirected, RequestError


def check_loopback(host: str) -> None:
    """Raises InvalidInput for an address that other machines can reach."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise InvalidInput(
            "there is no authentication yet, so this listens on 127.0.0.1, ::1 or localhost only, "
            f"not on {host!r}; for other machines put a proxy that authenticates in front"
        )


#: A name or an address, and a port (RFC 3986, 3.2).
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::([0-9]{0,10}))?")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def reject_foreign_origin(request: web.BaseRequest) -> type[RequestError] | None:
    """The error of a request that a page of another site may have sent; None for others.

    Requests are not authenticated. Without this check, every page in a local browser could use the
    service: through a host name that resolves to 127.0.0.1, or by posting forms.
    """
    headers = request.headers
    host = headers.get("Host")
    if host is not None and (error := host_error(host)) is not None:
        return error
    if request.method in SAFE_METHODS:
        return None
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return None if site in {"same-origin", "none"} else CrossOrigin
    origin = headers.get("Origin")
    return None if origin is None or origin.partition("://")[2] == host else CrossOrigin


@lru_cache(maxsize=256)
def host_error(host: str) -> type[RequestError] | None:
    """The error of requests for *host*, with or without a port; None if it names this machine.

    A malformed host is a bad request (RFC 9112, 3.2).
    """
    match = _HOST.fullmatch(host)
    if match is None or int(match[2] or 0) > 65_535:
        return BadHost
    name = match[1].strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return None
    try:
        return None if ipaddress.ip_address(name).is_loopback else Misdirected
    except ValueError:
        return Misdirected

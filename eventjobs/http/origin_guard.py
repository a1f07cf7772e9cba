"""Rejects requests that a page of another site makes a browser send (DNS rebinding, CSRF)."""

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from aiohttp import web

from eventjobs.errors import InvalidInput
from eventjobs.http.headers import host_name
from eventjobs.http.proxies import TrustedProxies
from eventjobs.http.request_errors import BadHost, CrossOrigin, Misdirected, RequestError
from eventjobs.http.session_cookies import SessionCookies
from eventjobs.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TO_LISTEN = (
    "without authentication this listens on 127.0.0.1, ::1 or localhost only, not on {host!r}: set "
    "EVENTJOBS_AUTH=required, and EVENTJOBS_ALLOWED_HOSTS to the host names that clients use; make "
    "the first key with `eventjobs keys create NAME --scope admin --data DIR`"
)


def check_host(settings: Settings, host: str) -> None:
    """Raises InvalidInput where *settings* do not permit to listen on the address *host*."""
    if settings.auth != "off":
        return
    if not _is_loopback(host):
        raise InvalidInput(_TO_LISTEN.format(host=host))
    for name in ("allowed_hosts", "jwt_secret", "jwks_url"):
        if getattr(settings, name):
            variable = f"EVENTJOBS_{name.upper()}"
            raise InvalidInput(f"{variable} needs authentication: set EVENTJOBS_AUTH=required")


class OriginGuard:
    """Finds requests that a page of another site may have sent.

    Without it, every page in a local browser could use a service without authentication: through a
    host name that resolves to 127.0.0.1, or by posting forms.
    """

    def __init__(self, settings: Settings, proxies: TrustedProxies) -> None:
        self._authenticates = settings.auth != "off"
        self._allowed = settings.allowed_hosts
        self._proxies = proxies
        self._proxied = bool(settings.trusted_proxies)
        self._cookies = SessionCookies(proxies)
        self._cors_origins = frozenset(settings.cors_origins)
        #: The error of requests for a host, with or without a port; None if it is allowed.
        self.host_error: Callable[[str], type[RequestError] | None]
        self.host_error = lru_cache(maxsize=256)(self._host_error)

    def check(self, request: web.BaseRequest) -> type[RequestError] | None:
        """The error of a request for another host, or from a page of another site; None for others.

        A host that a proxy names is checked besides the header Host, and not in its place: a page
        of another site may set the headers of proxies.
        """
        headers = request.headers
        host = headers.get("Host")
        if host is not None and (error := self.host_error(host)) is not None:
            return error
        if self._proxied and (named := self._proxies.original(request).host) is not None:
            if (error := self.host_error(named)) is not None:
                return error
            host = named
        if request.method in SAFE_METHODS:
            return None
        site = headers.get("Sec-Fetch-Site")
        origin = headers.get("Origin")
        if site is not None:
            is_own = site in {"same-origin", "none"}
        else:
            is_own = origin is None or origin.partition("://")[2] == host
        return None if is_own or self._is_permitted(request, origin) else CrossOrigin

    def _is_permitted(self, request: web.BaseRequest, origin: str | None) -> bool:
        """Whether *origin* may send requests, and this one is not sent with a session."""
        return origin in self._cors_origins and (
            "Authorization" in request.headers or self._cookies.read(request) is None
        )

    def _host_error(self, host: str) -> type[RequestError] | None:
        """A malformed host is a bad request (RFC 9112, 3.2)."""
        name = host_name(host)
        if name is None:
            return BadHost
        name = name.removesuffix(".")
        if _is_loopback(name) or name.endswith(".localhost"):
            return None
        return None if self._authenticates and self._is_allowed(name) else Misdirected

    def _is_allowed(self, name: str) -> bool:
        """An address is: only a name can be made to resolve to another machine."""
        return _is_address(name) or any(
            each in ("*", name) or (each.startswith(".") and f".{name}".endswith(each))
            for each in self._allowed
        )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

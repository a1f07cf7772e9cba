"""The cookie that holds the session of a browser (RFC 6265)."""

import re

from aiohttp import web

from eventjobs.http.proxies import TrustedProxies

#: `__Host-`: browsers accept it over TLS only, for exactly this host and all of its paths.
TLS_NAME = "__Host-eventjobs"
PLAIN_NAME = "eventjobs"

_SESSION = r"(ej_ses_[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)(?:;|$)"
_TLS_COOKIE = re.compile(rf"(?:^|; ?){TLS_NAME}={_SESSION}")
_PLAIN_COOKIE = re.compile(rf"(?:^|; ?){PLAIN_NAME}={_SESSION}")


class SessionCookies:
    """Reads and writes the cookie, which is another one for a client that uses TLS."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies

    def read(self, request: web.BaseRequest) -> str | None:
        """The session in the cookie of *request*, which is not verified here."""
        cookies = request.headers.get("Cookie")
        if cookies is None:
            return None
        secure = self._proxies.is_secure(request)
        match = (_TLS_COOKIE if secure else _PLAIN_COOKIE).search(cookies)
        return None if match is None else match[1]

    def write(
        self, request: web.BaseRequest, response: web.Response, session: str, age_s: int
    ) -> None:
        """Give *session* to the browser, for *age_s* seconds."""
        secure = self._proxies.is_secure(request)
        response.set_cookie(
            TLS_NAME if secure else PLAIN_NAME,
            session,
            max_age=age_s,
            path="/",
            secure=secure,
            httponly=True,
            samesite="Lax",
        )

    def clear(self, request: web.BaseRequest, response: web.Response) -> None:
        """Remove the cookie from the browser."""
        self.write(request, response, "", 0)

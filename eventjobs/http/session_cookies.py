"""The cookie that holds the session of a browser (RFC 6265)."""

import re

from aiohttp import web

#: `__Host-`: browsers accept it over TLS only, for exactly this host and all of its paths.
TLS_NAME = "__Host-eventjobs"
PLAIN_NAME = "eventjobs"

_SESSION = r"(ej_ses_[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)(?:;|$)"
_TLS_COOKIE = re.compile(rf"(?:^|; ?){TLS_NAME}={_SESSION}")
_PLAIN_COOKIE = re.compile(rf"(?:^|; ?){PLAIN_NAME}={_SESSION}")


def session_of(request: web.BaseRequest) -> str | None:
    """The session in the cookie of *request*, which is not verified here."""
    cookies = request.headers.get("Cookie")
    if cookies is None:
        return None
    match = (_TLS_COOKIE if request.secure else _PLAIN_COOKIE).search(cookies)
    return None if match is None else match[1]


def set_session(request: web.BaseRequest, response: web.Response, session: str, s: int) -> None:
    """Give *session* to the browser, for *s* seconds."""
    response.set_cookie(
        TLS_NAME if request.secure else PLAIN_NAME,
        session,
        max_age=s,
        path="/",
        secure=request.secure,
        httponly=True,
        samesite="Lax",
    )


def clear_session(request: web.BaseRequest, response: web.Response) -> None:
    """Remove the cookie from the browser."""
    set_session(request, response, "", 0)

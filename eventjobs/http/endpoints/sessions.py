"""Sessions of browsers: log in, who is logged in, log out."""

import math
from contextlib import suppress

from aiohttp import web

from eventjobs.auth.principals import Principal
from eventjobs.errors import InvalidCredential
from eventjobs.http.app_context import AppContext
from eventjobs.http.auth import principal_of
from eventjobs.http.json_body import read_json
from eventjobs.http.render import time_or_none
from eventjobs.http.request_errors import AuthenticationOff
from eventjobs.http.responses import reply
from eventjobs.http.schemas.sessions import Login


async def begin(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Log a browser in: a cookie with a session, for an API key or a token."""
    service = context.service
    if service.settings.auth == "off":
        raise AuthenticationOff
    credential = (await read_json(service, request, Login)).credential
    if service.sessions.recognizes(credential):
        raise InvalidCredential("a session begins with a key or a token, not with a session")
    session, principal = service.sessions.begin(await service.credentials.verify(credential))
    response = _reply(context, principal, 201)
    assert principal.expires_us is not None
    left_s = (principal.expires_us - service.clock.now_us()) / 1_000_000
    context.authenticator.cookies.write(request, response, session, math.ceil(left_s))
    return response


async def current(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Who sends this request."""
    return _reply(context, principal_of(request), 200)


async def end(context: AppContext, request: web.Request) -> web.StreamResponse:
    """Log out: the session in the cookie ends, and its streams. Harmless to repeat."""
    cookies, credentials = context.authenticator.cookies, context.service.credentials
    if (session := cookies.read(request)) is not None:
        # Of a session of another service only the cookie is removed.
        with suppress(InvalidCredential):
            principal = context.service.sessions.read(session)
            if credentials.is_valid(principal):
                credentials.revoke(principal.credentials[0], principal.expires_us)
    response = web.Response(status=204)
    cookies.clear(request, response)
    return response


def _reply(context: AppContext, principal: Principal, status: int) -> web.Response:
    session = {
        "mode": context.service.settings.auth,
        "name": principal.name,
        "owner": principal.owner,
        "scopes": sorted(principal.scopes),
        "expires_at": time_or_none(principal.expires_us),
    }
    response = reply(session, status)
    response.headers["Cache-Control"] = "no-store"
    return response

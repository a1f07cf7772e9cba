"""The principal of a request, from its key, token or session."""

import re

from aiohttp import web

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.policy import Action, permits
from eventjobs.auth.principals import ANONYMOUS, LOCAL, Principal
from eventjobs.errors import InvalidCredential
from eventjobs.http.request_errors import Forbidden, Unauthenticated
from eventjobs.settings import Settings

#: The principal of a request, which the endpoint reads.
PRINCIPAL = web.RequestKey("principal", Principal)
#: Asks for a credential (RFC 6750, 3).
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="eventjobs"'}

_BEARER = re.compile(r"(?i:bearer) +(\S+) *")


class Authenticator:
    """Finds out who sends a request, by the mode of authentication."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._credentials = credentials
        #: The principal of a request without a credential.
        self._default: Principal | None = None
        self._off = settings.auth == "off"
        if settings.auth == "optional":
            self._default = ANONYMOUS

    def get_cached(self, request: web.BaseRequest) -> Principal | None:
        """The principal, without an await; None where *authenticate* has to answer."""
        if self._off:
            return LOCAL
        authorization = request.headers.get("Authorization")
        if authorization is None:
            return self._default
        bearer = _BEARER.fullmatch(authorization)
        return None if bearer is None else self._credentials.get_cached(bearer[1])

    async def authenticate(self, request: web.BaseRequest) -> Principal:
        """The principal. Raises Unauthenticated, InvalidCredential."""
        if (principal := self.get_cached(request)) is not None:
            return principal
        authorization = request.headers.get("Authorization")
        if authorization is None:
            raise Unauthenticated(headers=CHALLENGE)
        bearer = _BEARER.fullmatch(authorization)
        if bearer is None:
            raise InvalidCredential("the scheme of Authorization is Bearer")
        return await self._credentials.verify(bearer[1])


def check_permission(principal: Principal, action: Action) -> None:
    """Raises Forbidden, or Unauthenticated where a credential might permit *action*."""
    if not permits(principal, action):
        if principal is ANONYMOUS:
            raise Unauthenticated(headers=CHALLENGE)
        raise Forbidden

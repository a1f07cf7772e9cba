"""The principal of a request, from its key, token or session."""

import re

from aiohttp import web

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.policy import Action, JobFacts, permits
from eventjobs.auth.principals import ANONYMOUS, LOCAL, Principal
from eventjobs.errors import InvalidCredential
from eventjobs.http.headers import media_type
from eventjobs.http.request_errors import Forbidden, Unauthenticated, UnsupportedMediaType
from eventjobs.http.session_cookies import SessionCookies
from eventjobs.settings import Settings

#: The principal of a request, which the endpoint reads.
PRINCIPAL = web.RequestKey("principal", Principal)
#: Asks for a credential (RFC 6750, 3).
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="eventjobs"'}

#: Content types that a page may send to another site without asking it first (Fetch, 2.2.2).
FORM_TYPES = frozenset(
    {"", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"}
)

_BEARER = re.compile(r"(?i:bearer) +(\S+) *")


class Authenticator:
    """Finds out who sends a request, by the mode of authentication."""

    def __init__(
        self, settings: Settings, credentials: Credentials, cookies: SessionCookies
    ) -> None:
        self._credentials = credentials
        self.cookies = cookies
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
        if authorization is not None and authorization.startswith("Bearer "):
            # The usual form. In another one a credential is not known; *authenticate* reads all.
            return self._credentials.get_cached(authorization[len("Bearer ") :])
        credential = self._credential(request)
        return self._default if credential is None else self._credentials.get_cached(credential)

    async def authenticate(self, request: web.BaseRequest) -> Principal:
        """The principal. Raises Unauthenticated, InvalidCredential, and UnsupportedMediaType for a
        form with a session.
        """
        if not self._off and "Authorization" not in request.headers:
            self._check_form(request)
        if (principal := self.get_cached(request)) is not None:
            return principal
        credential = self._credential(request)
        if credential is None:
            raise Unauthenticated(headers=CHALLENGE)
        if not credential:
            raise InvalidCredential("the scheme of Authorization is Bearer")
        return await self._credentials.verify(credential)

    def _credential(self, request: web.BaseRequest) -> str | None:
        """The key, token or session of *request*; empty where Authorization has another scheme."""
        if "Authorization" not in request.headers:
            return self.cookies.read(request)
        return bearer_of(request)

    def _check_form(self, request: web.BaseRequest) -> None:
        """Raises UnsupportedMediaType for a session with a body that a form of another site can
        send.

        Browsers add the cookie to requests that pages of other sites make. The origin guard refuses
        these where the browser says that; this check holds for a browser that names no origin.
        """
        if (
            request.method == "POST"  # pages send no other unsafe method without a preflight
            and request.body_exists
            and media_type(request) in FORM_TYPES
            and "Sec-Fetch-Site" not in request.headers
            and "Origin" not in request.headers
            and self.cookies.read(request) is not None
        ):
            raise UnsupportedMediaType("send another Content-Type than that of a form")


def bearer_of(request: web.BaseRequest) -> str:
    """The credential in Authorization (RFC 6750, 2.1); empty where there is none of this scheme."""
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    return "" if match is None else match[1]


def principal_of(request: web.BaseRequest) -> Principal:
    """The principal of *request*, on a route with an action."""
    return request[PRINCIPAL]


def owner_of(principal: Principal, owner: str | None) -> str | None:
    """The owner of a job that *principal* submits, where *owner* was asked for.

    Raises Forbidden for another one, unless *principal* may use the jobs of all owners.
    """
    if permits(principal, Action.CONTROL, JobFacts(None)):
        return owner or principal.owner
    if owner not in (None, principal.owner):
        raise Forbidden("only an administrator names another owner")
    return principal.owner


def uploader_of(principal: Principal) -> str | None:
    """Whose the files are that *principal* uploads; None while authentication is off."""
    return None if principal is LOCAL else principal.owner or principal.name


def file_owners(principal: Principal, owner: str | None) -> tuple[str, ...] | None:
    """The owners whose files *principal* may give to a job of *owner*; None for all owners."""
    if principal is LOCAL:
        return None
    return tuple(each for each in (uploader_of(principal), owner) if each is not None)


def restrict_owner(
    principal: Principal, owner: str | None, action: Action = Action.LIST
) -> str | None:
    """The owner of the jobs that *action* is about, where *owner* was asked for; None for all.

    Raises Forbidden for another owner's jobs, and as *check_permission*.
    """
    check_permission(principal, action)
    if permits(principal, action, JobFacts(None)):
        return owner
    if owner not in (None, principal.owner):
        raise Forbidden("these are the jobs of another owner")
    return principal.owner


def check_permission(principal: Principal, action: Action) -> None:
    """Raises Forbidden, or Unauthenticated where a credential might permit *action*."""
    if not permits(principal, action):
        if principal is ANONYMOUS:
            raise Unauthenticated(headers=CHALLENGE)
        raise Forbidden

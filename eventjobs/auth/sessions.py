"""Sessions of browsers: signed values that hold their principal and expiry. None is stored."""

import base64
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from eventjobs.auth.principals import Principal
from eventjobs.clock import Clock
from eventjobs.errors import InvalidCredential, InvalidInput

PREFIX = "ej_ses_"
#: The id of a session among the `credentials` of its principal.
ID_PREFIX = "session:"
#: Browsers keep a cookie of up to 4,096 bytes with its name and attributes (RFC 6265, 6.1).
CHARS_MAX = 3500


class SessionSigner:
    """Makes sessions from principals, and verifies them.

    A session is valid for at most *session_s* seconds, and as long as all credentials of its
    principal are active: *is_active* is called with each of them.
    """

    def __init__(
        self,
        key: bytes,
        clock: Clock,
        session_s: float,
        is_active: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._key = key
        self._clock = clock
        self._session_us = int(session_s * 1_000_000)
        self._is_active = is_active

    def begin(self, principal: Principal) -> tuple[str, Principal]:
        """A new session of *principal*, and the principal of its requests.

        Raises InvalidInput where its names and scopes do not fit in a cookie.
        """
        expires_us = self._clock.now_us() + self._session_us
        if principal.expires_us is not None:
            expires_us = min(expires_us, principal.expires_us)
        session_id = ID_PREFIX + os.urandom(16).hex()
        facts = orjson.dumps(
            {
                "session": session_id,
                "name": principal.name,
                "owner": principal.owner,
                "scopes": sorted(principal.scopes),
                "credentials": principal.credentials,
                "expires_us": expires_us,
            }
        )
        session = f"{PREFIX}{_encode(facts)}.{_encode(self._signature(facts))}"
        if len(session) > CHARS_MAX:
            raise InvalidInput("the scopes and names of this credential do not fit in a session")
        return session, _principal(orjson.loads(facts))

    def recognizes(self, credential: str) -> bool:
        return credential.startswith(PREFIX)

    async def verify(self, credential: str) -> Principal:
        """The principal of a session. Raises InvalidCredential, and as *is_active*."""
        principal = self.read(credential)
        for each in principal.credentials[1:]:
            if not await self._is_active(each):
                raise InvalidCredential("the key or token of this session was revoked")
        return principal

    def read(self, credential: str) -> Principal:
        """The principal of a session that may have ended. Raises InvalidCredential."""
        text, _, signature = credential.removeprefix(PREFIX).partition(".")
        try:
            encoded, signed = _decode(text), _decode(signature)
        except ValueError as error:
            raise InvalidCredential from error
        if not hmac.compare_digest(signed, self._signature(encoded)):
            raise InvalidCredential
        return _principal(orjson.loads(encoded))

    def _signature(self, facts: bytes) -> bytes:
        return hmac.digest(self._key, facts, hashlib.sha256)


def _principal(facts: dict[str, Any]) -> Principal:
    """The principal of the requests of a session. The session is the first of its credentials."""
    return Principal(
        facts["name"],
        facts["owner"],
        frozenset(facts["scopes"]),
        (facts["session"], *facts["credentials"]),
        facts["expires_us"],
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

"""Credentials of all kinds: they are verified once, and remembered while they are valid."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from eventjobs.auth.principals import Principal
from eventjobs.cache import LRUCache
from eventjobs.clock import Clock
from eventjobs.errors import InvalidCredential


class CredentialVerifier(Protocol):
    """Verifies one kind of credential: an API key, a JWT, a session."""

    def recognizes(self, credential: str) -> bool:
        """Whether *credential* has the form of this kind."""

    async def verify(self, credential: str) -> Principal:
        """Its principal. Raises InvalidCredential."""


class Credentials:
    """Verifies credentials, and remembers the principals of those that are valid.

    They are remembered by their digests, so that the time of a lookup does not depend on a secret.
    """

    def __init__(self, clock: Clock, verifiers: Sequence[CredentialVerifier]) -> None:
        self._clock = clock
        self._verifiers = verifiers
        self._principals: LRUCache[Principal] = LRUCache(entries_max=10_000, bytes_max=10_000)
        #: Counts revocations: a verification that one overtakes is repeated.
        self._revocations = 0
        #: What was revoked since the start, and has not been verified again.
        self._revoked: set[str] = set()
        #: Revoked credentials that expire, and when, in the order of their revocations.
        self._ended: dict[str, int] = {}
        self._end_streams: list[Callable[[str], object]] = []
        #: When each principal was last recognized, by its name, since *take_uses*.
        self._uses: dict[str, int] = {}

    def get_cached(self, credential: str) -> Principal | None:
        """The principal of a credential that was verified before and is still valid."""
        principal = self._principals.get(_digest(credential))
        if principal is None:
            return None
        now_us = self._clock.now_us()
        if principal.expires_us is not None and principal.expires_us <= now_us:
            return None
        self._uses[principal.name] = now_us
        return principal

    def take_uses(self) -> dict[str, int]:
        """When principals were last recognized, in microseconds since 1970, by their names.

        To be called from time to time; it returns the times since the last call.
        """
        uses, self._uses = self._uses, {}
        return uses

    async def verify(self, credential: str) -> Principal:
        """The principal of *credential*. Raises InvalidCredential."""
        while (principal := self.get_cached(credential)) is None:
            revocations = self._revocations
            verified = await self._verify(credential)
            if revocations == self._revocations:
                # A key of an issuer that was removed may be back.
                self._revoked.difference_update(verified.credentials)
                self._principals.put(_digest(credential), verified, 1)
        return principal

    async def _verify(self, credential: str) -> Principal:
        verifier = next((each for each in self._verifiers if each.recognizes(credential)), None)
        if verifier is None:
            raise InvalidCredential
        principal = await verifier.verify(credential)
        if self.is_expired(principal):
            raise InvalidCredential("the credential has expired")
        if not self._ended.keys().isdisjoint(principal.credentials):
            raise InvalidCredential("the session has ended")
        return principal

    def is_valid(self, principal: Principal) -> bool:
        """Whether a principal that was verified is neither revoked nor expired since."""
        is_revoked = any(
            each in self._revoked or each in self._ended for each in principal.credentials
        )
        return not is_revoked and not self.is_expired(principal)

    def left_s(self, principal: Principal) -> float | None:
        """Seconds until the principal expires; None for one that does not."""
        if principal.expires_us is None:
            return None
        return max(0.0, (principal.expires_us - self._clock.now_us()) / 1e6)

    def is_expired(self, principal: Principal) -> bool:
        expires_us = principal.expires_us
        return expires_us is not None and expires_us <= self._clock.now_us()

    def revoke(self, credential: str, expires_us: int | None = None) -> None:
        """Forget the principals that have *credential* among their `credentials`, and end their
        streams. One that expires is refused until then; of others the verifier has to know.
        """
        self._revocations += 1
        if expires_us is None:
            self._revoked.add(credential)
        else:
            self._forget_expired()
            self._ended[credential] = expires_us
        self._principals.drop_where(lambda principal: credential in principal.credentials)
        for end_streams in self._end_streams:
            end_streams(credential)

    def _forget_expired(self) -> None:
        """Forget the credentials that ended first, up to one that has not expired."""
        now_us = self._clock.now_us()
        while self._ended and self._ended[first := next(iter(self._ended))] <= now_us:
            del self._ended[first]

    def on_revoked(self, end_streams: Callable[[str], object]) -> None:
        """Call *end_streams* with each credential that is revoked."""
        self._end_streams.append(end_streams)


def _digest(credential: str) -> str:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()

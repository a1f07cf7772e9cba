"""Credentials are verified once, and remembered while they are valid."""

import pytest

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.principals import USER_SCOPES, Principal
from eventjobs.errors import InvalidCredential
from tests.support.clock import FakeClock


class Verifier:
    """Knows the credentials that begin with `ok-`."""

    def __init__(self, expires_us: int | None = None) -> None:
        self.verified: list[str] = []
        self.expires_us = expires_us

    def recognizes(self, credential: str) -> bool:
        return credential.startswith("ok-")

    async def verify(self, credential: str) -> Principal:
        self.verified.append(credential)
        return Principal("key:1", "alice", USER_SCOPES, ("key:1",), self.expires_us)


async def test_a_valid_credential_is_verified_once() -> None:
    verifier = Verifier()
    credentials = Credentials(FakeClock(), [verifier])
    assert credentials.get_cached("ok-1") is None
    principal = await credentials.verify("ok-1")
    assert await credentials.verify("ok-1") is principal
    assert credentials.get_cached("ok-1") is principal
    assert verifier.verified == ["ok-1"]
    with pytest.raises(InvalidCredential):
        await credentials.verify("something else")


async def test_an_expired_credential_is_refused_also_from_the_cache() -> None:
    clock = FakeClock()
    credentials = Credentials(clock, [Verifier(clock.now_us() + 10_000_000)])
    await credentials.verify("ok-1")
    await clock.advance(10.0)
    assert credentials.get_cached("ok-1") is None
    with pytest.raises(InvalidCredential, match="expired"):
        await credentials.verify("ok-1")


async def test_a_revoked_credential_is_verified_again_and_its_streams_end() -> None:
    verifier = Verifier()
    credentials = Credentials(FakeClock(), [verifier])
    ended: list[str] = []
    credentials.on_revoked(ended.append)
    await credentials.verify("ok-1")
    credentials.revoke("key:2")
    assert credentials.get_cached("ok-1") is not None
    credentials.revoke("key:1")
    assert credentials.get_cached("ok-1") is None
    assert ended == ["key:2", "key:1"]


async def test_a_revocation_during_a_verification_is_noticed() -> None:
    class Slow(Verifier):
        async def verify(self, credential: str) -> Principal:
            principal = await super().verify(credential)
            if len(self.verified) == 1:
                credentials.revoke("key:1")  # the log was read just before
            return principal

    verifier = Slow()
    credentials = Credentials(FakeClock(), [verifier])
    await credentials.verify("ok-1")
    assert verifier.verified == ["ok-1", "ok-1"]


async def test_a_credential_that_is_verified_after_its_revocation_is_valid_again() -> None:
    """An issuer removed the key of a token, and has published it again."""
    credentials = Credentials(FakeClock(), [Verifier()])
    principal = await credentials.verify("ok-1")
    credentials.revoke("key:1")
    assert not credentials.is_valid(principal)
    assert credentials.is_valid(await credentials.verify("ok-1"))

"""Sessions are signed, bounded in time, and end with what they began with."""

import base64

import orjson
import pytest

from eventjobs.auth.credentials import Credentials
from eventjobs.auth.principals import USER_SCOPES, Principal
from eventjobs.auth.sessions import CHARS_MAX, SessionSigner
from eventjobs.errors import InvalidCredential, InvalidInput
from tests.support.clock import FakeClock

ALICE = Principal("key:1", "alice", USER_SCOPES, ("key:1",))


def signer(clock: FakeClock, *revoked: str, key: bytes = b"k" * 32) -> SessionSigner:
    async def is_active(credential: str) -> bool:
        return credential not in revoked

    return SessionSigner(key, clock, 3600.0, is_active)


async def test_a_session_has_the_principal_that_it_began_with(clock: FakeClock) -> None:
    sessions = signer(clock)
    session, principal = sessions.begin(ALICE)
    assert sessions.recognizes(session)
    verified = await sessions.verify(session)
    assert verified == principal
    assert (verified.name, verified.owner, verified.scopes) == ("key:1", "alice", USER_SCOPES)
    assert verified.credentials[1:] == ("key:1",)
    assert verified.credentials[0].startswith("session:")
    assert verified.expires_us == clock.now_us() + 3_600_000_000
    assert sessions.begin(ALICE)[0] != session


async def test_a_session_expires_with_its_credential(clock: FakeClock) -> None:
    soon_us = clock.now_us() + 5_000_000
    alice = Principal("user:1", "alice", USER_SCOPES, (), soon_us)
    sessions = signer(clock)
    session, principal = sessions.begin(alice)
    assert principal.expires_us == soon_us
    credentials = Credentials(clock, [sessions])
    assert await credentials.verify(session) == principal
    await clock.advance(5.0)
    with pytest.raises(InvalidCredential, match="expired"):
        await credentials.verify(session)


async def test_a_session_of_another_key_or_a_changed_one_is_refused(clock: FakeClock) -> None:
    session, _ = signer(clock, key=b"x" * 32).begin(ALICE)
    mine, _ = signer(clock).begin(ALICE)
    facts = orjson.loads(base64.urlsafe_b64decode(mine[7:].split(".")[0] + "=="))
    forged = base64.urlsafe_b64encode(orjson.dumps({**facts, "scopes": ["admin"]})).decode()
    for value in (
        session,
        f"ej_ses_{forged.rstrip('=')}.{mine.split('.')[1]}",
        mine[:-4],
        mine.split(".")[0],
        "ej_ses_",
        "ej_ses_.",
        "ej_ses_é.\udcff",
        "ej_ses_e30." + mine.split(".")[1],
    ):
        with pytest.raises(InvalidCredential):
            await signer(clock).verify(value)


async def test_the_key_of_a_session_is_checked_again(clock: FakeClock) -> None:
    session, _ = signer(clock).begin(ALICE)
    with pytest.raises(InvalidCredential, match="revoked"):
        await signer(clock, "key:1").verify(session)
    await signer(clock, "key:2").verify(session)


async def test_a_session_is_read_while_its_key_cannot_be_checked(clock: FakeClock) -> None:
    session, principal = signer(clock).begin(ALICE)
    assert signer(clock, "key:1").read(session) == principal  # so that it can be ended
    with pytest.raises(InvalidCredential):
        signer(clock, key=b"x" * 32).read(session)


async def test_an_ended_session_is_refused_until_it_expires(clock: FakeClock) -> None:
    sessions = signer(clock)
    credentials = Credentials(clock, [sessions])
    session, principal = sessions.begin(ALICE)
    other, _ = sessions.begin(ALICE)
    await credentials.verify(session)
    assert credentials.is_valid(principal)
    credentials.revoke(principal.credentials[0], principal.expires_us)
    assert not credentials.is_valid(principal)
    with pytest.raises(InvalidCredential, match="ended"):
        await credentials.verify(session)
    _, later = await credentials.verify(other), sessions.begin(ALICE)[1]
    await clock.advance(3600.0)
    with pytest.raises(InvalidCredential, match="expired"):
        await credentials.verify(session)
    credentials.revoke(later.credentials[0], later.expires_us)
    assert list(credentials._ended) == [later.credentials[0]]  # memory does not grow


async def test_a_session_fits_in_a_cookie(clock: FakeClock) -> None:
    sessions = signer(clock)
    scopes = frozenset(f"worker:type-{number}" for number in range(100))
    session, _ = sessions.begin(Principal("key:1", "alice", scopes, ("key:1",)))
    assert len(session) <= CHARS_MAX
    scopes = frozenset(f"worker:type-{number}" for number in range(200))
    with pytest.raises(InvalidInput, match="do not fit"):
        sessions.begin(Principal("key:1", "alice", scopes, ("key:1",)))

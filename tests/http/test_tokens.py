"""Requests with JWTs, over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from eventjobs.auth.jwt import LEEWAY_S
from eventjobs.errors import InvalidCredential, InvalidInput
from eventjobs.handlers.declare import remote
from eventjobs.http.origin_guard import check_host
from eventjobs.outbound.jwks import INTERVAL_S
from eventjobs.service import Service
from eventjobs.settings import Settings
from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Client, Reply
from tests.support.http_jobs import HANDLERS, echo
from tests.support.issuer import (
    AUDIENCE,
    ISSUER,
    SECRET,
    KeyServer,
    claims,
    ec_key,
    public_jwk,
    rsa_key,
    serving_keys,
    sign,
)
from tests.support.keys import bearer

OIDC = {"auth": "required", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.fixture
async def issuer() -> AsyncIterator[KeyServer]:
    async with serving_keys(public_jwk(rsa_key(), kid="one")) as server:
        yield server


async def submit(api: Client, token: str) -> Reply:
    return await api("POST", "/v1/jobs", {"type": "echo", "payload": 1}, headers=bearer(token))


async def test_a_job_is_submitted_and_read_with_a_token(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    token = sign(rsa_key(), claims(clock), kid="one")
    submitted = await submit(api, token)
    assert (submitted.status, submitted.json["owner"]) == (202, "alice")
    address = submitted.json["links"]["self"]
    assert (await api.get(address, Authorization=f"bearer {token}")).status == 200
    assert (await api.get(address)).code == "unauthenticated"
    assert (await api("POST", "/v1/jobs", {"type": "echo"})).code == "unauthenticated"
    bob = sign(rsa_key(), claims(clock, sub="bob"), kid="one")
    assert (await api.get(address, **bearer(bob))).code == "job_not_found"
    history = await api.get(f"{address}/events", **bearer(token))
    assert history.json["events"][0]["actor"] == "user:alice"


async def test_a_token_with_the_shared_secret(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, auth="required", jwt_secret=SECRET)
    assert (await submit(api, sign(SECRET, claims(clock, aud=None)))).status == 202


@pytest.mark.parametrize("subject", ["/" * 200, "\U0001f600" * 200])
async def test_the_longest_names_are_recorded(
    subject: str, client: Connect, clock: FakeClock
) -> None:
    api = await client(remote("far"), clock=clock, auth="required", jwt_secret=SECRET)
    scopes = "jobs:submit jobs:read worker:far"
    payload = claims(clock, aud=None, sub=subject, scope=scopes)
    token, worker = bearer(sign(SECRET, payload)), "w" * 100
    job = await api("POST", "/v1/jobs", {"type": "far", "payload": {}}, headers=token)
    assert (job.status, job.json["owner"]) == (202, subject)
    body = {"worker": worker, "types": ["far"]}
    [claimed] = (await api("POST", "/v1/work/claim", body, headers=token)).json["jobs"]
    path = f"/v1/work/{claimed['job_id']}/1/complete"
    reply = await api("POST", path, {"worker": worker, "result": 1}, headers=token)
    assert reply.status == 200, reply.body


async def test_tokens_are_refused_where_none_is_configured(
    client: Connect, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, auth="required")
    assert (await submit(api, sign(SECRET, claims(clock)))).code == "invalid_credential"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EVENTJOBS_JWT_SECRET", {"jwt_secret": SECRET}),
        ("EVENTJOBS_JWKS_URL", {**OIDC, "jwks_url": "https://issuer.example/keys"}),
    ],
)
def test_settings_of_tokens_need_authentication(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"{name} needs authentication"):
        check_host(Settings(**{**settings, "auth": "off"}), "127.0.0.1")
    check_host(Settings(**{**settings, "auth": "optional"}), "127.0.0.1")


async def test_a_refused_token_says_why(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    wrong = {
        "another audience": sign(rsa_key(), claims(clock, aud="other.example"), kid="one"),
        "not signed with a key": sign(rsa_key(1), claims(clock), kid="one"),
        "RS256 or ES256": sign(SECRET, claims(clock), kid="one"),
        "expired": sign(rsa_key(), claims(clock, exp=1), kid="one"),
    }
    for reason, token in wrong.items():
        reply = await submit(api, token)
        assert (reply.status, reply.code) == (401, "invalid_credential")
        assert reason in reply.json["detail"]
        assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
        assert token not in reply.body.decode()


async def test_a_token_expires_although_it_was_valid_before(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    token = sign(rsa_key(), claims(clock), kid="one")
    assert (await submit(api, token)).status == 202
    await clock.advance(331)
    assert (await submit(api, token)).code == "invalid_credential"


async def test_a_key_is_replaced_by_another(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    """The tokens of the removed key were valid before, and have not expired."""
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    ended: list[str] = []
    api.service.credentials.on_revoked(ended.append)
    payload = claims(clock, exp=clock.now_us() // 1_000_000 + 86_400)
    old, new = sign(rsa_key(), payload, kid="one"), sign(ec_key(), payload, kid="two")
    assert (await submit(api, old)).status == 202
    assert (await submit(api, new)).code == "invalid_credential"
    issuer.keys = [public_jwk(ec_key(), kid="two")]
    await clock.advance(60)
    assert (await submit(api, new)).status == 202
    assert (await submit(api, old)).code == "invalid_credential"
    assert len(ended) == 1


async def test_a_session_ends_with_the_key_of_its_token(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    token = sign(rsa_key(), claims(clock, exp=clock.now_us() // 1_000_000 + 86_400), kid="one")
    reply = await api("POST", "/v1/session", {"credential": token})
    assert reply.status == 201, reply.body
    cookie = reply.headers["Set-Cookie"].partition(";")[0]
    assert (await api.get("/v1/session", Cookie=cookie)).json["name"] == "user:alice"
    issuer.keys = []
    await clock.advance(60)
    assert (await submit(api, sign(ec_key(), claims(clock), kid="two"))).status == 401
    assert (await api.get("/v1/session", Cookie=cookie)).code == "invalid_credential"


async def test_a_stream_ends_with_the_key_of_its_token(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    token = sign(rsa_key(), claims(clock, exp=clock.now_us() // 1_000_000 + 86_400), kid="one")
    headers = {**bearer(token), "Accept": "text/event-stream"}
    async with api.session.get("/v1/events", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        issuer.keys = [public_jwk(ec_key(), kid="two")]
        await clock.advance(60)
        assert (await submit(api, sign(ec_key(), claims(clock), kid="two"))).status == 202
        await stream.read()  # to its end


async def test_a_stream_ends_when_its_token_expires(client: Connect, clock: FakeClock) -> None:
    api = await client(*HANDLERS, clock=clock, auth="required", jwt_secret=SECRET)
    token = sign(SECRET, claims(clock, aud=None))
    headers = {**bearer(token), "Accept": "text/event-stream"}
    async with api.session.get("/v1/events", headers=headers) as stream:
        assert stream.content_type == "text/event-stream"
        reading = asyncio.create_task(stream.read())
        await clock.advance(300 + LEEWAY_S - 1)
        assert not reading.done()
        await clock.advance(2)
        await reading


async def test_another_secret_ends_tokens_and_sessions(tmp_path: Path, clock: FakeClock) -> None:
    def service(secret: str) -> Service:
        settings = Settings(auth="required", jwt_secret=secret)
        return Service(tmp_path, [echo], settings=settings, clock=clock)

    token = sign(SECRET, claims(clock, aud=None))
    async with service(SECRET) as before:
        session, _ = before.sessions.begin(await before.credentials.verify(token))
    async with service(SECRET) as same:
        assert (await same.credentials.verify(session)).owner == "alice"
    async with service(SECRET + ".") as after:
        for credential in (token, session):
            with pytest.raises(InvalidCredential):
                await after.credentials.verify(credential)


async def test_a_removed_key_is_noticed_while_all_tokens_are_known(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    payload = claims(clock, exp=clock.now_us() // 1_000_000 + 86_400)
    token = sign(rsa_key(), payload, kid="one")
    assert (await submit(api, token)).status == 202
    issuer.keys = []
    began_s = clock.monotonic_s()
    while (await submit(api, token)).status == 202:
        await clock.advance(30)
        assert clock.monotonic_s() - began_s < 2 * INTERVAL_S
    assert (await submit(api, token)).code == "invalid_credential"


async def test_without_keys_the_token_may_be_right(
    client: Connect, issuer: KeyServer, clock: FakeClock
) -> None:
    issuer.response = web.Response(status=503)
    api = await client(*HANDLERS, clock=clock, jwks_url=issuer.url, **OIDC)
    token = sign(rsa_key(), claims(clock), kid="one")
    reply: Any = await submit(api, token)
    assert (reply.status, reply.code) == (503, "keys_unavailable")
    await clock.advance(float(reply.headers["Retry-After"]))
    assert (await submit(api, token)).status == 202

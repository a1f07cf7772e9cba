"""Browsers log in with a key, are known by a cookie, and log out."""

import pytest

from tests.conftest import Connect
from tests.support.clock import FakeClock
from tests.support.http_client import Reply
from tests.support.issuer import SECRET, claims, sign
from tests.support.keys import bearer, make_key
from tests.support.sessions import log_in, open_client


def attributes(reply: Reply) -> list[str]:
    """The attributes of the cookie, without its value."""
    return sorted(reply.headers["Set-Cookie"].split("; ")[1:])


async def test_a_key_becomes_a_session(client: Connect) -> None:
    api = await open_client(client)
    key = await make_key(api.service, owner="alice")
    reply = await api("POST", "/v1/session", {"credential": key})
    assert reply.status == 201
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Set-Cookie"].startswith("eventjobs=ej_ses_")
    assert attributes(reply) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax"]
    assert "ej_ses_" not in reply.body.decode()
    cookie = {"Cookie": "theme=dark; " + reply.headers["Set-Cookie"].partition(";")[0]}
    session = await api("GET", "/v1/session", headers=cookie)
    assert session.json == reply.json
    assert session.headers["Cache-Control"] == "no-store"
    assert session.json.pop("expires_at").endswith("Z")
    assert session.json | {"expires_at": None} == {
        "mode": "required",
        "name": f"key:{key.split('_')[2]}",
        "owner": "alice",
        "scopes": ["jobs:control", "jobs:read", "jobs:submit"],
        "expires_at": None,
    }
    submitted = await api("POST", "/v1/jobs", {"type": "echo"}, headers=cookie)
    assert submitted.status == 202
    page = await api("GET", "/v1/jobs", headers=cookie)
    assert page.status == 200


async def test_a_credential_in_authorization_counts_before_the_cookie(client: Connect) -> None:
    api = await open_client(client)
    alice = await log_in(api)
    bob = alice | bearer(await make_key(api.service, owner="bob"))
    assert (await api("GET", "/v1/session", headers=bob)).json["owner"] == "bob"
    unknown = alice | bearer("unknown")
    assert (await api("GET", "/v1/session", headers=unknown)).code == "invalid_credential"


@pytest.mark.parametrize("credential", ["ej_key_unknown", "something", "", "x" * 9000])
async def test_a_bad_credential_begins_no_session(client: Connect, credential: str) -> None:
    api = await open_client(client)
    reply = await api("POST", "/v1/session", {"credential": credential})
    assert reply.status == (401 if 0 < len(credential) <= 8192 else 422)
    assert "Set-Cookie" not in reply.headers
    assert credential not in reply.body.decode() or not credential


async def test_a_session_begins_no_other_session(client: Connect) -> None:
    api = await open_client(client)
    session = (await log_in(api))["Cookie"].partition("=")[2]
    reply = await api("POST", "/v1/session", {"credential": session})
    assert reply.code == "invalid_credential"


async def test_logging_out_ends_the_session_and_its_streams(client: Connect) -> None:
    api = await open_client(client)
    ended: list[str] = []
    api.service.credentials.on_revoked(ended.append)
    cookie, other = await log_in(api), await log_in(api)
    await api("GET", "/v1/session", headers=cookie)
    for _ in range(2):
        reply = await api("DELETE", "/v1/session", headers=cookie)
        assert (reply.status, reply.headers["Cache-Control"]) == (204, "no-store")
        assert reply.headers["Set-Cookie"].startswith('eventjobs="";')
        assert attributes(reply) == ["HttpOnly", "Max-Age=0", "Path=/", "SameSite=Lax"]
    assert [each.partition(":")[0] for each in ended] == ["session"]
    assert (await api("GET", "/v1/session", headers=cookie)).code == "invalid_credential"
    assert (await api("GET", "/v1/session", headers=other)).status == 200
    assert (await api("DELETE", "/v1/session")).status == 204
    assert (await api("DELETE", "/v1/session", headers={"Cookie": "eventjobs=x"})).status == 204


async def test_a_session_ends_with_its_key_also_after_a_restart(client: Connect) -> None:
    api = await open_client(client)
    ann, bob = [await make_key(api.service, owner=name) for name in ("ann", "bob")]
    cookies = [await log_in(api, key) for key in (ann, bob)]
    await api.service.api_keys.revoke(ann.split("_")[2], actor="test")
    assert (await api("GET", "/v1/session", headers=cookies[0])).code == "invalid_credential"
    assert (await api("POST", "/v1/session", {"credential": ann})).code == "invalid_credential"
    await api.service.close()
    again = await open_client(client)
    assert (await again("GET", "/v1/session", headers=cookies[0])).code == "invalid_credential"
    assert (await again("GET", "/v1/session", headers=cookies[1])).json["owner"] == "bob"


async def test_the_cookie_of_a_session_over_tls_is_for_tls_alone(client: Connect) -> None:
    api = await open_client(client, trusted_proxies="127.0.0.1", allowed_hosts="jobs.example.com")
    tls = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "jobs.example.com",
    }
    key = await make_key(api.service, owner="alice")
    reply = await api("POST", "/v1/session", {"credential": key}, headers=tls)
    assert reply.headers["Set-Cookie"].startswith("__Host-eventjobs=ej_ses_")
    assert attributes(reply) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Lax", "Secure"]
    cookie = {"Cookie": reply.headers["Set-Cookie"].partition(";")[0]}
    assert (await api("GET", "/v1/session", headers=tls | cookie)).json["owner"] == "alice"
    assert (await api("GET", "/v1/session", headers=cookie)).code == "unauthenticated"
    plain = await log_in(api)
    assert (await api("GET", "/v1/session", headers=tls | plain)).code == "unauthenticated"
    reply = await api("DELETE", "/v1/session", headers=tls | cookie)
    assert reply.headers["Set-Cookie"].startswith('__Host-eventjobs="";')
    assert (await api("GET", "/v1/session", headers=tls | cookie)).code == "invalid_credential"


async def test_a_session_expires(client: Connect) -> None:
    clock = FakeClock()
    api = await open_client(client, clock=clock, session_s=60.0)
    cookie = await log_in(api)
    await clock.advance(59.0)
    assert (await api("GET", "/v1/session", headers=cookie)).status == 200
    await clock.advance(1.0)
    assert (await api("GET", "/v1/session", headers=cookie)).code == "invalid_credential"


async def test_other_cookies_are_no_credential(client: Connect) -> None:
    api = await open_client(client)
    session = (await log_in(api))["Cookie"].partition("=")[2]
    for cookie in (
        "theme=dark",
        "eventjobs=key-alice",
        f"my-eventjobs={session}",
        f"__Host-eventjobs={session}",  # it is not valid without TLS
        f"eventjobs={session}x.y",
        f"eventjobs={session} x",
    ):
        reply = await api("GET", "/v1/session", headers={"Cookie": cookie})
        assert reply.code == "unauthenticated", cookie
    facts, signature = session.split(".")
    tampered = f"{facts}.{signature[::-1]}"
    reply = await api("GET", "/v1/session", headers={"Cookie": f"eventjobs={tampered}"})
    assert reply.code == "invalid_credential"


async def test_without_authentication_there_is_no_login(client: Connect) -> None:
    api = await open_client(client, "off")
    reply = await api("POST", "/v1/session", {"credential": "something"})
    assert (reply.status, reply.code) == (409, "authentication_off")
    session = (await api.get("/v1/session")).json
    assert (session["mode"], session["owner"], session["expires_at"]) == ("off", None, None)
    assert (await api("DELETE", "/v1/session")).status == 204


async def test_optional_authentication_knows_those_who_log_in(client: Connect) -> None:
    api = await open_client(client, "optional")
    session = (await api.get("/v1/session")).json
    assert (session["mode"], session["owner"]) == ("optional", "anonymous")
    session = (await api("GET", "/v1/session", headers=await log_in(api))).json
    assert session["owner"] == "alice"


async def test_a_session_ends_with_its_token(client: Connect, clock: FakeClock) -> None:
    api = await open_client(client, clock=clock, jwt_secret=SECRET)
    token = sign(SECRET, claims(clock, aud=None))
    cookie = await log_in(api, token)
    session = (await api("GET", "/v1/session", headers=cookie)).json
    directly = (await api("GET", "/v1/session", headers=bearer(token))).json
    assert session == directly  # also in when it expires
    await clock.advance(3700.0)
    assert (await api("GET", "/v1/session", headers=cookie)).code == "invalid_credential"

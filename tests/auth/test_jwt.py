"""Tokens that are valid, and everything that is no valid token."""

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eventjobs.auth.jwk_set import JWKSet, VerificationKey
from eventjobs.auth.jwt import (
    LEEWAY_S,
    SUBJECT_CHARS_MAX,
    TOKEN_BYTES_MAX,
    JWTVerifier,
    KeySource,
    SharedSecret,
)
from eventjobs.auth.principals import USER_SCOPES, Principal
from eventjobs.errors import InvalidCredential, InvalidInput
from tests.support.clock import SECOND, FakeClock
from tests.support.issuer import (
    AUDIENCE,
    ISSUER,
    SECRET,
    claims,
    ec_key,
    forge,
    public_jwk,
    rsa_key,
    sign,
)


class PublicKeys:
    """A key source with these JWKs."""

    algorithms = ("RS256", "ES256")

    def __init__(self, *jwks: dict[str, Any]) -> None:
        self.keys = JWKSet.parse(orjson.dumps({"keys": jwks}))

    async def find(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        return self.keys.find(algorithm, kid)

    async def has(self, key_id: str) -> bool:
        return key_id in self.keys.ids


def verifier(clock: FakeClock, keys: KeySource | None = None, **more: Any) -> JWTVerifier:
    keys = keys or SharedSecret(SECRET)
    options: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "scope_claim": "scope"}
    return JWTVerifier(keys, clock, **{**options, **more})


async def refusal(verifier: JWTVerifier, token: str) -> str:
    """Why *token* is refused."""
    with pytest.raises(InvalidCredential) as error:
        await verifier.verify(token)
    orjson.dumps(error.value.message)  # it can be sent
    return error.value.message


# --- valid tokens


async def test_a_token_with_the_shared_secret_is_valid(clock: FakeClock) -> None:
    payload = claims(clock, jti="7")
    secret = SharedSecret(SECRET)
    principal = await verifier(clock, secret).verify(sign(SECRET, payload))
    key, _ = credentials = principal.credentials
    assert credentials == (key, "token:7")
    assert await secret.has(key)
    assert not await SharedSecret(SECRET + ".").has(key)
    expires_us = (payload["exp"] + LEEWAY_S) * SECOND
    assert principal == Principal("user:alice", "alice", USER_SCOPES, credentials, expires_us)


async def test_tokens_with_public_keys_are_valid(clock: FakeClock) -> None:
    keys = PublicKeys(public_jwk(rsa_key(), kid="r"), public_jwk(ec_key(), kid="e"))
    for key, kid in ((rsa_key(), "r"), (ec_key(), "e")):
        principal = await verifier(clock, keys).verify(sign(key, claims(clock), kid=kid))
        assert principal.owner == "alice"
        [credential] = principal.credentials
        assert await keys.has(credential)


async def test_an_audience_may_be_one_of_several(clock: FakeClock) -> None:
    payload = claims(clock, aud=["other.example", AUDIENCE])
    assert (await verifier(clock).verify(sign(SECRET, payload))).owner == "alice"


async def test_issuer_and_audience_are_optional_with_a_shared_secret(clock: FakeClock) -> None:
    lenient = verifier(clock, issuer=None, audience=None)
    token = sign(SECRET, claims(clock, iss=None, aud=None))
    assert (await lenient.verify(token)).owner == "alice"
    # RFC 7519, 4.1.3: who is not in the audience of a token refuses it.
    assert await refusal(lenient, sign(SECRET, claims(clock))) == (
        "the token is for another audience"
    )


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
async def test_types_of_access_tokens_are_accepted(typ: str, clock: FakeClock) -> None:
    assert (await verifier(clock).verify(sign(SECRET, claims(clock), typ=typ))).owner == "alice"


async def test_keys_and_addresses_in_a_header_are_ignored(clock: FakeClock) -> None:
    header = {
        "jwk": public_jwk(rsa_key(1)),
        "jku": "http://127.0.0.1:1/keys",
        "x5u": "http://127.0.0.1:1/keys",
        "x5c": ["MIIB"],
    }
    assert (await verifier(clock).verify(sign(SECRET, claims(clock), **header))).owner == "alice"
    keys = PublicKeys(public_jwk(rsa_key(), kid="r"))
    forged = sign(rsa_key(1), claims(clock), kid="r", **header)
    assert "not signed" in await refusal(verifier(clock, keys), forged)


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        (None, USER_SCOPES),
        ("", USER_SCOPES),
        ("openid profile", USER_SCOPES),
        (["openid", "worker:"], USER_SCOPES),
        ("openid jobs:read", {"jobs:read"}),
        ("admin", {"admin"}),
        (
            ["audit:export", "worker:resize", "worker:*"],
            {"audit:export", "worker:resize", "worker:*"},
        ),
    ],
)
async def test_scopes_are_those_of_the_service(
    scope: Any, scopes: set[str], clock: FakeClock
) -> None:
    payload = claims(clock, scope=scope, roles=["admin"])
    assert (await verifier(clock).verify(sign(SECRET, payload))).scopes == scopes


async def test_the_claim_of_scopes_can_be_chosen(clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, scope="admin", roles=["jobs:submit"]))
    principal = await verifier(clock, scope_claim="roles").verify(token)
    assert principal.scopes == {"jobs:submit"}


@pytest.mark.parametrize("scope", [7, {"admin": True}, [7], True])
async def test_scopes_of_another_type_are_refused(scope: Any, clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, scope=scope))
    assert "the scopes of a token" in await refusal(verifier(clock), token)


async def test_names_of_principals_have_no_slash_and_are_distinct(clock: FakeClock) -> None:
    subjects = ["a/b", "a%2Fb", "auth0|1", "zoë@example.com", "a b"]
    tokens = [sign(SECRET, claims(clock, sub=each)) for each in subjects]
    principals = [await verifier(clock).verify(each) for each in tokens]
    assert [each.owner for each in principals] == subjects
    assert [each.name for each in principals] == [
        "user:a%2Fb",
        "user:a%252Fb",
        "user:auth0|1",
        "user:zoë@example.com",
        "user:a b",
    ]


# --- algorithms


async def test_the_algorithm_is_not_for_the_token_to_choose(clock: FakeClock) -> None:
    keys = PublicKeys(public_jwk(rsa_key(), kid="r"))
    secret, public = verifier(clock), verifier(clock, keys)
    payload = claims(clock)
    unsigned = forge({"alg": "none"}, payload).rpartition(".")[0] + "."
    tokens = [unsigned, forge({"alg": "none"}, payload), forge({"alg": "None"}, payload)]
    others: list[Any] = ["HS384", "", None, ["HS256"], {}]
    tokens += [forge({"alg": each}, payload) for each in others]
    tokens += [forge({}, payload)]
    for token in (*tokens, sign(rsa_key(), payload, kid="r")):
        assert await refusal(secret, token) == "tokens are signed with HS256"
    for token in (*tokens, sign(SECRET, payload, kid="r")):
        assert await refusal(public, token) == "tokens are signed with RS256 or ES256"


async def test_a_public_key_is_never_a_shared_secret(clock: FakeClock) -> None:
    public = verifier(clock, PublicKeys(public_jwk(rsa_key(), kid="r")))
    key = rsa_key().public_key()
    formats = (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1)
    published = [key.public_bytes(Encoding.PEM, each) for each in formats]
    published += [orjson.dumps(public_jwk(rsa_key()))]
    for each in published:
        for secret in (each, each.strip()):
            token = forge({"alg": "HS256", "kid": "r"}, claims(clock), secret)
            assert await refusal(public, token) == "tokens are signed with RS256 or ES256"
            with pytest.raises(InvalidInput, match="public key"):
                SharedSecret(secret.decode())


async def test_a_key_is_for_its_own_algorithm(clock: FakeClock) -> None:
    public = verifier(clock, PublicKeys(public_jwk(rsa_key(), kid="r")))
    assert "not signed" in await refusal(public, sign(ec_key(), claims(clock), kid="r"))


async def test_extensions_that_a_token_calls_critical_are_refused(clock: FakeClock) -> None:
    for crit, more in ((["exp"], {}), (["b64"], {"b64": True}), ([], {}), ("b64", {}), (None, {})):
        token = forge({"alg": "HS256", "crit": crit, **more}, claims(clock))
        assert await refusal(verifier(clock), token)
    assert await refusal(verifier(clock), forge({"alg": "HS256", "b64": False}, claims(clock)))


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "JWE", 7])
async def test_tokens_of_other_types_are_refused(typ: Any, clock: FakeClock) -> None:
    token = forge({"alg": "HS256", "typ": typ}, claims(clock))
    assert "another type" in await refusal(verifier(clock), token)


# --- claims


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"exp": None}, "the token has no exp"),
        ({"sub": None}, "the token has no sub"),
        ({"aud": None}, "the token has no aud"),
        ({"iss": None}, "the token has no iss"),
        ({"aud": "other.example"}, "the token is for another audience"),
        ({"aud": ["other.example"]}, "the token is for another audience"),
        ({"aud": [AUDIENCE, 7]}, "the token is for another audience"),
        ({"aud": AUDIENCE + "."}, "the token is for another audience"),
        ({"iss": ISSUER + "/"}, "the token is of another issuer"),
        ({"iss": "http://issuer.example"}, "the token is of another issuer"),
        ({"sub": "anonymous"}, "the sub of a token is not 'anonymous'"),
        ({"sub": 7}, "the token is malformed"),
        ({"jti": 7}, "the token is malformed"),
    ],
)
async def test_a_wrong_claim_is_named(more: dict[str, Any], reason: str, clock: FakeClock) -> None:
    token = forge({"alg": "HS256"}, claims(clock, **more))
    assert await refusal(verifier(clock), token) == reason


@pytest.mark.parametrize(
    "subject", ["", "a\nb", "a\0", "a\u2028b", "\u202ea", "a" * (SUBJECT_CHARS_MAX + 1)]
)
async def test_a_subject_can_be_an_owner(subject: str, clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, sub=subject))
    assert "the sub of a token is printable" in await refusal(verifier(clock), token)


async def test_half_of_a_character_is_no_subject(clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, sub="\ud800"))
    assert "the sub of a token is printable" in await refusal(verifier(clock), token)


@pytest.mark.parametrize("text", ["\ud800", "worker:\ud800", "worker:\0", "a\udfffb"])
@pytest.mark.parametrize("name", ["iss", "aud", "sub", "jti", "scope", "kid", "typ", "other"])
async def test_what_a_principal_has_of_a_token_can_be_sent(
    name: str, text: str, clock: FakeClock
) -> None:
    """JSON can write half of a character; UTF-8 cannot."""
    header = {"alg": "HS256"} | ({name: text} if name in ("kid", "typ") else {})
    for value in (text, [text]):
        body = {} if name in header else {name: value}
        payload = orjson.Fragment(json.dumps(claims(clock, **body)))
        try:
            principal = await verifier(clock).verify(
                forge(orjson.Fragment(json.dumps(header)), payload)
            )
        except InvalidCredential as error:
            orjson.dumps(error.message)
        else:
            sent = [principal.name, principal.owner, *principal.scopes, *principal.credentials]
            orjson.dumps(sent)
            assert all(each.isprintable() for each in sent if each is not None)


# --- times


async def test_a_token_is_valid_until_it_expires(clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock))
    await clock.advance(300 + LEEWAY_S - 1)
    await verifier(clock).verify(token)
    await clock.advance(1)
    assert await refusal(verifier(clock), token) == "the token has expired"


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_a_token_of_the_future_is_not_valid_yet(name: str, clock: FakeClock) -> None:
    at_s = clock.now_us() // SECOND + LEEWAY_S + 10
    token = sign(SECRET, claims(clock, **{name: at_s}))
    assert await refusal(verifier(clock), token) == (
        f"the token is not valid yet: its {name} is in the future"
    )
    await clock.advance(10)
    await verifier(clock).verify(token)


async def test_times_may_have_fractions(clock: FakeClock) -> None:
    payload = claims(clock, exp=clock.now_us() / SECOND + 0.5)
    principal = await verifier(clock).verify(sign(SECRET, payload))
    assert principal.expires_us == clock.now_us() + 500_000 + LEEWAY_S * SECOND


@pytest.mark.parametrize("value", ["1", True, -1, 10**300, [1], {}, "2025-01-01T00:00:00Z"])
@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
async def test_a_time_is_a_number(name: str, value: Any, clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, **{name: value}))
    assert f"the {name} of a token is a number" in await refusal(verifier(clock), token)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
async def test_a_time_is_finite(value: str, clock: FakeClock) -> None:
    payload = orjson.dumps(claims(clock, nbf="?")).replace(b'"?"', value.encode())
    token = forge({"alg": "HS256"}, orjson.Fragment(payload))
    assert "the nbf of a token is a number" in await refusal(verifier(clock), token)


# --- garbage


async def test_a_changed_token_is_refused(clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock))
    header, payload, signature = token.split(".")
    other = sign(SECRET, claims(clock, sub="bob")).split(".")[1]
    secret = forge({"alg": "HS256"}, claims(clock), b"another secret of 32 bytes or more")
    for changed in (f"{header}.{other}.{signature}", f"{header}.{payload}.", secret):
        assert "not signed" in await refusal(verifier(clock), changed)


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "e30.e30.",
        "eyJhbGciOiJIUzI1NiJ9..",
        "eyJhbGciOiJIUzI1NiJ9.e30",
        "eyJhbGciOiJIUzI1NiJ9.!!!.e30",
        "eyJhbGciOiJIUzI1NiJ9.W10.e30",
        "€.€.€",
        "\udcff.\udcff.\udcff",
        "." * 100,
        forge([], []),
        forge("HS256", 7),
        forge({"alg": "HS256"}, []),
        forge({"alg": "HS256"}, "alice"),
        forge({"alg": "HS256"}, None),
        forge({"alg": "HS256", "kid": 7}, {}),
        forge({"alg": "HS256", "kid": None}, {}),
        forge({"alg": "HS256"}, orjson.Fragment(b'{"exp":' + b"9" * 5000 + b"}")),
        forge({"alg": "HS256"}, orjson.Fragment(b"[" * 5000)),
        forge(orjson.Fragment(b"[" * 5000), {}),
        forge({"alg": "HS256"}, orjson.Fragment(b"\xff")),
    ],
    ids=lambda token: repr(token[:30]),
)
async def test_what_is_no_token_is_refused(token: str, clock: FakeClock) -> None:
    assert await refusal(verifier(clock), token)


async def test_a_token_has_a_limit(clock: FakeClock) -> None:
    token = sign(SECRET, claims(clock, sub="a" * 100, more="m" * TOKEN_BYTES_MAX))
    assert "at most 8192 bytes" in await refusal(verifier(clock), token)


@pytest.mark.parametrize("credential", ["", "a.b", "ej_key_1", "a.b.c.d", "ej_ses_1"])
def test_other_credentials_are_not_for_this_verifier(credential: str, clock: FakeClock) -> None:
    assert not verifier(clock).recognizes(credential)
    assert verifier(clock).recognizes(sign(SECRET, claims(clock)))

"""Which keys of a JWK Set are used, and for which tokens."""

import base64
from typing import Any

import orjson
import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from eventjobs.auth.jwk_set import KEYS_MAX, JWKSet
from eventjobs.errors import InvalidInput
from tests.support.issuer import ec_key, public_jwk, rsa_key


def parse(*keys: Any) -> JWKSet:
    return JWKSet.parse(orjson.dumps({"keys": keys}))


def test_keys_are_found_by_algorithm_and_name() -> None:
    rsa, ec = public_jwk(rsa_key(), kid="a"), public_jwk(ec_key(), kid="b")
    keys = parse(rsa, ec)
    assert len(keys) == 2
    assert [each.kid for each in keys.find("RS256", "a")] == ["a"]
    assert [each.kid for each in keys.find("ES256", "b")] == ["b"]
    for algorithm, kid in (("ES256", "a"), ("RS256", "b"), ("RS256", "c"), ("HS256", "a")):
        assert not keys.find(algorithm, kid)


def test_a_name_may_stand_for_several_keys() -> None:
    keys = parse(*(public_jwk(each, kid="a") for each in (rsa_key(), rsa_key(1), ec_key())))
    assert len(keys.find("RS256", "a")) == 2
    assert len(keys.find("ES256", "a")) == 1


def test_a_token_without_a_name_has_the_only_key() -> None:
    unnamed, named = public_jwk(rsa_key()), public_jwk(rsa_key(1), kid="a")
    assert len(parse(unnamed).find("RS256", None)) == 1
    assert len(parse(named).find("RS256", None)) == 1
    assert len(parse(unnamed, public_jwk(ec_key())).find("RS256", None)) == 1
    assert not parse(unnamed, named).find("RS256", None)
    assert not parse(unnamed).find("RS256", "a")


def test_a_thumbprint_is_that_of_the_key_alone() -> None:
    """The example of RFC 7638, 3.1."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc"
        "_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ"
        "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF"
        "TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    keys = parse({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
    sha256 = base64.urlsafe_b64decode("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs=")
    assert keys.ids == {f"jwk:{sha256.hex()}"}


@pytest.mark.parametrize(
    "more",
    [
        {"use": "enc"},
        {"alg": "RS512"},
        {"alg": "PS256"},
        {"alg": "ES256"},
        {"alg": "HS256"},
        {"alg": "RSA-OAEP"},
        {"alg": 7},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"kid": 7},
        {"n": ""},
        {"n": "€"},
        {"n": "AQAB"},
        {"e": "AA"},
        {"e": "Ag"},
        {"n": 7},
        {"kty": "rsa"},
        {"kty": "EC"},
        {"kty": None},
    ],
    ids=str,
)
def test_keys_for_other_uses_are_left_out(more: dict[str, Any]) -> None:
    wrong = {**public_jwk(rsa_key(), kid="a"), **more}
    assert len(parse(wrong)) == 0
    assert len(parse(wrong, public_jwk(rsa_key(1), kid="b"))) == 1


def test_private_keys_are_left_out() -> None:
    """Every reader of the set could sign with them."""
    rsa = RSAAlgorithm.to_jwk(rsa_key(), as_dict=True) | {"key_ops": ["verify"]}
    ec = ECAlgorithm.to_jwk(ec_key(), as_dict=True)
    assert "d" in rsa.keys() & ec.keys()
    assert len(parse(rsa, ec)) == 0


@pytest.mark.parametrize("more", [{}, {"use": "sig"}, {"alg": "RS256"}, {"key_ops": ["verify"]}])
def test_keys_that_say_that_they_are_for_signatures_are_used(more: dict[str, Any]) -> None:
    assert len(parse(public_jwk(rsa_key(), kid="a", **more))) == 1


def test_weak_keys_and_other_curves_are_left_out() -> None:
    assert len(parse(public_jwk(rsa_key(bits=1024)))) == 0
    curve = {**public_jwk(ec_key()), "crv": "P-384"}
    off_the_curve = {**public_jwk(ec_key()), "y": public_jwk(ec_key(1))["y"]}
    secret = {"kty": "oct", "k": "c2VjcmV0"}
    for wrong in (curve, off_the_curve, secret, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}):
        assert len(parse(wrong)) == 0


@pytest.mark.parametrize("key", [None, 7, "key", [], {}, True])
def test_what_is_no_key_is_left_out(key: Any) -> None:
    assert len(parse(key)) == 0


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b"{}", b"[]", b"null", b'{"keys": {}}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_set_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInput):
        JWKSet.parse(document)


def test_a_set_has_a_limit() -> None:
    assert len(parse(*[public_jwk(ec_key())] * KEYS_MAX)) == KEYS_MAX
    with pytest.raises(InvalidInput, match="more than 100 keys"):
        parse(*[public_jwk(ec_key())] * (KEYS_MAX + 1))

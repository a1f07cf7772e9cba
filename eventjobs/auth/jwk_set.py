"""JSON Web Keys (RFC 7517): the public keys of an issuer of tokens."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from jwt import PyJWK, PyJWTError

from eventjobs.auth.principals import JWK_PREFIX
from eventjobs.errors import InvalidInput

KEYS_MAX = 100
#: RFC 7518, 3.3.
RSA_BITS_MIN = 2048


class VerificationKey(NamedTuple):
    """A key, for one algorithm. *kid* is its name, which another key may get later; *id* has
    the thumbprint of the key itself (RFC 7638), and is a credential of principals.
    """

    jwk: PyJWK
    kid: str | None
    id: str


class JWKSet:
    """The keys for RS256 and ES256 of a JWK Set (RFC 7517, 5)."""

    def __init__(self, keys: Sequence[VerificationKey] = ()) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @classmethod
    def parse(cls, document: bytes) -> "JWKSet":
        """The keys of *document*, without those for other uses and algorithms, as RFC 7517, 5
        demands. Raises InvalidInput for what is not a set, or has more than KEYS_MAX keys.
        """
        try:
            parsed = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            raise InvalidInput("the document is not JSON") from error
        keys = parsed.get("keys") if isinstance(parsed, dict) else None
        if not isinstance(keys, list):
            raise InvalidInput("the document has no list of keys")
        if len(keys) > KEYS_MAX:
            raise InvalidInput(f"the document has more than {KEYS_MAX} keys")
        return cls([key for each in keys if (key := _parse_key(each)) is not None])

    def find(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that a token with this header may be signed with.

        Keys with one *kid* are alternatives (RFC 7517, 4.5). A token without *kid* is possible
        while there is one key (OpenID Connect Core, 10.1).
        """
        keys = [each for each in self._keys if each.jwk.algorithm_name == algorithm]
        if kid is None:
            return keys if len(keys) == 1 else []
        return [each for each in keys if each.kid == kid]

    @property
    def ids(self) -> set[str]:
        return {each.id for each in self._keys}


def make_key(jwk: dict[str, Any], algorithm: str, *members: str) -> VerificationKey:
    """*jwk* for *algorithm*; its *members* that a key of its kind has to have, in order, are the
    key itself. Raises PyJWTError, ValueError.
    """
    required = orjson.dumps({name: jwk[name] for name in members})
    thumbprint = hashlib.sha256(required).hexdigest()
    return VerificationKey(PyJWK(jwk, algorithm), jwk.get("kid"), f"{JWK_PREFIX}{thumbprint}")


def _parse_key(jwk: Any) -> VerificationKey | None:
    """*jwk*; None if it is not a public key for signatures of ours."""
    match jwk:
        case {"kty": "RSA", "n": str(), "e": str()}:
            algorithm, members = "RS256", ["e", "kty", "n"]
        case {"kty": "EC", "crv": "P-256", "x": str(), "y": str()}:
            algorithm, members = "ES256", ["crv", "kty", "x", "y"]
        case _:
            return None
    operations = jwk.get("key_ops", ["verify"])
    if (
        "d" in jwk  # a private key that is public signs for everybody
        or jwk.get("use", "sig") != "sig"
        or jwk.get("alg", algorithm) != algorithm
        or not isinstance(operations, list)
        or "verify" not in operations
        or not isinstance(jwk.get("kid"), str | None)
    ):
        return None
    try:
        key = make_key(jwk, algorithm, *members)
    except (PyJWTError, ValueError):
        return None
    if algorithm == "RS256" and key.jwk.key.key_size < RSA_BITS_MIN:
        return None
    return key

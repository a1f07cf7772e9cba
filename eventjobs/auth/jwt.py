"""JSON Web Tokens (RFC 7519, RFC 8725) as credentials."""

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import jwt
from jwt.types import Options

from eventjobs.auth.jwk_set import VerificationKey, make_key
from eventjobs.auth.principals import (
    ANONYMOUS_OWNER,
    USER_SCOPES,
    Principal,
    is_scope,
)
from eventjobs.clock import Clock
from eventjobs.errors import InvalidCredential, InvalidInput

TOKEN_BYTES_MAX = 8192
#: By how much the clocks of the issuer and of the service may differ. A token is valid for so long
#: after its `exp`.
LEEWAY_S = 30
#: As of the owner of a job.
SUBJECT_CHARS_MAX = 200
#: 9000-01-01, in seconds since 1970.
LAST_S = 221_845_392_000
#: Values of the header `typ`. A token of another type is not for access (RFC 8725, 3.11).
TYPES = ("jwt", "at+jwt", "application/at+jwt")

OPTIONS: Options = {
    "require": ["exp", "sub"],
    "enforce_minimum_key_length": True,
    # These are verified here, by the clock of the service.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class KeySource(Protocol):
    """The keys that tokens are verified with. They decide about the algorithms, not the token."""

    @property
    def algorithms(self) -> tuple[str, ...]: ...

    async def find(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that a token with this header may be signed with. Raises KeysUnavailable."""

    async def has(self, key_id: str) -> bool:
        """Whether tokens of this key are accepted. Raises KeysUnavailable."""


class SharedSecret:
    """The key of tokens that are signed with HS256. Raises InvalidInput for a *secret* that is a
    public key, because that is known to others.
    """

    algorithms = ("HS256",)

    def __init__(self, secret: str) -> None:
        k = base64.urlsafe_b64encode(secret.encode()).decode()
        self._key = make_key({"kty": "oct", "k": k}, "HS256", "k", "kty")
        try:
            self._key.jwk.Algorithm.prepare_key(self._key.jwk.key)
        except jwt.InvalidKeyError as error:
            raise InvalidInput("the secret of tokens is a public key, or a JWK") from error

    async def find(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        return [self._key]

    async def has(self, key_id: str) -> bool:
        return key_id == self._key.id


class JWTVerifier:
    """Verifies tokens: their signature with *keys*, their `iss` and `aud`, and their times.

    Without an *audience*, a token that has one is refused (RFC 7519, 4.1.3).
    """

    def __init__(
        self,
        keys: KeySource,
        clock: Clock,
        *,
        issuer: str | None,
        audience: str | None,
        scope_claim: str,
    ) -> None:
        self.keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._scope_claim = scope_claim

    def recognizes(self, credential: str) -> bool:
        return credential.count(".") == 2

    async def verify(self, credential: str) -> Principal:
        """The principal of a token. Raises InvalidCredential, KeysUnavailable."""
        algorithm, kid = self._check_header(credential)
        for key in await self.keys.find(algorithm, kid):
            claims = self._decode(credential, key)
            if claims is not None:
                return self._principal(claims, key)
        raise InvalidCredential("the token is not signed with a key of its issuer")

    def _check_header(self, token: str) -> tuple[str, str | None]:
        """Its `alg` and `kid`. Addresses and keys in the header are ignored (RFC 8725, 3.10)."""
        if len(token) > TOKEN_BYTES_MAX or not token.isascii():
            raise InvalidCredential(f"a token has at most {TOKEN_BYTES_MAX} bytes, all of ASCII")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise InvalidCredential("the token is malformed") from error
        if "crit" in header:
            raise InvalidCredential("the token has extensions (crit), which are not supported")
        if str(header.get("typ", "JWT")).lower() not in TYPES:
            raise InvalidCredential("the token is of another type than JWT or at+jwt")
        if header.get("alg") not in self.keys.algorithms:
            supported = " or ".join(self.keys.algorithms)
            raise InvalidCredential(f"tokens are signed with {supported}")
        return header["alg"], header.get("kid")

    def _decode(self, token: str, key: VerificationKey) -> dict[str, Any] | None:
        """The verified claims; None if the signature is not of *key*."""
        try:
            return jwt.decode(
                token,
                key.jwk,
                algorithms=[key.jwk.algorithm_name],
                options=OPTIONS,
                issuer=self._issuer,
                audience=self._audience,
            )
        except jwt.InvalidSignatureError:
            return None
        except jwt.MissingRequiredClaimError as error:
            raise InvalidCredential(f"the token has no {error.claim}") from error
        except jwt.InvalidAudienceError as error:
            raise InvalidCredential("the token is for another audience") from error
        except jwt.InvalidIssuerError as error:
            raise InvalidCredential("the token is of another issuer") from error
        except jwt.PyJWTError as error:
            raise InvalidCredential("the token is malformed") from error

    def _principal(self, claims: dict[str, Any], key: VerificationKey) -> Principal:
        expires_us = self._check_times(claims)
        subject = claims["sub"]
        if not (0 < len(subject) <= SUBJECT_CHARS_MAX and subject.isprintable()):
            raise InvalidCredential(
                f"the sub of a token is printable and has at most {SUBJECT_CHARS_MAX} characters"
            )
        if subject == ANONYMOUS_OWNER:
            raise InvalidCredential(f"the sub of a token is not {ANONYMOUS_OWNER!r}")
        credentials = [key.id]
        if "jti" in claims:
            if not claims["jti"].isprintable():  # half of a character cannot be stored or sent
                raise InvalidCredential("the jti of a token is printable")
            credentials.append(f"token:{claims['jti']}")
        name = subject.replace("%", "%25").replace("/", "%2F")
        scopes = _parse_scopes(claims.get(self._scope_claim))
        return Principal(f"user:{name}", subject, scopes, tuple(credentials), expires_us)

    def _check_times(self, claims: dict[str, Any]) -> int:
        """When the token expires, with the leeway, in microseconds since 1970."""
        now_s = self._clock.now_us() / 1e6
        expires_s = _parse_time(claims, "exp") + LEEWAY_S
        if expires_s <= now_s:
            raise InvalidCredential("the token has expired")
        for name in ("nbf", "iat"):
            if name in claims and _parse_time(claims, name) > now_s + LEEWAY_S:
                raise InvalidCredential(f"the token is not valid yet: its {name} is in the future")
        return int(expires_s * 1e6)


def _parse_time(claims: dict[str, Any], name: str) -> float:
    """The claim in seconds since 1970 (RFC 7519, 2: NumericDate)."""
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= LAST_S:
        raise InvalidCredential(f"the {name} of a token is a number of seconds since 1970")
    return float(value)


def _parse_scopes(claim: Any) -> frozenset[str]:
    """The scopes of the service that *claim* names (RFC 8693, 4.2, or a list of texts)."""
    names = claim.split() if isinstance(claim, str) else claim or []
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise InvalidCredential("the scopes of a token are a text or a list of texts")
    return frozenset(filter(is_scope, names)) or USER_SCOPES

"""An issuer of JWTs: its keys, the tokens that it signs, and a server with its public keys."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from eventjobs.clock import Clock
from tests.support.external_service import http_server

ISSUER = "https://issuer.example"
AUDIENCE = "jobs.example"
SECRET = "a secret of tests, which has 32 bytes or more"


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, **more: Any) -> dict[str, Any]:
    """The public key as a JWK; *more* are further members."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, **more}


def claims(clock: Clock, **more: Any) -> dict[str, Any]:
    """Those of a valid token of alice, for five minutes; *more* replaces some, None removes."""
    now_s = clock.now_us() // 1_000_000
    valid = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now_s, "exp": now_s + 300}
    return {name: value for name, value in {**valid, **more}.items() if value is not None}


def sign(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | str, payload: Any, **header: Any
) -> str:
    """A token, by the algorithm that fits the key."""
    algorithm = "HS256" if isinstance(key, str) else "ES256"
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    return jwt.encode(payload, key, algorithm, headers=header)


def forge(header: Any, payload: Any, secret: bytes = SECRET.encode()) -> str:
    """A token with any header, signed as HS256 is."""
    signed = b".".join(_base64(orjson.dumps(each)) for each in (header, payload))
    return b".".join((signed, _base64(hmac.digest(secret, signed, hashlib.sha256)))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@dataclass
class KeyServer:
    """A server with the public *keys*, or with *response*. It counts its requests."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    response: web.Response | None = None
    requests: int = 0
    #: Cleared to hold the responses back.
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def respond(self, request: web.Request) -> web.Response:
        self.requests += 1
        await self.open.wait()
        if self.response is not None:
            response, self.response = self.response, None
            return response
        return web.json_response({"keys": self.keys})


@asynccontextmanager
async def serving_keys(*keys: dict[str, Any]) -> AsyncIterator[KeyServer]:
    server = KeyServer(keys=list(keys))
    server.open.set()
    async with http_server(server.respond) as port:
        server.url = f"http://127.0.0.1:{port}/keys"
        yield server

"""The keys of an issuer of tokens, fetched from its `jwks_uri` (OpenID Connect Discovery, 3)."""

import asyncio
from collections.abc import Callable, Sequence

from yarl import URL

from eventjobs.auth.jwk_set import JWKSet, VerificationKey
from eventjobs.auth.jwt import JWTVerifier, SharedSecret
from eventjobs.clock import Clock, sleep
from eventjobs.errors import InvalidInput, KeysUnavailable, OutboundError
from eventjobs.observability.logging import get_logger
from eventjobs.outbound.client import OutboundClient
from eventjobs.settings import Settings

TIMEOUT_S = 10.0
DOCUMENT_BYTES_MAX = 2**18
#: Seconds from one fetch to the next, as nothing demands one.
INTERVAL_S = 600.0
#: Seconds from one fetch to the next at least: tokens with unknown keys cannot cause more requests.
INTERVAL_MIN_S = 60.0
#: The same while there are no keys yet, so that no token is accepted.
FIRST_INTERVAL_S = 5.0


class JWKS:
    """The keys at *url*. Those of the last successful fetch are kept while fetches fail.

    Raises InvalidInput for what is not a URL.
    """

    algorithms = ("RS256", "ES256")

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        try:
            target = URL(url)
            address = f"{target.host_subcomponent}:{target.port}"
        except ValueError as error:
            raise InvalidInput(f"{url} is no address of keys: {error}") from error
        # The operator chose the address, so it may be one that is not public.
        self._outbound = OutboundClient(clock, address)
        self._keys: JWKSet | None = None
        self._fetched_s: float | None = None
        self._failed = False
        self._fetch = asyncio.Lock()
        self._revoke: list[Callable[[str], object]] = []
        self._log = get_logger("eventjobs.jwks")

    def on_removed(self, revoke: Callable[[str], object]) -> None:
        """Call *revoke* with the id of each key that is no longer there."""
        self._revoke.append(revoke)

    async def run(self) -> None:
        """Fetch the keys now and every INTERVAL_S seconds, until cancelled. A failed fetch is
        repeated sooner.
        """
        while True:
            await self.refresh()
            await sleep(self._clock, self._interval_min_s if self._failed else INTERVAL_S)

    async def close(self) -> None:
        await self._outbound.close()

    async def find(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that a token with this header may be signed with. Raises KeysUnavailable while
        there has been no successful fetch.
        """
        keys = None if self._keys is None else self._keys.find(algorithm, kid)
        if not keys:
            await self.refresh()
            if self._keys is None:
                raise KeysUnavailable
            keys = self._keys.find(algorithm, kid)
        return keys

    async def has(self, key_id: str) -> bool:
        """Whether tokens of this key are accepted. Raises KeysUnavailable as *find*."""
        if self._keys is None:
            await self.refresh()
        if self._keys is None:
            raise KeysUnavailable
        return key_id in self._keys.ids

    async def refresh(self) -> None:
        """Fetch the keys, unless the last fetch was a moment ago. A failure is logged."""
        async with self._fetch:  # concurrent callers share one fetch
            now_s = self._clock.monotonic_s()
            if self._fetched_s is not None and now_s - self._fetched_s < self._interval_min_s:
                return
            try:
                self._replace(JWKSet.parse(await self._get()))
            except (InvalidInput, OutboundError) as error:
                if not self._failed:
                    self._log.warning("keys not fetched", url=self._url, error=error.message)
                self._failed = True
            self._fetched_s = self._clock.monotonic_s()

    @property
    def _interval_min_s(self) -> float:
        return FIRST_INTERVAL_S if self._keys is None else INTERVAL_MIN_S

    async def _get(self) -> bytes:
        response = await self._outbound.get(
            self._url,
            {"Accept": "application/jwk-set+json, application/json"},
            timeout_s=TIMEOUT_S,
            response_bytes_max=DOCUMENT_BYTES_MAX,
        )
        if response.status != 200:
            raise InvalidInput(f"the answer has the status {response.status}")
        if not response.whole:
            raise InvalidInput(f"the document has more than {DOCUMENT_BYTES_MAX} bytes")
        return response.body

    def _replace(self, keys: JWKSet) -> None:
        previous = JWKSet() if self._keys is None else self._keys
        if self._failed or self._keys is None or keys.ids != previous.ids:
            report = self._log.info if keys else self._log.warning
            report("keys fetched", url=self._url, usable=len(keys))
        self._keys, self._failed = keys, False
        for each in previous.ids - keys.ids:
            for revoke in self._revoke:
                revoke(each)


def build_jwt_verifier(settings: Settings, clock: Clock) -> tuple[JWTVerifier, JWKS | None]:
    """The verifier for `jwt_secret` or `jwks_url`, and the keys that are to be fetched for it.

    Raises InvalidInput.
    """
    jwks = None
    keys: SharedSecret | JWKS
    if settings.jwks_url is not None:
        keys = jwks = JWKS(settings.jwks_url, clock)
    else:
        assert settings.jwt_secret is not None
        keys = SharedSecret(settings.jwt_secret.get_secret_value())
    verifier = JWTVerifier(
        keys,
        clock,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        scope_claim=settings.jwt_scope_claim,
    )
    return verifier, jwks

"""Rate limits: how many requests of a kind one principal, or one address, may send in a period.

A period begins with a request and ends after the seconds of the rate; the next one begins with the
next request. Refused requests do not lengthen it.
"""

import math
from collections import OrderedDict
from enum import StrEnum
from typing import NamedTuple

from aiohttp import web

from eventjobs.auth.principals import ANONYMOUS, LOCAL, Principal
from eventjobs.clock import Clock
from eventjobs.http.proxies import client_network
from eventjobs.http.request_errors import RateLimited
from eventjobs.settings import Settings
from eventjobs.settings.formats import RatesByKind

#: Periods of one rate that are remembered. Beyond it the oldest one is forgotten.
PERIODS_MAX = 100_000


class RequestKind(StrEnum):
    """Requests that are counted together."""

    SUBMIT = "submit"
    READ = "read"
    STREAM = "stream"
    WORK = "work"


class Usage(NamedTuple):
    """What is left of a rate: requests, below 0 when there are too many, and seconds."""

    rate: "RequestRate"
    remaining: int
    reset_s: float


class RequestRate:
    """At most *amount* requests in *seconds*, for each key."""

    def __init__(self, name: str, amount: int, seconds: int, clock: Clock) -> None:
        self.name = name
        self.amount = amount
        self.seconds = seconds
        self._clock = clock
        #: By key: the end of its period and the requests in it. In the order of their ends.
        self._periods: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._periods)

    def count(self, key: str) -> Usage:
        """Count a request of *key*."""
        now_s = self._clock.monotonic_s()
        end_s, count = self._periods.get(key, (0.0, 0))
        if end_s <= now_s:
            self._drop_ended(now_s)
            self._periods.pop(key, None)
            end_s, count = now_s + self.seconds, 0
        self._periods[key] = end_s, count + 1
        return Usage(self, self.amount - count - 1, end_s - now_s)

    def _drop_ended(self, now_s: float) -> None:
        """Drop the periods that have ended, and one that has not where there are too many."""
        periods = self._periods
        if len(periods) >= PERIODS_MAX:
            periods.popitem(last=False)
        while periods and next(iter(periods.values()))[0] <= now_s:
            periods.popitem(last=False)


class Quota:
    """The rates that apply to one request, and what is left of each."""

    def __init__(
        self, address: str, of_address: RequestRate | None, of_principal: RequestRate | None
    ) -> None:
        self._address = address
        self._of_principal = of_principal
        #: The rates that the request is counted for, and their keys.
        self._keys: dict[RequestRate, str] = {}
        self._usages: dict[RequestRate, Usage] = {}
        if of_address is not None:
            self._count(of_address, address)

    def count_principal(self, principal: Principal) -> None:
        """Count the request for its principal, once. Without a credential that is the address."""
        rate = self._of_principal
        if rate is not None and rate not in self._keys:
            has_credential = principal is not LOCAL and principal is not ANONYMOUS
            self._count(rate, principal.name if has_credential else self._address)

    def count_again(self) -> None:
        """Count one more request of the same sender. Raises RateLimited."""
        for rate, key in self._keys.items():
            self._count(rate, key)
        self.check()

    def _count(self, rate: RequestRate, key: str) -> None:
        self._keys[rate] = key
        self._usages[rate] = rate.count(key)

    @property
    def exceeded(self) -> bool:
        return any(each.remaining < 0 for each in self._usages.values())

    def check(self) -> None:
        """Raises RateLimited when there are too many requests."""
        waits = [each.reset_s for each in self._usages.values() if each.remaining < 0]
        if waits:
            raise RateLimited(max(waits))

    @property
    def headers(self) -> dict[str, str]:
        """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers)."""
        usages = self._usages.values()
        if not usages:
            return {}
        policies = [f'"{rate.name}";q={rate.amount};w={rate.seconds}' for rate, _, _ in usages]
        left = [
            f'"{rate.name}";r={max(remaining, 0)};t={math.ceil(reset_s)}'
            for rate, remaining, reset_s in usages
        ]
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


#: What is left for the sender of a request. A request without it is not limited.
QUOTA = web.RequestKey("quota", Quota)


class RateLimits:
    """The rates of the settings."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._address = _rates("address", settings.address_rates, clock)
        self._principal = _rates("principal", settings.principal_rates, clock)

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> "RateLimits | None":
        """The rates of *settings*; None without any."""
        rates = settings.address_rates or settings.principal_rates
        return cls(settings, clock) if rates else None

    def count(self, request: web.BaseRequest, kind: RequestKind, address: str) -> Quota | None:
        """Count the request, of *kind*, for *address*. It gets a Quota, if a rate applies."""
        of_address, of_principal = self._address.get(kind), self._principal.get(kind)
        if of_address is None and of_principal is None:
            return None
        request[QUOTA] = quota = Quota(client_network(address), of_address, of_principal)
        return quota


def _rates(subject: str, rates: RatesByKind, clock: Clock) -> dict[RequestKind, RequestRate]:
    if not rates:
        return {}
    from limits import parse  # takes 80 ms, and most services have no rates

    parsed = {RequestKind(kind): parse(text) for kind, text in rates.items()}
    return {
        kind: RequestRate(f"{kind}-{subject}", rate.amount, rate.get_expiry(), clock)
        for kind, rate in parsed.items()
    }

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
from eventjobs.http.request_errors import RateLimited
from eventjobs.settings import Settings
from eventjobs.settings.formats import RatesByKind, parse_rate

#: Periods of one rate that are remembered. Beyond it the oldest one is forgotten.
PERIODS_MAX = 100_000


class RequestKind(StrEnum):
    """Requests that are counted together."""

    SUBMIT = "submit"
    READ = "read"
    STREAM = "stream"
    WORK = "work"


class Usage(NamedTuple):
    """What is left of a rate for a key: requests, below 0 when there are too many, and seconds."""

    rate: "RequestRate"
    key: str
    remaining: int
    reset_s: float


class RequestRate:
    """At most *amount* requests in *seconds*, for each key."""

    def __init__(self, name: str, amount: int, seconds: int, clock: Clock) -> None:
        self.name = name
        self.policy = f'"{name}";q={amount};w={seconds}'
        self._amount = amount
        self._seconds = seconds
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
            end_s, count = now_s + self._seconds, 0
        self._periods[key] = end_s, count + 1
        return Usage(self, key, self._amount - count - 1, end_s - now_s)

    def _drop_ended(self, now_s: float) -> None:
        """Drop the periods that have ended, and one that has not where there are too many."""
        periods = self._periods
        if len(periods) >= PERIODS_MAX:
            periods.popitem(last=False)
        while periods and next(iter(periods.values()))[0] <= now_s:
            periods.popitem(last=False)


class KindRates(NamedTuple):
    """The rates of one kind of request."""

    of_address: RequestRate | None
    of_principal: RequestRate | None


#: The rates of the requests of a route, and of those among them that open a stream.
RouteRates = tuple[KindRates | None, KindRates | None]


class Quota:
    """The rates that apply to one request, which is counted for its address, and what is left."""

    __slots__ = ("_address", "_of_principal", "_usages", "exceeded")

    def __init__(self, rates: KindRates, address: str) -> None:
        self._address = address
        self._of_principal = rates.of_principal
        self._usages: list[Usage] = []
        #: Whether there are too many requests.
        self.exceeded = False
        if rates.of_address is not None:
            self._count(rates.of_address, address)

    def count_principal(self, principal: Principal) -> None:
        """Count the request for its principal, once. Without a credential that is the address."""
        if (rate := self._of_principal) is not None:
            self._of_principal = None
            has_credential = principal is not LOCAL and principal is not ANONYMOUS
            self._count(rate, principal.name if has_credential else self._address)

    def count_again(self) -> None:
        """Count one more request of the same sender. Raises RateLimited."""
        usages, self._usages = self._usages, []
        for each in usages:
            self._count(each.rate, each.key)
        self.check()

    def _count(self, rate: RequestRate, key: str) -> None:
        usage = rate.count(key)
        self._usages.append(usage)
        if usage.remaining < 0:
            self.exceeded = True

    def check(self) -> None:
        """Raises RateLimited when there are too many requests."""
        if self.exceeded:
            raise RateLimited(max(each.reset_s for each in self._usages if each.remaining < 0))

    @property
    def headers(self) -> dict[str, str]:
        """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers)."""
        if not self._usages:
            return {}
        left = [
            f'"{rate.name}";r={max(remaining, 0)};t={math.ceil(reset_s)}'
            for rate, _, remaining, reset_s in self._usages
        ]
        policies = [each.rate.policy for each in self._usages]
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)}


#: What is left for the sender of a request. A request without it is not limited.
QUOTA = web.RequestKey("quota", Quota)


class RateLimits:
    """The rates of the settings."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._address = _rates("address", settings.address_rates, clock)
        self._principal = _rates("principal", settings.principal_rates, clock)

    def of_route(self, kind: RequestKind | None, *, varies: bool) -> RouteRates | None:
        """The rates of requests of *kind*, and of those that open a stream, where a route *varies*.
        None without any.
        """
        rates = self._of_kind(kind)
        stream_rates = self._of_kind(RequestKind.STREAM) if varies else rates
        return None if rates is stream_rates is None else (rates, stream_rates)

    def _of_kind(self, kind: RequestKind | None) -> KindRates | None:
        if kind is None:
            return None
        rates = KindRates(self._address.get(kind), self._principal.get(kind))
        return None if rates == (None, None) else rates


def _rates(subject: str, rates: RatesByKind, clock: Clock) -> dict[RequestKind, RequestRate]:
    return {
        RequestKind(kind): RequestRate(f"{kind}-{subject}", *parse_rate(text), clock)
        for kind, text in rates.items()
    }

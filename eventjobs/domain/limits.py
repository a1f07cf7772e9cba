"""Limits of handlers, types, queues and concurrency keys, as values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from eventjobs.errors import InvalidInput

#: Jobs with one concurrency key that run at once, unless their handler has another number.
KEY_CONCURRENCY = 1
#: Prefix of the concurrency keys of webhook deliveries, one key for each receiver. Validation
#: refuses such a key from a client.
RECEIVER = "\x1f"
#: Deliveries to one receiver that run at once.
RECEIVER_CONCURRENCY = 4
#: Starts within one period of a rate. Each is kept in memory until the period is over.
RATE_MAX = 100_000

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smhd])")


@dataclass(frozen=True)
class Rate:
    """At most *count* starts in any *period_s* seconds (a sliding window)."""

    count: int
    period_s: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """A rate from text like `10/m`: starts, then `s`, `m`, `h` or `d`. Raises InvalidInput."""
        match = _RATE.fullmatch(text)
        if match is None or int(match[1]) > RATE_MAX:
            message = f"a rate is 1 to {RATE_MAX} a second, minute, hour or day, like 10/m"
            raise InvalidInput(message, [{"field": "rate", "message": message}])
        return cls(int(match[1]), _UNITS[match[2]])

    def __str__(self) -> str:
        [unit] = [unit for unit, seconds in _UNITS.items() if seconds == self.period_s]
        return f"{self.count}/{unit}"


@dataclass(frozen=True)
class ConcurrencyLimits:
    """Jobs that run at once, by name of the type or queue. A name without an entry is unlimited."""

    types: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    #: By type: jobs with one concurrency key that run at once.
    keys: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def of_key(self, type: str) -> int:
        return self.keys.get(type, KEY_CONCURRENCY)


@dataclass(frozen=True)
class HandlerLimits:
    """The queue and the limits that a handler declares for its jobs. None is no limit."""

    queue: str | None = None
    concurrency: int | None = None
    key_concurrency: int | None = None
    rate: Rate | None = None

    @classmethod
    def of(
        cls,
        queue: str | None,
        concurrency: int | None,
        key_concurrency: int | None,
        rate: str | None,
    ) -> "HandlerLimits":
        """The limits as @handler takes them, with *rate* like `10/m`. Raises InvalidInput."""
        for name, limit in (("concurrency", concurrency), ("key_concurrency", key_concurrency)):
            if limit is not None and limit < 1:
                message = "a limit is 1 or more; to run none, pause the type"
                raise InvalidInput(message, [{"field": name, "message": message}])
        return cls(queue, concurrency, key_concurrency, Rate.parse(rate) if rate else None)


UNLIMITED = HandlerLimits()

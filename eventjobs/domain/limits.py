"""Limits of handlers, types, queues and concurrency keys, as values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from eventjobs.errors import InvalidInput

#: Of jobs with one concurrency key, so many run at once, unless their handler says.
KEY_CONCURRENCY = 1
#: Begins the keys of deliveries, one for each receiver. No client can give such a key.
RECEIVER = "\x1f"
#: Of deliveries to one receiver, so many are under way at once.
RECEIVER_CONCURRENCY = 4
#: Every start of the last while is remembered: this bounds what that takes.
RATE_MAX = 100_000

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smhd])")


@dataclass(frozen=True)
class Rate:
    """So many starts in any *period_s* seconds, wherever they begin."""

    count: int
    period_s: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """From `10/m`: a number of starts, then `s`, `m`, `h` or `d`. Raises InvalidInput."""
        found = _RATE.fullmatch(text)
        if found is None or int(found[1]) > RATE_MAX:
            message = f"a rate is 1 to {RATE_MAX} a second, minute, hour or day, like 10/m"
            raise InvalidInput(message, [{"field": "rate", "message": message}])
        return cls(int(found[1]), _UNITS[found[2]])

    def __str__(self) -> str:
        [unit] = [unit for unit, seconds in _UNITS.items() if seconds == self.period_s]
        return f"{self.count}/{unit}"


@dataclass(frozen=True)
class ConcurrencyLimits:
    """By name of the type or queue. What is not here does not limit."""

    types: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    #: By type: jobs with one key at once.
    keys: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def of_key(self, type: str) -> int:
        return self.keys.get(type, KEY_CONCURRENCY)


@dataclass(frozen=True)
class HandlerLimits:
    """What a handler says of its jobs. What is None does not limit."""

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
        """As written in a program. Raises InvalidInput."""
        for name, limit in (("concurrency", concurrency), ("key_concurrency", key_concurrency)):
            if limit is not None and limit < 1:
                message = "a limit is 1 or more; to run none, pause the type"
                raise InvalidInput(message, [{"field": name, "message": message}])
        return cls(queue, concurrency, key_concurrency, Rate.parse(rate) if rate else None)


UNLIMITED = HandlerLimits()

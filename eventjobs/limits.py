"""How many jobs of a type, of a queue or with a key run at once, and how many start in a while."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from eventjobs.errors import InvalidInput

#: Of jobs with one concurrency key, so many run at once, unless their handler says.
KEY_CONCURRENCY = 1
KEY_CHARS_MAX = 200
QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
#: Every start of the last while is remembered: this bounds what that takes.
RATE_MAX = 100_000

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([1-9][0-9]{0,5})/([smhd])")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]*")


@dataclass(frozen=True)
class Rate:
    """So many starts in any *period_s* seconds, wherever they begin."""

    count: int
    period_s: int

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """From `10/m`: a number of starts, then `s`, `m`, `h` or `d`. Raises ValueError."""
        found = _RATE.fullmatch(text)
        if found is None or int(found[1]) > RATE_MAX:
            raise ValueError(f"a rate is 1 to {RATE_MAX} a second, minute, hour or day, like 10/m")
        return cls(int(found[1]), _UNITS[found[2]])

    def __str__(self) -> str:
        [unit] = [unit for unit, seconds in _UNITS.items() if seconds == self.period_s]
        return f"{self.count}/{unit}"


@dataclass(frozen=True)
class Limits:
    """By name of the type or queue. What is not here does not limit."""

    types: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)
    #: By type: jobs with one key at once.
    keys: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)

    def of_key(self, type: str) -> int:
        return self.keys.get(type, KEY_CONCURRENCY)


@dataclass(frozen=True)
class HandlerFlow:
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
    ) -> "HandlerFlow":
        """As written in a program. Raises ValueError, and InvalidInput for the queue."""
        check_names(queue, None)
        if not all(limit is None or limit >= 1 for limit in (concurrency, key_concurrency)):
            raise ValueError("a limit is 1 or more; to run none, pause the type")
        return cls(queue, concurrency, key_concurrency, Rate.parse(rate) if rate else None)


UNLIMITED = HandlerFlow()


def check_names(queue: str | None, key: str | None) -> None:
    """Raises InvalidInput naming the field."""
    if queue is not None and (not isinstance(queue, str) or not QUEUE.fullmatch(queue)):
        raise InvalidInput(
            "not the name of a queue",
            [{"field": "queue", "message": "1 to 100 of A-Z a-z 0-9 . _ : -, not first of these"}],
        )
    if key is not None and (
        not isinstance(key, str)
        or not 1 <= len(key) <= KEY_CHARS_MAX
        or not _PRINTABLE.fullmatch(key)
    ):
        raise InvalidInput(
            "not a concurrency key",
            [{"field": "concurrency_key", "message": f"1 to {KEY_CHARS_MAX} printable characters"}],
        )

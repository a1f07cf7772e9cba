"""Times: microseconds since 1970, and their RFC 3339 text."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

#: The last time that RFC 3339 can write, in the year 9999.
MAX_US = 253_402_300_799_999_999
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_MICROSECOND = timedelta(microseconds=1)


def rfc3339(at_us: int) -> str:
    """*at_us* as RFC 3339 in UTC, with microseconds and `Z`. A time that RFC 3339 cannot write
    becomes the nearest one that it can.
    """
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


def naive(at_us: int) -> str:
    """*at_us* in UTC without a zone, as Python's utcnow().isoformat() has it."""
    return rfc3339(at_us).removesuffix("Z").removesuffix(".000000")


def parse_rfc3339(text: str) -> datetime:
    """The time in *text*, which has an offset. Raises ValueError."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("a time in RFC 3339 with its offset, like 2025-01-31T12:00:00Z")
    return datetime.fromisoformat(text.upper())


def microseconds(at: datetime) -> int:
    """*at*, which has a time zone, in whole microseconds since 1970."""
    return (at - EPOCH) // _MICROSECOND


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Cached: a job is rendered with several times, and most times fall into a few seconds.
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"

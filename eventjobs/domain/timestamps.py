"""Microseconds since 1970 as RFC 3339 text."""

from datetime import UTC, datetime
from functools import lru_cache

#: The last moment that RFC 3339 can name, in the year 9999.
MAX_US = 253_402_300_799_999_999


def rfc3339(at_us: int) -> str:
    """*at_us* as RFC 3339 in UTC, with microseconds and `Z`; the nearest time that it can name."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Kept, because one job is told with several times, and most times are of a few seconds.
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return "9999-12-31T23:59:59" if seconds > 0 else "0001-01-01T00:00:00"

"""Finds the type of a column of text: the narrowest one that every value fits."""

from itertools import chain
from typing import NamedTuple

from duckdb import DuckDBPyRelation as Relation

SAMPLE_ROWS = 1_000
#: A text column is said to look like numbers when at least this share of its values does.
ALMOST_SHARE = 0.9


class Candidate(NamedTuple):
    """One way to read a column: *sql* is NULL where the text v does not fit.

    *twin* is a format that may fit the same texts, with another meaning.
    """

    type: str
    sql: str
    format: str | None = None
    twin: str | None = None


TEXT = Candidate("text", "v")


class Typed(NamedTuple):
    """How to read a column. *other_format* fits as well, with another meaning.

    *exceptions* are a few of the *exceptions_count* values that keep it from being numbers.
    """

    candidate: Candidate
    other_format: str | None = None
    exceptions: tuple[str, ...] = ()
    exceptions_count: int = 0


def _when(pattern: str, value: str) -> str:
    return f"CASE WHEN regexp_full_match(v, '{pattern}') THEN {value} END"


def _numbers(group: str, decimal: str, format: str, twin: str | None = None) -> list[Candidate]:
    """Numbers with a separator between thousands: whole ones, and those with decimals."""
    whole = rf"[+-]?(0|[1-9]\d{{0,2}}({group}\d{{3}})*)"
    digits = f"regexp_replace(v, '{group}', '', 'g')"
    number = f"try_cast(replace({digits}, '{decimal}', '.') AS DOUBLE)"
    return [
        Candidate("integer", _when(whole, f"try_cast({digits} AS HUGEINT)"), format, twin),
        Candidate("float", _when(rf"{whole}([{decimal}]\d+)?", number), format, twin),
    ]


def _dates(day: str, twin: str | None = None) -> list[Candidate]:
    """Days, and days with a time."""
    times = [
        f"{day} {time}" for time in ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M %p")
    ]
    return [
        Candidate("date", _when(_YEAR, f"try_strptime(v, '{day}')::DATE"), day, twin),
        Candidate("datetime", _when(_YEAR, f"try_strptime(v, {times})"), day, twin),
    ]


#: 00501 is a post code, not the number 501. Digits beyond 128 bit stay text: none is lost.
_WHOLE = r"[+-]?(0|[1-9]\d{0,37})"
_FLOAT = rf"{_WHOLE}?([.]\d*)?([eE][+-]?\d+)?|[+-]?[.]\d+([eE][+-]?\d+)?|[+-]?(?i:inf(inity)?)"
_COMMA = rf"{_WHOLE}?(,\d+)?|[+-]?,\d+"
_YEAR = r"(.*\D)?\d{4}(\D.*)?"
_ISO = r"\d{4}-\d{1,2}-\d{1,2}[ T]\d{1,2}:\d{2}(:\d{2}([.]\d+)?)?"
_ZONED = rf"{_ISO}( ?(Z|UTC|GMT|[+-]\d{{2}}(:?\d{{2}})?))?"
WITH_ZONE = "ISO 8601, as UTC"
_AS_UTC = "try_cast(v AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
#: From the narrowest type to the widest.
_VALUES = [
    Candidate("boolean", _when("(?i)true|yes|false|no", "lower(v) IN ('true', 'yes')")),
    Candidate("integer", _when(_WHOLE, "try_cast(v AS HUGEINT)")),
    Candidate("float", _when(_FLOAT, "try_cast(v AS DOUBLE)")),
    *_numbers(",", ".", "1,234.5", twin="1234,5"),
    Candidate("float", _when(_COMMA, "try_cast(replace(v, ',', '.') AS DOUBLE)"), "1234,5"),
    *_numbers("[.]", ",", "1.234,5"),
    *_numbers("[ \u00a0\u202f]", ",", "1 234,5"),
    *_numbers("[\u2019'']", ".", "1'234.5"),
]
_TWINS = {"%d/%m/%Y": "%m/%d/%Y", "%d-%m-%Y": "%m-%d-%Y"}
_DAYS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    *chain(*_TWINS.items()),
    "%d.%m.%Y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
)
_DATES = [
    *(candidate for day in _DAYS for candidate in _dates(day, _TWINS.get(day))),
    Candidate("datetime", _when(_ISO, "try_cast(v AS TIMESTAMP)"), "ISO 8601"),
    Candidate("datetime", _when(_ZONED, _AS_UTC), WITH_ZONE),
]


def find_type(texts: Relation) -> Typed:
    """The type of *texts*, a column v of at least one value, none of which is NULL."""
    sample = texts.limit(SAMPLE_ROWS)
    candidates = _VALUES if _misses(sample, _when(_YEAR, "v")) else _VALUES + _DATES
    counts = ", ".join(["count(*)", *(f"count({each.sql})" for each in candidates)])
    [(size, *fits)] = sample.aggregate(counts).fetchall()
    almost: list[tuple[int, str]] = []
    for each, fit in zip(candidates, fits, strict=True):
        is_number = each.type in ("integer", "float")
        if fit == size or (is_number and fit >= ALMOST_SHARE * size):
            misses = _misses(texts, each.sql)
            if not misses:
                twins = [it for it in candidates if it.format == each.twin and each.twin]
                other = next((it.format for it in twins if not _misses(texts, it.sql)), None)
                return Typed(each, other)
            almost += [(misses, each.sql)] if is_number else []
    misses, sql = min(almost, default=(0, ""))
    if not misses or misses > (1 - ALMOST_SHARE) * len(texts):
        return Typed(TEXT)
    wrong = texts.filter(f"({sql}) IS NULL").limit(3).fetchall()
    return Typed(TEXT, None, tuple(text for (text,) in wrong), misses)


def _misses(texts: Relation, sql: str) -> int:
    """How many of *texts* do not fit."""
    return len(texts.filter(f"({sql}) IS NULL"))

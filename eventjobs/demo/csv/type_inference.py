"""Finds the type of a column of text: the narrowest one that every value fits."""

from itertools import chain
from typing import NamedTuple

from duckdb import DuckDBPyRelation as Relation

SAMPLE_ROWS = 1_000


class Candidate(NamedTuple):
    """One way to read a column: *sql* is NULL where the text v does not fit.

    *twin* is a format that may fit the same texts, with another meaning.
    """

    type: str
    sql: str
    format: str | None = None
    twin: str = ""


def _when(pattern: str, value: str) -> str:
    return f"CASE WHEN regexp_full_match(v, '{pattern}') THEN {value} END"


def _numbers(group: str, decimal: str, format: str, twin: str = "") -> list[Candidate]:
    """Numbers with a separator between thousands: whole ones, and those with decimals."""
    whole = rf"[+-]?(0|[1-9]\d{{0,2}}({group}\d{{3}})*)"
    digits = f"regexp_replace(v, '{group}', '', 'g')"
    number = f"try_cast(replace({digits}, '{decimal}', '.') AS DOUBLE)"
    return [
        Candidate("integer", _when(whole, f"try_cast({digits} AS HUGEINT)"), format, twin),
        Candidate("float", _when(rf"{whole}([{decimal}]\d+)?", number), format, twin),
    ]


def _dates(day: str, twin: str = "") -> list[Candidate]:
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
_YEARS = Candidate("", _when(_YEAR, "v"))
WITH_ZONE = "ISO 8601, as UTC"
_AS_UTC = "try_cast(v AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
TEXT = Candidate("text", "v")
FLOAT = Candidate("float", _when(_FLOAT, "try_cast(v AS DOUBLE)"))
#: From the narrowest type to the widest.
_VALUES = [
    Candidate("boolean", _when("(?i)true|yes|false|no", "lower(v) IN ('true', 'yes')")),
    Candidate("integer", _when(_WHOLE, "try_cast(v AS HUGEINT)")),
    FLOAT,
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
    *(candidate for day in _DAYS for candidate in _dates(day, _TWINS.get(day, ""))),
    Candidate("datetime", _when(_ISO, "try_cast(v AS TIMESTAMP)"), "ISO 8601"),
    Candidate("datetime", _when(_ZONED, _AS_UTC), WITH_ZONE),
]


def find_type(texts: Relation) -> tuple[Candidate, str | None]:
    """How to read *texts*, a column v without NULL, and the format of a twin that fits as well."""
    sample = texts.limit(SAMPLE_ROWS)
    candidates = _VALUES if misfits(sample, _YEARS) else _VALUES + _DATES
    counts = ", ".join(["count(*)", *(f"count({each.sql})" for each in candidates)])
    [(size, *fits)] = sample.aggregate(counts).fetchall()
    for each, count in zip(candidates, fits, strict=True):
        if count == size and not misfits(texts, each):
            twins = (it for it in candidates if it.format == each.twin and not misfits(texts, it))
            return each, next((it.format for it in twins), None)
    return TEXT, None


def misfits(texts: Relation, candidate: Candidate) -> Relation:
    """Those of *texts* that do not fit."""
    return texts.filter(f"({candidate.sql}) IS NULL")

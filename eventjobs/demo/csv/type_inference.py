"""Which type a column of text really has, and its values as that type.

A column has a type only when every value that is there fits it. Empty cells are missing in any
column; the usual markers (NA, null, "-" …) are missing in every column that is not text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import polars as pl

from eventjobs.demo.csv.encoding import clip

MARKERS = ("na", "n/a", "null", "nan", "none", "-")
DECIMAL_COMMA = "decimal comma"
SAMPLE_ROWS = 1_000
#: A text column is said to look like numbers when at least this share of a sample does.
ALMOST_SHARE = 0.9

_SPELLINGS = sorted(
    {case(each) for each in MARKERS for case in (str.lower, str.upper, str.title)} | {"NaN"}
)

#: 00501 is a post code, not the number 501.
_LEADING_ZERO = r"^[+-]?0\d"
_COMMA_FLOAT = r"^[+-]?(?:0|[1-9]\d*)?,\d+$|^[+-]?(?:0|[1-9]\d*)$"

_DATES = (
    ("%Y-%m-%d", r"\d{4}-\d{1,2}-\d{1,2}"),
    ("%Y/%m/%d", r"\d{4}/\d{1,2}/\d{1,2}"),
    ("%d/%m/%Y", r"\d{1,2}/\d{1,2}/\d{4}"),
    ("%m/%d/%Y", r"\d{1,2}/\d{1,2}/\d{4}"),
    ("%d.%m.%Y", r"\d{1,2}\.\d{1,2}\.\d{4}"),
    ("%d-%m-%Y", r"\d{1,2}-\d{1,2}-\d{4}"),
    ("%m-%d-%Y", r"\d{1,2}-\d{1,2}-\d{4}"),
)
_TIMES = (
    ("%H:%M", r"\d{1,2}:\d{2}"),
    ("%H:%M:%S%.f", r"\d{1,2}:\d{2}:\d{2}(?:\.\d{1,9})?"),
    ("%H:%M:%S%.f%#z", r"\d{1,2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:?\d{2})"),
)
_LOOKS_DATED = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to read a column: *value* is null wherever the text does not fit."""

    type: str
    value: pl.Expr
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Typed:
    """A column with its type; *values* is None for text and for a column with no values at all."""

    type: str
    missing: int
    values: pl.Series | None = None
    format: str | None = None
    #: The one format the whole column fits as well, when day and month cannot be told apart.
    other_format: str | None = None
    exceptions: list[str] = field(default_factory=list)
    exceptions_count: int = 0


def settle(
    scan: pl.LazyFrame, column: str, *, comma_decimals: bool, check: Callable[[], None]
) -> Typed:
    """The narrowest type that every present value of *column* fits."""
    cell = pl.col(column)
    marked = cell.is_in(_SPELLINGS)
    counts = scan.select(rows=pl.len(), empty=cell.null_count(), marked=marked.sum())
    rows, empty, markers = counts.collect(engine="streaming").row(0)
    present = rows - empty - markers
    if present == 0:
        return Typed("empty", rows)
    valued = pl.when(~marked).then(cell)
    sample = (
        scan.select(valued.alias(column)).drop_nulls().head(SAMPLE_ROWS).collect(engine="streaming")
    )
    almost: list[Candidate] = []
    for candidate in _candidates(valued, comma_decimals, sample.to_series()):
        fits = sample.select(candidate.value.is_not_null().mean()).item()
        if fits < 1.0:
            if candidate.type in ("integer", "float") and fits >= ALMOST_SHARE:
                almost.append(candidate)
            continue
        check()
        values = scan.select(candidate.value).collect(engine="streaming").to_series()
        if len(values) - values.null_count() == present:
            other = _other_format(scan, valued, candidate, present)
            return Typed(candidate.type, rows - present, values, candidate.format, other)
        if candidate.type in ("integer", "float"):
            almost.append(candidate)
    exceptions, count = _exceptions(scan, valued, almost[-1], present) if almost else ([], 0)
    return Typed("text", empty, exceptions=exceptions, exceptions_count=count)


def as_numbers(column: str, format: str | None) -> pl.Expr:
    """The finite numbers of a column that was found to hold numbers, cheaply."""
    text = pl.col(column)
    if format == DECIMAL_COMMA:
        text = text.str.replace(",", ".", literal=True)
    number = text.cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _candidates(text: pl.Expr, comma_decimals: bool, sample: pl.Series) -> Iterator[Candidate]:
    """From the narrowest type to the widest; dates only where the sample looks like dates."""
    lower = text.str.to_lowercase()
    true, false = lower.is_in(["true", "yes"]), lower.is_in(["false", "no"])
    yield Candidate("boolean", pl.when(true | false).then(true))
    number = pl.when(~text.str.contains(_LEADING_ZERO)).then(text)
    yield Candidate("integer", number.cast(pl.Int64, strict=False))
    real = number.cast(pl.Float64, strict=False)
    yield Candidate("float", pl.when(real.is_not_nan()).then(real))
    if comma_decimals:
        comma = pl.when(text.str.contains(_COMMA_FLOAT)).then(
            text.str.replace(",", ".", literal=True)
        )
        yield Candidate("float", comma.cast(pl.Float64, strict=False), DECIMAL_COMMA)
    if sample.str.contains(_LOOKS_DATED).all():
        yield from _dated(text)


def _dated(text: pl.Expr) -> Iterator[Candidate]:
    for day, pattern in _DATES:
        fitting = pl.when(text.str.contains(f"^{pattern}$")).then(text)
        yield Candidate("date", fitting.str.to_date(day, strict=False), day)
    for day, pattern in _DATES:
        for time, clock in _TIMES:
            spaced = text.str.replace("T", " ", literal=True)
            moment = pl.when(text.str.contains(f"^{pattern}[ T]{clock}$")).then(spaced)
            form = f"{day} {time}"
            value = moment.str.to_datetime(form, time_unit="us", strict=False)
            yield Candidate("datetime", value.dt.replace_time_zone(None), form)


def _other_format(scan: pl.LazyFrame, text: pl.Expr, chosen: Candidate, present: int) -> str | None:
    """The month-first twin of a day-first format, if it fits all values as well."""
    if chosen.format is None or not chosen.format.startswith(("%d/%m", "%d-%m")):
        return None
    twin = f"%m{chosen.format[2]}%d{chosen.format[5:]}"
    for candidate in _dated(text):
        if candidate.format == twin:
            fits = scan.select(candidate.value.count()).collect(engine="streaming").item()
            return twin if fits == present else None
    return None


def _exceptions(
    scan: pl.LazyFrame, text: pl.Expr, almost: Candidate, present: int
) -> tuple[list[str], int]:
    """What keeps a column from being numbers: three examples, and how many there are."""
    wrong = text.is_not_null() & almost.value.is_null()
    count = scan.select(wrong.sum()).collect(engine="streaming").item()
    if count > present * (1 - ALMOST_SHARE):
        return [], 0
    examples = scan.filter(wrong).select(text.alias("text")).head(3).collect()
    return [clip(each, 40) for each in examples["text"].to_list()], count

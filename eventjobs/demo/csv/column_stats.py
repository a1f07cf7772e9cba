"""What is known of one column: its type, what is missing, and the statistics of its values.

Exact, with one exception that says so: a text column with more than DISTINCT_MAX different
values (or very long ones) has them estimated, `distinct_exact` is false, and its top values are
those most frequent among its first rows, with exact counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.type_inference import Typed, as_numbers, settle

TOP_VALUES_MAX = 10
VALUE_CHARS_MAX = 60
DISTINCT_MAX = 2_000_000
DISTINCT_CHARS_MAX = 256 * 2**20
TOP_SAMPLE_ROWS = 100_000
BINS = 20


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between consecutive *edges*; what lies outside them is in *below* and *above*.

    *whole* says that each bin is exactly one whole number, the lower of its edges.
    """

    edges: list[float]
    counts: list[int]
    below: int
    above: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Numbers:
    """Infinite values are counted, and left out of everything else.

    *std* is that of a sample, quartiles are interpolated, *outliers* are the values more than
    1.5 interquartile ranges outside the quartiles.
    """

    min: float | None
    max: float | None
    mean: float | None
    median: float | None
    std: float | None
    q1: float | None
    q3: float | None
    skewness: float | None
    infinite: int
    outliers: int
    histogram: Histogram | None


@dataclass(frozen=True, slots=True)
class Top:
    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Texts:
    """Lengths are in characters."""

    shortest: int
    longest: int
    top: list[Top]


@dataclass(frozen=True, slots=True)
class Dates:
    """*other_format* is set when day and month cannot be told apart; *format* is what was used."""

    earliest: str
    latest: str
    format: str | None
    other_format: str | None


@dataclass(frozen=True, slots=True)
class Booleans:
    true: int
    false: int


@dataclass(slots=True)
class Column:
    """What is known of one column; the parts that do not apply to its type are None.

    *exceptions* are a few of the *exceptions_count* values that keep a column of text from being
    one of numbers.
    """

    name: str
    type: str
    missing: int
    missing_share: float
    distinct: int = 0
    distinct_exact: bool = True
    numbers: Numbers | None = None
    texts: Texts | None = None
    dates: Dates | None = None
    booleans: Booleans | None = None
    exceptions: list[str] = field(default_factory=list)
    exceptions_count: int = 0


def describe(
    scan: pl.LazyFrame,
    column: str,
    *,
    name: str,
    rows: int,
    comma_decimals: bool,
    check: Callable[[], None],
) -> tuple[Column, pl.Expr | None]:
    """The column, and how to read it as numbers if that is what it holds."""
    typed = settle(scan, column, comma_decimals=comma_decimals, check=check)
    known = Column(name, typed.type, typed.missing, typed.missing / rows if rows else 0.0)
    if typed.type == "text":
        known.exceptions, known.exceptions_count = typed.exceptions, typed.exceptions_count
        _describe_text(known, scan, column)
    elif typed.values is not None:
        check()
        values = typed.values.drop_nulls().sort()
        known.distinct = values.n_unique()
        if typed.type == "boolean":
            true = int(values.sum())
            known.booleans = Booleans(true, len(values) - true)
        elif typed.type in ("date", "datetime"):
            known.dates = _dates(values, typed)
        else:
            known.numbers = _numbers(values)
    return known, as_numbers(column, typed.format) if known.numbers else None


def _dates(values: pl.Series, typed: Typed) -> Dates:
    first, last = values.min(), values.max()
    return Dates(_iso(first), _iso(last), typed.format, typed.other_format)


def _iso(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _numbers(values: pl.Series) -> Numbers:
    """Statistics of a column of numbers that has at least one."""
    finite = values.filter(values.is_finite()) if values.dtype.is_float() else values
    infinite = len(values) - len(finite)
    if finite.is_empty():
        return Numbers(*(None,) * 8, infinite=infinite, outliers=0, histogram=None)
    low, high = _number(finite.min()), _number(finite.max())
    q1, median, q3 = (finite.quantile(each, "linear") for each in (0.25, 0.5, 0.75))
    outliers, fences = 0, None
    if q1 is not None and q3 is not None and math.isfinite(q3 - q1):
        reach = q3 - q1
        outliers = int(((finite < q1 - 1.5 * reach) | (finite > q3 + 1.5 * reach)).sum())
        fences = (q1 - 3 * reach, q3 + 3 * reach)
    return Numbers(
        min=low,
        max=high,
        mean=_number(finite.mean()),
        median=_number(median),
        std=_number(finite.std()),
        q1=_number(q1),
        q3=_number(q3),
        skewness=_number(finite.skew()) if low != high else None,
        infinite=infinite,
        outliers=outliers,
        histogram=_histogram(finite, fences) if fences else None,
    )


def _number(value: object) -> float | None:
    """What JSON can hold: no NaN and no infinity."""
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def nice_step(wanted: float) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that is not below *wanted*."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next((each * power for each in (1, 2, 2.5, 5) if each * power >= wanted), 10 * power)


def _histogram(values: pl.Series, fences: tuple[float, float]) -> Histogram | None:
    """About BINS round bins over the values within *fences*: far outliers would flatten it."""
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]  # numbers
    if fences[0] < fences[1]:
        low, high = max(low, fences[0]), min(high, fences[1])
    width = high - low
    # Below this the bins are narrower than the numbers are precise.
    if width <= max(abs(low), abs(high)) * 1e-12 or not math.isfinite(width):
        return None
    whole = values.dtype.is_integer()
    step = nice_step(width / BINS)
    if whole:
        step = max(1.0, math.ceil(step))
    start = math.floor(low / step) * step
    count = math.floor((high - start) / step) + 1
    if not whole and count > 1 and start + (count - 1) * step >= high:
        count -= 1  # The largest value belongs to the last bin, not to one of its own.
    bins = ((values.cast(pl.Float64) - start) / step).floor()
    if not whole:
        bins = pl.select(
            pl.when(values == start + count * step).then(count - 1).otherwise(bins)
        ).to_series()
    counted = bins.clip(-1, count).cast(pl.Int64).value_counts(name="n")
    counts = dict(zip(counted.to_series(0).to_list(), counted["n"].to_list(), strict=True))
    digits = max(0, 2 - math.floor(math.log10(step)))
    edges = [round(start + at * step, digits) for at in range(count + 1)]
    return Histogram(
        edges=edges,
        counts=[counts.get(at, 0) for at in range(count)],
        below=counts.get(-1, 0),
        above=counts.get(count, 0),
        whole=whole and step == 1.0,
    )


def _describe_text(known: Column, scan: pl.LazyFrame, column: str) -> None:
    text = pl.col(column)
    length = text.str.len_chars()
    shortest, longest, mean, distinct = (
        scan.select(
            shortest=length.min(),
            longest=length.max(),
            mean=length.mean(),
            distinct=text.approx_n_unique(),
        )
        .collect(engine="streaming")
        .row(0)
    )
    texts = scan.select(text.alias("value")).drop_nulls()
    if distinct > DISTINCT_MAX or distinct * mean > DISTINCT_CHARS_MAX:
        known.distinct, known.distinct_exact = distinct, False
        frequent = _top(_counted(texts.head(TOP_SAMPLE_ROWS)), 10 * TOP_VALUES_MAX)
        counted = _counted(texts.filter(pl.col("value").is_in(frequent["value"].implode())))
    else:
        counted = _counted(texts)
        known.distinct = len(counted)
    shown = _top(counted, TOP_VALUES_MAX).iter_rows()
    known.texts = Texts(
        shortest, longest, [Top(clip(value, VALUE_CHARS_MAX), count) for value, count in shown]
    )


def _counted(texts: pl.LazyFrame) -> pl.DataFrame:
    counts = texts.group_by("value").agg(pl.len().alias("count"))
    return counts.collect(engine="streaming")


def _top(counted: pl.DataFrame, rows_max: int) -> pl.DataFrame:
    """The most frequent values first; equally frequent ones by the alphabet."""
    ordered = counted.lazy().sort("count", "value", descending=[True, False])
    return ordered.head(rows_max).collect()

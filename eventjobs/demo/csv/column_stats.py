"""The type and the statistics of one column, all of them exact. columns.sql defines them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from duckdb import DuckDBPyRelation as Relation

from eventjobs.demo.csv.encoding import clip

MARKERS = ("na", "n/a", "null", "nan", "none", "-")
SAMPLE_ROWS = 1_000
TOP_VALUES_MAX = 10
VALUE_CHARS_MAX = 60
BINS = 20
#: A text column is said to look like numbers when no more of its values are none.
EXCEPTIONS_SHARE_MAX = 0.1


class Candidate(NamedTuple):
    """One way to read a column: *sql* is NULL where the text v does not fit.

    *twin* is a format that may fit the same texts, with another meaning.
    """

    type: str
    format: str | None
    twin: str | None
    sql: str


TEXT = Candidate("text", None, None, "v")
EMPTY = Candidate("empty", None, None, "v")


def describe(
    cells: Relation, candidates: Sequence[Candidate], name: str, rows: int
) -> tuple[dict[str, Any], Candidate]:
    """What is known of *cells*, a column v of text, and which of *candidates* reads it.

    Empty cells are missing in any column, MARKERS in every column that is not text. The parts
    that do not apply to the type are None. Infinite numbers are only counted, in `infinite`;
    `outliers` are more than 1.5 interquartile ranges outside the quartiles. Numbers and dates
    have a `format` if they are not written as usual, and an `other_format` if that one would fit
    as well, with another meaning. `exceptions` keep a column of text from being one of numbers.
    """
    texts = cells.filter("v IS NOT NULL")
    valued = texts.filter(f"lower(v) NOT IN {MARKERS}")
    found, other_format = _find_type(valued, candidates) if len(valued) else (EMPTY, None)
    values = texts if found is TEXT else valued.project(f"{found.sql} AS v")
    [(present, distinct)] = values.aggregate("count(*), count(DISTINCT v)").fetchall()
    formats = {"format": found.format, "other_format": other_format}
    parts: dict[str, Any] = dict.fromkeys(("numbers", "texts", "dates", "booleans"))
    match found.type:
        case "text":
            parts["texts"] = _statistics(values, "texts_of") | {"top": _top(values)}
        case "integer" | "float" as type:
            parts["numbers"] = _numbers(values, whole=type == "integer") | formats
        case "date" | "datetime":
            parts["dates"] = _statistics(values, "dates_of") | formats
        case "boolean":
            parts["booleans"] = _statistics(values, "booleans_of")
    exceptions, exceptions_count = _exceptions(valued) if found is TEXT else ([], 0)
    column = parts | {
        "name": name,
        "type": found.type,
        "missing": rows - present,
        "missing_share": (rows - present) / max(1, rows),
        "distinct": distinct,
        "distinct_exact": True,
        "exceptions": exceptions,
        "exceptions_count": exceptions_count,
    }
    return column, found


def _find_type(texts: Relation, candidates: Sequence[Candidate]) -> tuple[Candidate, str | None]:
    """The first candidate that fits all of *texts*, and the format of a twin that fits as well."""
    sample = texts.limit(SAMPLE_ROWS)
    if _misfits(sample, "has_year(v) OR NULL"):
        candidates = [each for each in candidates if not each.type.startswith("date")]
    counts = ", ".join(["count(*)", *(f"count({each.sql})" for each in candidates)])
    [(size, *fits)] = sample.aggregate(counts).fetchall()
    for each, count in zip(candidates, fits, strict=True):
        if count == size and not _misfits(texts, each.sql):
            twins = [it for it in candidates if each.twin and it.format == each.twin]
            return each, next((it.format for it in twins if not _misfits(texts, it.sql)), None)
    return TEXT, None


def _misfits(texts: Relation, sql: str) -> Relation:
    return texts.filter(f"({sql}) IS NULL")


def _exceptions(texts: Relation) -> tuple[list[str], int]:
    """Some of the texts that are no numbers, and how many there are, if most others are."""
    wrong = _misfits(texts, "as_float(v)")
    if len(wrong) > EXCEPTIONS_SHARE_MAX * len(texts):
        return [], 0
    return [clip(text, 40) for (text,) in wrong.limit(3).fetchall()], len(wrong)


def _statistics(values: Relation, macro: str) -> dict[str, Any]:
    """What a macro of columns.sql tells of *values*, as far as JSON can hold it.

    JSON has neither NaN nor infinity, and here integers of 64 bit.
    """
    statistics: dict[str, Any] = values.aggregate(f"{macro}(v)").fetchall()[0][0]
    for key, value in statistics.items():
        if isinstance(value, float) and not math.isfinite(value):
            statistics[key] = None
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            statistics[key] = float(value)
    return statistics


def _top(values: Relation) -> list[dict[str, Any]]:
    counts = values.aggregate("v, count(*) AS n").order("n DESC, v").limit(TOP_VALUES_MAX)
    return [{"value": clip(v, VALUE_CHARS_MAX), "count": n} for v, n in counts.fetchall()]


def _numbers(values: Relation, *, whole: bool) -> dict[str, Any]:
    numbers = _statistics(values, "numbers_of") | {"outliers": 0, "histogram": None}
    low, high, q1, q3 = (float(numbers[key] or 0) for key in ("min", "max", "q1", "q3"))
    reach = q3 - q1
    if math.isfinite(4 * reach):
        finite = values.project("v::DOUBLE AS v").filter("isfinite(v)")
        outside = f"v < {q1 - 1.5 * reach!r} OR v > {q3 + 1.5 * reach!r}"
        numbers["outliers"] = len(finite.filter(outside))
        if reach:  # values that are far outside would make the rest of the histogram flat
            low, high = max(low, q1 - 3 * reach), min(high, q3 + 3 * reach)
        numbers["histogram"] = _histogram(finite, low, high, whole=whole)
    return numbers


def _histogram(values: Relation, low: float, high: float, *, whole: bool) -> dict[str, Any] | None:
    """About BINS round bins from *low* to *high*, and how many values are below and above.

    `whole` says that each bin is one whole number, the lower of its edges.
    """
    width = high - low
    # Below this the bins are narrower than the numbers are precise.
    if width <= max(abs(low), abs(high)) * 1e-12:
        return None
    power = 10.0 ** math.floor(math.log10(width / BINS))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= width / BINS * 0.999)
    if whole:
        step = float(max(1, math.ceil(step)))
    start = math.floor(low / step) * step
    count = math.floor((high - start) / step) + 1
    place = f"floor((v - {start!r}) / {step!r})"
    if not whole and count > 1 and start + (count - 1) * step >= high:
        count -= 1  # the largest value belongs to the last bin, not to one of its own
        place = f"if(v = {start + count * step!r}, {count - 1}, {place})"
    bins = values.aggregate(f"greatest(-1, least({count}, {place})) AS place, count(*)")
    counts = dict(bins.fetchall())
    digits = max(0, 2 - math.floor(math.log10(step)))
    return {
        "edges": [round(start + at * step, digits) for at in range(count + 1)],
        "counts": [counts.get(at, 0) for at in range(count)],
        "below": counts.get(-1, 0),
        "above": counts.get(count, 0),
        "whole": whole and step == 1.0,
    }

"""The statistics of one column, all of them exact. DuckDB computes them."""

import math
from typing import Any

from duckdb import DuckDBPyRelation as Relation

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.type_inference import FLOAT, TEXT, WITH_ZONE, Candidate, find_type, misfits

MARKERS = ("na", "n/a", "null", "nan", "none", "-")
TOP_VALUES_MAX = 10
VALUE_CHARS_MAX = 60
BINS = 20
#: A text column is said to look like numbers when no more of its values are none.
EXCEPTIONS_SHARE_MAX = 0.1


def describe(cells: Relation, name: str, rows: int) -> tuple[dict[str, Any], Candidate]:
    """What is known of *cells*, a column v of text, and how to read it.

    Empty cells are missing in any column, MARKERS in every column that is not text. The parts
    that do not apply to the type are None:

    - numbers: min, max, mean, median, std (of a sample), q1 and q3 (interpolated), skewness,
      outliers (more than 1.5 interquartile ranges outside the quartiles) and a histogram.
      Infinite values are only counted, in `infinite`. A number that JSON cannot hold is None.
    - texts: shortest and longest in characters, and top, the most frequent values
    - dates: earliest and latest; booleans: how many are true, and false
    - exceptions: a few of the exceptions_count values that keep a column from being numbers

    Numbers and dates have a `format` if they are not written as usual, and an `other_format` if
    that one would fit as well, with another meaning.
    """
    texts = cells.filter("v IS NOT NULL")
    valued = texts.filter(f"lower(v) NOT IN {MARKERS}")
    found, other_format = find_type(valued) if len(valued) else (Candidate("empty", "v"), None)
    values = texts if found is TEXT else valued.project(f"{found.sql} AS v")
    present, distinct = _row(values, "count(*), count(DISTINCT v)")
    formats = {"format": found.format, "other_format": other_format}
    parts: dict[str, Any] = dict.fromkeys(("numbers", "texts", "dates", "booleans"))
    exceptions, exceptions_count = _exceptions(valued) if found is TEXT else ([], 0)
    match found.type:
        case "text":
            parts["texts"] = _texts(values)
        case "integer" | "float" as type:
            parts["numbers"] = _numbers(values, present, whole=type == "integer") | formats
        case "date" | "datetime":
            zone = "Z" if found.format == WITH_ZONE else ""
            ends = _row(values, "min(v)::VARCHAR, max(v)::VARCHAR")
            earliest, latest = (end.replace(" ", "T") + zone for end in ends)
            parts["dates"] = {"earliest": earliest, "latest": latest, **formats}
        case "boolean":
            true = len(values.filter("v"))
            parts["booleans"] = {"true": true, "false": present - true}
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


def _row(values: Relation, expressions: str) -> tuple[Any, ...]:
    [row] = values.aggregate(expressions).fetchall()
    return row


def _texts(values: Relation) -> dict[str, Any]:
    shortest, longest = _row(values, "min(length(v)), max(length(v))")
    counts = values.aggregate("v, count(*) AS n").order("n DESC, v").limit(TOP_VALUES_MAX)
    top = [{"value": clip(v, VALUE_CHARS_MAX), "count": n} for v, n in counts.fetchall()]
    return {"shortest": shortest, "longest": longest, "top": top}


def _exceptions(texts: Relation) -> tuple[list[str], int]:
    """Some of the texts that are no numbers, and how many there are, if most others are."""
    wrong = misfits(texts, FLOAT)
    count = len(wrong)
    if count > EXCEPTIONS_SHARE_MAX * len(texts):
        return [], 0
    return [clip(text, 40) for (text,) in wrong.limit(3).fetchall()], count


def _numbers(values: Relation, present: int, *, whole: bool) -> dict[str, Any]:
    finite = values.project("v AS exact, v::DOUBLE AS v").filter("isfinite(v)")
    # The cubes of larger numbers are beyond a DOUBLE, and DuckDB refuses to add them up.
    count, skewness, *exact = _row(
        finite,
        "count(*), skewness(v) FILTER (abs(v) < 1e100), min(exact), max(exact), avg(v),"
        " median(v), stddev_samp(v), quantile_cont(v, 0.25), quantile_cont(v, 0.75)",
    )
    names = ("min", "max", "mean", "median", "std", "q1", "q3")
    numbers: dict[str, Any] = dict(zip(names, map(_in_json, exact), strict=True))
    low, high = float(exact[0] or 0), float(exact[1] or 0)
    small = low < high and max(-low, high) < 1e100
    numbers |= {"skewness": _in_json(skewness) if small else None, "infinite": present - count}
    q1, q3 = numbers["q1"] or 0.0, numbers["q3"] or 0.0
    reach = q3 - q1
    if not math.isfinite(4 * reach):
        return numbers | {"outliers": 0, "histogram": None}
    outside = f"v < {q1 - 1.5 * reach!r} OR v > {q3 + 1.5 * reach!r}"
    if reach:  # values that are far outside would make the rest of the histogram flat
        low, high = max(low, q1 - 3 * reach), min(high, q3 + 3 * reach)
    histogram = _histogram(finite, low, high, whole=whole)
    return numbers | {"outliers": len(finite.filter(outside)), "histogram": histogram}


def _in_json(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity, and here integers of 64 bit."""
    if value is None or not math.isfinite(value):
        return None
    return value if -(2**63) <= value < 2**63 else float(value)


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

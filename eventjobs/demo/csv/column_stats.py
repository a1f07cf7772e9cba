"""The type and the statistics of one column, all of them exact. columns.sql defines them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from duckdb import DuckDBPyRelation as Relation

MARKERS = ("na", "n/a", "null", "nan", "none", "-")


class Candidate(NamedTuple):
    """One way to read a column: a row of the table `candidates` of columns.sql."""

    type: str
    format: str | None
    twin: str | None
    sql: str
    part: str | None


def describe(
    cells: Relation, candidates: Sequence[Candidate], name: str, rows: int
) -> tuple[dict[str, Any], Candidate]:
    """What is known of *cells*, a column v of text, and which of *candidates* reads it.

    Empty cells are missing in any column, MARKERS in every column that is not text. Numbers and
    dates have a `format` if they are not written as usual, and an `other_format` if that one fits
    as well, with another meaning. `exceptions` keep a column of text from being one of numbers.
    """
    texts = cells.filter("v IS NOT NULL")
    valued = texts.filter(f"lower(v) NOT IN {MARKERS}")
    chosen, other_format = _find_type(valued, candidates) if len(valued) else (candidates[-1], None)
    values = texts if chosen.part == "texts" else valued.project(f"{chosen.sql} AS v")
    [(present, distinct)] = values.aggregate("count(*), count(DISTINCT v)").fetchall()
    column: dict[str, Any] = {
        "name": name,
        "type": chosen.type,
        "missing": rows - present,
        "missing_share": (rows - present) / max(1, rows),
        "distinct": distinct,
        "distinct_exact": True,
        **dict.fromkeys(("numbers", "texts", "dates", "booleans")),
        "exceptions": [],
        "exceptions_count": 0,
    }
    if chosen.part:
        column[chosen.part] = _statistics(values, chosen.part)
    if chosen.part in ("numbers", "dates"):
        column[chosen.part] |= {"format": chosen.format, "other_format": other_format}
    if chosen.part == "texts":
        column |= _statistics(valued, "exceptions")
    return column, chosen


def _find_type(texts: Relation, candidates: Sequence[Candidate]) -> tuple[Candidate, str | None]:
    """The first candidate that fits all of *texts*, and the format of a twin that fits as well."""
    sample = texts.limit(1_000)
    if _misfits(sample, "has_year(v) OR NULL"):
        candidates = [each for each in candidates if each.part != "dates"]
    counts = ", ".join(["count(*)", *(f"count({each.sql})" for each in candidates)])
    [(size, *fits)] = sample.aggregate(counts).fetchall()
    likely = [each for each, count in zip(candidates, fits, strict=True) if count == size]
    chosen = next(each for each in likely if not _misfits(texts, each.sql))
    twins = (each for each in likely if chosen.twin and each.format == chosen.twin)
    return chosen, next((each.format for each in twins if not _misfits(texts, each.sql)), None)


def _misfits(texts: Relation, sql: str) -> int:
    return len(texts.filter(f"({sql}) IS NULL"))


def _statistics(values: Relation, part: str) -> dict[str, Any]:
    """What columns.sql computes for *values*, with a float for each integer beyond 64 bit."""
    row = values.query("typed", f"FROM {part}_of('typed')")
    assert row is not None
    statistics = zip(row.columns, row.fetchall()[0], strict=True)
    return {
        key: float(value) if isinstance(value, int) and abs(value) >= 2**63 else value
        for key, value in statistics
    }

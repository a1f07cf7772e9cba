"""What a CSV file holds, column by column, and which of its numbers move together.

All numbers are exact but for the one exception column_stats.py names. The rows stay on disk: what
is in memory at one time is a piece of the file, one numeric column (8 bytes a row), or the
different values of one text column.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from eventjobs.demo.csv.column_stats import Column, describe
from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.reader import ROW_GROUP_ROWS, Report, Table, read_table

COLUMNS_MAX = 200
CORRELATED_COLUMNS_MAX = 30
#: A table smaller than this on disk is held in memory: many small reads cost more than one.
IN_MEMORY_BYTES_MAX = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r over the *rows* in which both columns have a value."""

    a: str
    b: str
    r: float
    rows: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Bounded in size whatever the file.

    *columns* are those reported, the first COLUMNS_MAX of *column_count*; *correlations* are the
    strongest pairs among the first CORRELATED_COLUMNS_MAX columns of numbers.
    """

    rows: int
    column_count: int
    columns: list[Column]
    correlations: list[Correlation]
    encoding: str
    separator: str
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The profile as plain values: no NaN, no infinity, every key always there."""
        return asdict(self) | {"columns_omitted": self.column_count - len(self.columns)}


def profile_csv(
    source: Path,
    workspace: Path,
    *,
    separator: str | None = None,
    has_header: bool = True,
    reading: Report,
    analyzing: Report,
) -> Profile:
    """Profile *source*, with scratch files in *workspace*. Raises CsvError.

    *reading* and *analyzing* are told the share done, and may raise to stop the work.
    """
    table = read_table(
        source,
        workspace,
        separator=separator,
        has_header=has_header,
        columns_max=COLUMNS_MAX,
        report=reading,
    )
    columns, correlations = _analyze(table, workspace, analyzing)
    return Profile(
        table.rows,
        table.column_count,
        columns,
        correlations,
        table.encoding,
        table.separator,
        [*table.notes, *_notes(columns)],
    )


def _analyze(
    table: Table, workspace: Path, report: Report
) -> tuple[list[Column], list[Correlation]]:
    scan = table.scan()
    if sum(part.stat().st_size for part in table.parts) <= IN_MEMORY_BYTES_MAX:
        scan = scan.collect().lazy()
    columns: list[Column] = []
    numeric: dict[str, pl.Expr] = {}
    total = len(table.names)
    for at, name in enumerate(table.names):
        check = partial(report, 0.9 * at / total, f"Column {at + 1} of {total}: {clip(name, 40)}")
        check()
        column, expression = describe(
            scan,
            str(at),
            name=name,
            rows=table.rows,
            comma_decimals=table.separator != ",",
            check=check,
        )
        columns.append(column)
        if expression is not None and column.distinct > 1:
            numeric[name] = expression
    report(0.9, "Looking for columns that move together")
    found = _correlate(scan, numeric, workspace, partial(report, 0.9, "Comparing columns"))
    return columns, found


def _correlate(
    scan: pl.LazyFrame,
    numeric: dict[str, pl.Expr],
    workspace: Path,
    check: Callable[[], None],
) -> list[Correlation]:
    """The strongest pairs first; pairs with fewer than three rows, or no variation, have no r."""
    names = list(numeric)[:CORRELATED_COLUMNS_MAX]
    if len(names) < 2:
        return []
    store = workspace / "numbers.parquet"
    columns = (numeric[name].alias(str(at)) for at, name in enumerate(names))
    scan.select(columns).sink_parquet(store, compression="lz4", row_group_size=ROW_GROUP_ROWS)
    numbers = pl.scan_parquet(store, glob=False)
    found: list[Correlation] = []
    for left, name in enumerate(names[:-1]):
        check()
        rights = range(left + 1, len(names))
        pairs = [pl.corr(str(left), str(right)).alias(f"r{right}") for right in rights]
        shared = [
            (pl.col(str(left)).is_not_null() & pl.col(str(right)).is_not_null())
            .sum()
            .alias(f"n{right}")
            for right in rights
        ]
        row = numbers.select(pairs + shared).collect(engine="streaming").row(0, named=True)
        for right in rights:
            r, rows = row[f"r{right}"], row[f"n{right}"]
            if r is not None and isfinite(r) and rows >= 3:
                found.append(Correlation(name, names[right], max(-1.0, min(1.0, r)), rows))
    found.sort(key=lambda each: -abs(each.r))
    return found


def _notes(columns: list[Column]) -> list[str]:
    notes = [
        f"The dates in {clip(column.name, 40)} were read as day before month; "
        "month before day would fit as well."
        for column in columns
        if column.dates and column.dates.other_format
    ]
    return notes[:5]

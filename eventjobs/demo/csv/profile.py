"""What a CSV file holds, column by column, and which of its numbers move together."""

import re
from importlib.resources import files
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyRelation as Relation

from eventjobs.demo.csv.column_stats import Candidate, describe
from eventjobs.demo.csv.encoding import CsvError, clip
from eventjobs.demo.csv.reader import CsvFile

CORRELATED_COLUMNS_MAX = 30
#: DuckDB writes what is above this to scratch files.
MEMORY_MAX = "1GB"

#: What is known of a file or a column: plain values, as JSON has them.
Profile = dict[str, Any]


def profile_csv(file: CsvFile, workspace: Path) -> Profile:
    """Profile *file*, with scratch files in *workspace*. Raises CsvError.

    Its size is bounded for any file. `columns` are the first COLUMNS_MAX; `correlations`
    those among the first CORRELATED_COLUMNS_MAX columns of numbers, the strongest first.
    """
    config: dict[str, Any] = {"memory_limit": MEMORY_MAX, "temp_directory": str(workspace)}
    with duckdb.connect(config=config) as database:
        database.execute(files(__package__).joinpath("columns.sql").read_text("utf-8"))
        try:
            names, facts = file.load(database, workspace)
            candidates = [Candidate(*row) for row in database.table("candidates").fetchall()]
            columns, correlations = _analyze(database.table("cells"), candidates, names, file)
        except duckdb.OutOfMemoryException as error:
            message = f"The file needs more than {MEMORY_MAX} of memory."
            raise CsvError("csv_too_large", message) from error
    ambiguous = [
        f"{clip(each['name'], 40)} was read as {it['format']}; {it['other_format']} would fit, too."
        for each in columns
        if (it := each["dates"] or each["numbers"]) and it["other_format"]
    ]
    return {
        **facts,
        "notes": facts["notes"] + ambiguous[:5],
        "columns": columns,
        "columns_omitted": facts["column_count"] - len(columns),
        "correlations": correlations,
    }


def is_identifier(column: Profile, rows: int) -> bool:
    """Whether every row has a value of its own, as ids and names of rows do."""
    return column["type"] in ("integer", "text") and rows >= 10 and column["distinct"] == rows


def related_pairs(profile: Profile) -> list[Profile]:
    """The correlations, but for those of identifiers."""
    ids = {it["name"] for it in profile["columns"] if is_identifier(it, profile["rows"])}
    return [each for each in profile["correlations"] if not {each["a"], each["b"]} & ids]


def _analyze(
    cells: Relation, candidates: list[Candidate], names: list[str], file: CsvFile
) -> tuple[list[Profile], list[Profile]]:
    columns: list[Profile] = []
    numbers: dict[str, str] = {}
    for at, name in enumerate(names):
        file.report("analyzing", 0.9 * at / len(names), f"Column {at + 1}: {clip(name, 40)}")
        column, read = describe(cells.project(f"c{at} AS v"), candidates, name, file.seen["rows"])
        columns.append(column)
        if column["numbers"] and column["distinct"] > 1 and len(numbers) < CORRELATED_COLUMNS_MAX:
            numbers[name] = re.sub(r"\bv\b", f"c{at}", read.sql)
    file.report("analyzing", 0.9, "Looking for columns that move together")
    return columns, _correlate(cells, numbers)


def _correlate(cells: Relation, numbers: dict[str, str]) -> list[Profile]:
    """Pearson's r of each pair over the rows, three or more, in which both have a value."""
    if len(numbers) < 2:
        return []
    values = [f"({sql})::DOUBLE AS n{at}" for at, sql in enumerate(numbers.values())]
    finite = "CASE WHEN isfinite(COLUMNS(*)) THEN COLUMNS(*) END"
    pairs = list(combinations(range(len(numbers)), 2))
    sums = ", ".join(f"corr(n{a}, n{b}), regr_count(n{a}, n{b})" for a, b in pairs)
    [row] = cells.project(", ".join(values)).project(finite).aggregate(sums).fetchall()
    names = list(numbers)
    correlations = [
        {"a": names[a], "b": names[b], "r": max(-1.0, min(1.0, r)), "rows": rows}
        for (a, b), r, rows in zip(pairs, row[::2], row[1::2], strict=True)
        if r is not None and isfinite(r) and rows >= 3
    ]
    return sorted(correlations, key=lambda each: -abs(each["r"]))

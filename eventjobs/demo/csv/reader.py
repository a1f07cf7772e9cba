"""Reads a CSV file of any size and shape into a table of DuckDB.

DuckDB's sniffer finds the separator and the header in the first lines. Python's csv module then
cuts the whole file into records: it reads any file, and can name the line that is broken. No
record is dropped: each becomes one row, and blank lines are not records.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import duckdb

from eventjobs.demo.csv.encoding import CsvError, detect_encoding

COLUMNS_MAX = 200
NAME_CHARS_MAX = 100
FIELD_CHARS_MAX = 64 * 2**20
SAMPLE_CHARS = 256 * 2**10
REPORT_CHARS = 4 * 2**20
#: Text in which a larger share of characters is invalid has another encoding, or is no text.
REPLACED_SHARE_MAX = 0.1

#: Called with the stage, the share of it that is done and a message; may raise to stop the work.
Report = Callable[[str, float, str], None]

#: A record of two of these follows the last line. A quote that is still open there makes them
#: one field. No file holds them: files with NUL bytes are refused.
_END = "\0end"
_SEPARATOR_LINE = re.compile(r"sep=([^\r\n\"])\r?\n", re.IGNORECASE)


class Options(NamedTuple):
    """What is known of a file; the separator and the encoding are detected when they are None."""

    separator: str | None = None
    encoding: str | None = None
    has_header: bool = True


class Dialect(NamedTuple):
    """How a file is cut into fields. *skipped* lines come before the table.

    *row_names*: the header has one name fewer than the rows have values, as R writes it.
    """

    separator: str
    skipped: int
    looks_like_data: bool
    row_names: bool


@dataclass(slots=True)
class Table:
    """The rows of a file, and what is odd about them. *header* has an item for each column.

    Cells have no spaces around them. Those of rows that are too short are empty.
    """

    dialect: Dialect
    encoding: str
    header: list[str] = field(default_factory=list)
    rows: int = 0
    chars: int = 0
    replaced: int = 0
    short: int = 0
    long: int = 0
    line: int = 0
    odd_line: int = 0
    row_chars: int = 0

    @property
    def names(self) -> list[str]:
        """A name of its own for each of the first COLUMNS_MAX columns."""
        names: dict[str, None] = {}
        for number, cell in enumerate(self.header[:COLUMNS_MAX], 1):
            name = " ".join(cell.split())[:NAME_CHARS_MAX] or f"column_{number}"
            others = (f"{name}_{again}" for again in count(2))
            names[next(each for each in chain([name], others) if each not in names)] = None
        return list(names)


def read_table(
    source: Path,
    database: duckdb.DuckDBPyConnection,
    workspace: Path,
    options: Options,
    report: Report,
) -> Table:
    """Read *source* into the table `cells` of *database*, with columns of text c0, c1, …

    Only the first COLUMNS_MAX columns are kept. Empty cells are NULL. Raises CsvError.
    """
    report("reading", 0.0, "Looking at the text")
    codec = options.encoding or detect_encoding(source)
    decoder = "utf-8-sig" if codec == "utf-8" else codec
    opened = partial(source.open, encoding=decoder, errors="replace", newline="")
    with opened() as file:
        sample = file.read(SAMPLE_CHARS)
    dialect = _sniff(sample, database, workspace / "sample.csv", options)
    table = Table(dialect, codec)
    copy = workspace / "cells.csv"
    with opened() as file, copy.open("w", encoding="utf-8", newline="") as out:
        size = max(1, source.stat().st_size)
        lines = _lines(
            file,
            table,
            lambda read: report("reading", 0.9 * read / size, f"Read {table.rows:,} rows"),
        )
        _copy(_records(lines, table), table, out, has_header=options.has_header)
    if table.replaced > table.chars * REPLACED_SHARE_MAX:
        raise CsvError("csv_not_text", f"This is not text: much of it is not valid {codec}.")
    kept = range(min(len(table.header), COLUMNS_MAX))
    database.read_csv(
        str(copy),
        header=False,
        sep=",",
        quotechar='"',
        escapechar='"',
        lineterminator=duckdb.CSVLineTerminator.LINE_FEED,
        columns={f"c{at}": "VARCHAR" for at in kept},
        auto_detect=False,
        max_line_size=max(2**21, 4 * table.row_chars + 3 * len(kept)),
    ).create("cells")
    return table


def _sniff(
    sample: str, database: duckdb.DuckDBPyConnection, scratch: Path, options: Options
) -> Dialect:
    """The dialect of the first lines. Where no separator cuts them, it is a comma."""
    separator = options.separator
    if named := _SEPARATOR_LINE.match(sample):
        separator, sample = separator or named[1], sample[named.end() :]
    if len(sample) > SAMPLE_CHARS // 2:
        sample = sample[: sample.rfind("\n") + 1] or sample
    scratch.write_text(sample, encoding="utf-8", errors="replace", newline="")
    found = _sniffed(database, scratch, separator)
    if len(found["Columns"]) < 2:  # some rows may have too many fields, or too few
        found = _sniffed(database, scratch, separator, strict_mode=False, ignore_errors=True)
    columns, skipped = len(found["Columns"]), found["SkipRows"]
    separator = separator or (found["Delimiter"] if columns > 1 else ",")
    cut = csv.reader(sample.splitlines()[:skipped], delimiter=separator)
    above = [[cell for cell in line if cell.strip()] for line in cut]
    looks_like_data = options.has_header and not found["HasHeader"]
    row_names = looks_like_data and skipped > 0 and len(above[-1]) == columns - 1
    titles = above[: skipped - row_names]
    if any(len(cells) > max(1, columns - 2) and cells[0][0] != "#" for cells in titles):
        titles, row_names = [], False  # a line with several values is no title
    skipped = len(titles) + bool(named)
    return Dialect(separator, skipped, looks_like_data and not row_names, row_names)


def _sniffed(
    database: duckdb.DuckDBPyConnection, sample: Path, separator: str | None, **options: bool
) -> dict[str, Any]:
    given = {"quote": '"', "max_line_size": 8 * SAMPLE_CHARS, **options}
    if separator:
        given["delim"] = separator
    call = f"FROM sniff_csv(?, {', '.join(f'{name} = ?' for name in given)})"
    try:
        found = database.execute(call, [str(sample), *given.values()])
        names = [each[0] for each in found.description]
        return dict(zip(names, found.fetchall()[0], strict=True))
    except duckdb.Error:  # no dialect fits
        return {"Delimiter": ",", "Columns": [], "SkipRows": 0, "HasHeader": True}


def _lines(file: TextIO, table: Table, report: Callable[[int], None]) -> Iterator[str]:
    """The lines of the table, none longer than a field may be, and the mark of the end."""
    reported = 0
    lines = iter(partial(file.readline, FIELD_CHARS_MAX + 2), "")
    for number, line in enumerate(
        islice(lines, table.dialect.skipped, None), table.dialect.skipped + 1
    ):
        if "\0" in line:
            message = f"This is not a text file: there is a NUL byte on line {number:,}."
            raise CsvError("csv_binary", message, line=number)
        if len(line) > FIELD_CHARS_MAX and not line.endswith(("\r", "\n")):
            raise csv.Error("a line without an end")
        table.chars += len(line)
        table.replaced += line.count("\ufffd")
        if table.chars >= reported:
            reported = table.chars + REPORT_CHARS
            report(file.buffer.tell())
        yield line
    yield f"{_END}{table.dialect.separator}{_END}"


def _records(lines: Iterator[str], table: Table) -> Iterator[list[str]]:
    """The records that are not blank lines; `table.line` is the last line of each."""
    # The limit is that of the process, so it is only ever raised, and to the same value.
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARS_MAX))
    reader = csv.reader(lines, delimiter=table.dialect.separator)
    table.line = table.dialect.skipped
    fault = ""
    try:
        for record in reader:
            if record and record[-1].endswith(_END):
                fault = "A quote opened in {} is never closed." if record != [_END, _END] else ""
                break
            table.line = table.dialect.skipped + reader.line_num
            if record:
                yield record
    except csv.Error:
        limit = f"larger than {FIELD_CHARS_MAX // 2**20} million characters"
        fault = f"A field in {{}} is {limit}; most likely a quote is never closed."
    if fault:
        line = table.line + 1
        row = f"the row that starts on line {line:,}"
        raise CsvError("csv_malformed", fault.format(row), line=line)


def _copy(records: Iterator[list[str]], table: Table, out: TextIO, *, has_header: bool) -> None:
    """Write the rows, all of one length. Raises CsvError if there is no record."""
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    first = next(records, None)
    if first is None:
        raise CsvError("csv_empty", "The file has no content: not even a header line.")
    table.header = [""] * table.dialect.row_names + first if has_header else [""] * len(first)
    fields = len(table.header)
    kept = min(fields, COLUMNS_MAX)
    for record in records if has_header else chain([first], records):
        if len(record) != fields:
            table.short += len(record) < fields
            table.long += len(record) > fields
            table.odd_line = table.odd_line or table.line
        row = [cell.strip() for cell in record[:kept]] + [""] * (kept - len(record))
        writer.writerow(row)
        table.rows += 1
        table.row_chars = max(table.row_chars, sum(map(len, row)))


def notes_on(table: Table, options: Options) -> Iterator[str]:
    """What is odd about the file, in sentences."""
    if not options.encoding and not table.encoding.startswith("utf-8"):
        yield f"The file is not UTF-8; it was read as {table.encoding}."
    if table.replaced:
        yield f"{table.replaced:,} characters are not valid {table.encoding} and stand as \ufffd."
    dialect, fields = table.dialect, len(table.header)
    if dialect.skipped:
        yield f"Skipped above the table: {dialect.skipped:,} of the first lines."
    if dialect.row_names:
        yield "The header has one name fewer than the rows have values; the first column has none."
    pairs = zip(table.header, table.names, strict=False)
    renamed = sum(" ".join(a.split())[:NAME_CHARS_MAX] != b for a, b in pairs) - dialect.row_names
    if renamed and options.has_header:
        yield f"{renamed:,} columns had no name or one that was taken, and got a new one."
    if dialect.looks_like_data:
        yield "The first line was read as the header, but it looks like data."
    if fields > COLUMNS_MAX:
        yield f"Only the first {COLUMNS_MAX} of {fields:,} columns are reported."
    if table.short:
        yield f"{table.short:,} rows have fewer than {fields} fields; the others count as missing."
    if table.long:
        yield f"{table.long:,} rows have more than {fields} fields; the extra ones are ignored."
    if table.odd_line:
        yield f"The first such row ends on line {table.odd_line:,}."

"""Reads a CSV file of any size and shape into a table of DuckDB.

DuckDB's sniffer finds the separator and the header in the first lines. Python's csv module then
cuts the whole file into records: it reads any file, and can name the line that is broken. No
record is dropped: each becomes one row, and blank lines are not records.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import duckdb

from eventjobs.demo.csv.encoding import CsvError, detect_encoding

COLUMNS_MAX = 200
NAME_CHARS_MAX = 100
FIELD_CHARS_MAX = 64 * 2**20
SAMPLE_CHARS = 256 * 2**10
REPORT_ROWS = 10_000
#: Text in which a larger share of characters is invalid has another encoding, or is no text.
REPLACED_SHARE_MAX = 0.1

#: Called with the stage, the share of it that is done and a message; may raise to stop the work.
Report = Callable[[str, float, str], None]

#: A record of two of these follows the last line. A quote that is still open there makes them
#: one field. No file holds them: files with NUL bytes are refused.
_END = "\0end"
_SEPARATOR_LINE = re.compile(r"sep=([^\r\n\"])\r?\n", re.IGNORECASE)


class Options(NamedTuple):
    """What is known of a file. The separator and the encoding are detected if they are None."""

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


class Table(NamedTuple):
    """What was read: *names* are unique, and those of the columns kept of *width* columns."""

    dialect: Dialect
    encoding: str
    names: list[str]
    width: int
    rows: int
    notes: list[str]


def read_table(
    source: Path,
    database: duckdb.DuckDBPyConnection,
    workspace: Path,
    options: Options,
    report: Report,
) -> Table:
    """Read *source* into the table `cells` of *database*, with columns of text c0, c1, …

    The first COLUMNS_MAX columns are kept. Cells have no spaces around them, and are NULL where
    that leaves nothing. Raises CsvError.
    """
    report("reading", 0.0, "Looking at the text")
    codec = options.encoding or detect_encoding(source)
    decoder = "utf-8-sig" if codec == "utf-8" else codec

    def opened() -> TextIO:
        return source.open(encoding=decoder, errors="replace", newline="")

    with opened() as file:
        dialect = _sniff(file.read(SAMPLE_CHARS), database, workspace / "sample.csv", options)
    copy = workspace / "cells.csv"
    seen: Counter[str] = Counter()
    with opened() as file, copy.open("w", encoding="utf-8", newline="") as out:
        records = _records(file, dialect, seen)
        first = next(records, None)
        if first is None:
            raise CsvError("csv_empty", "The file has no content: not even a header line.")
        header = [""] * dialect.row_names + first if options.has_header else [""] * len(first)
        size = max(1, source.stat().st_size)
        rows = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for record in records if options.has_header else chain([first], records):
            if seen["rows"] % REPORT_ROWS == 0:
                share = 0.9 * min(1.0, file.buffer.tell() / size)
                report("reading", share, f"Read {seen['rows']:,} rows")
            rows.writerow(_regular(record, len(header), seen))
    if seen["replaced"] > seen["chars"] * REPLACED_SHARE_MAX:
        raise CsvError("csv_not_text", f"This is not text: much of it is not valid {codec}.")
    names = _unique_names(header[:COLUMNS_MAX])
    database.read_csv(
        str(copy),
        header=False,
        sep=",",
        quotechar='"',
        escapechar='"',
        lineterminator=duckdb.CSVLineTerminator.LINE_FEED,
        columns={f"c{at}": "VARCHAR" for at in range(len(names))},
        auto_detect=False,
        max_line_size=max(2**21, 4 * seen["longest"] + 3 * len(names)),
    ).create("cells")
    renamed = [a != _one_line(b) for a, b in zip(names, header, strict=False)]
    seen["renamed"] = sum(renamed[dialect.row_names :]) if options.has_header else 0
    notes = list(_notes(dialect, seen, codec, len(header), detected=not options.encoding))
    return Table(dialect, codec, names, len(header), seen["rows"], notes)


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
    given |= {"delim": separator} if separator else {}
    call = f"FROM sniff_csv(?, {', '.join(f'{name} = ?' for name in given)})"
    try:
        found = database.execute(call, [str(sample), *given.values()])
        return dict(zip([each[0] for each in found.description], found.fetchall()[0], strict=True))
    except duckdb.Error:  # no dialect fits
        return {"Delimiter": ",", "Columns": [], "SkipRows": 0, "HasHeader": True}


def _lines(file: TextIO, seen: Counter[str]) -> Iterator[str]:
    for line in iter(partial(file.readline, FIELD_CHARS_MAX + 2), ""):
        seen["lines"] += 1
        seen["chars"] += len(line)
        seen["replaced"] += line.count("\ufffd")
        if "\0" in line:
            message = f"This is not a text file: there is a NUL byte on line {seen['lines']:,}."
            raise CsvError("csv_binary", message, line=seen["lines"])
        if len(line) > FIELD_CHARS_MAX and not line.endswith(("\r", "\n")):
            raise csv.Error("a line without an end")
        yield line


def _records(file: TextIO, dialect: Dialect, seen: Counter[str]) -> Iterator[list[str]]:
    """The records of the table that are not blank lines. Raises CsvError."""
    # The limit is that of the process, so it is only ever raised, and to the same value.
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARS_MAX))
    lines = chain(_lines(file, seen), [f"{_END}{dialect.separator}{_END}"])
    start, fault = 1, ""
    try:
        for _ in range(dialect.skipped):
            next(lines)
        for record in csv.reader(lines, delimiter=dialect.separator):
            if record and record[-1].endswith(_END):
                fault = "A quote opened in {} is never closed." if record != [_END, _END] else ""
                break
            if record:
                yield record
            start = seen["lines"] + 1
    except csv.Error:
        limit = f"larger than {FIELD_CHARS_MAX // 2**20} million characters"
        fault = f"A field in {{}} is {limit}; most likely a quote is never closed."
    if fault:
        row = f"the row that starts on line {start:,}"
        raise CsvError("csv_malformed", fault.format(row), line=start)


def _regular(record: list[str], width: int, seen: Counter[str]) -> list[str]:
    """The kept cells of a row that may be too short or too long."""
    if len(record) != width:
        seen["short" if len(record) < width else "long"] += 1
        seen["odd_line"] = seen["odd_line"] or seen["lines"]
    kept = min(width, COLUMNS_MAX)
    row = [cell.strip() for cell in record[:kept]] + [""] * (kept - len(record))
    seen["rows"] += 1
    seen["longest"] = max(seen["longest"], sum(map(len, row)))
    return row


def _one_line(cell: str) -> str:
    return " ".join(cell.split())[:NAME_CHARS_MAX]


def _unique_names(header: list[str]) -> list[str]:
    names: dict[str, None] = {}
    for number, cell in enumerate(header, 1):
        name = _one_line(cell) or f"column_{number}"
        others = (f"{name}_{again}" for again in count(2))
        names[next(each for each in chain([name], others) if each not in names)] = None
    return list(names)


def _notes(
    dialect: Dialect, seen: Counter[str], codec: str, width: int, *, detected: bool
) -> Iterator[str]:
    """What is odd about the file, in sentences."""
    if detected and not codec.startswith("utf-8"):
        yield f"The file is not UTF-8; it was read as {codec}."
    if dialect.row_names:
        yield "The header has one name fewer than the rows have values; the first column has none."
    if dialect.looks_like_data:
        yield "The first line was read as the header, but it looks like data."
    counts = {
        "{:,} characters are not valid " + codec + " and stand as \ufffd.": seen["replaced"],
        "Skipped above the table: {:,} of the first lines.": dialect.skipped,
        "{:,} columns had no name or one that was taken, and got a new one.": seen["renamed"],
        f"Only the first {COLUMNS_MAX} of {{:,}} columns are reported.": (
            width if width > COLUMNS_MAX else 0
        ),
        f"{{:,}} rows have fewer than {width} fields; the others count as missing.": seen["short"],
        f"{{:,}} rows have more than {width} fields; the extra ones are ignored.": seen["long"],
        "The first such row ends on line {:,}.": seen["odd_line"],
    }
    yield from (text.format(number) for text, number in counts.items() if number)

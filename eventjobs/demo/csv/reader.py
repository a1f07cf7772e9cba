"""A CSV file of any size and shape becomes a columnar file of text columns.

No row is dropped and no type is guessed here: every record of the file, as Python's csv module
would read it, is one row; blank lines are not records. A regular file is read by polars, in
parallel; anything unusual (newlines or stray quotes inside fields, ragged rows, blank lines) by
the csv module itself, which is slower but says what it found. Both stream: what is held in
memory is one chunk, whatever the size of the file.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import polars as pl

from eventjobs.demo.csv.encoding import CsvError, TextFile, as_utf8

if TYPE_CHECKING:
    from _csv import Reader

#: What separates fields when nobody says: in this order when two fit equally well.
SEPARATORS = (",", ";", "\t", "|")
NAME_CHARS_MAX = 100
FIELD_CHARS_MAX = 64 * 2**20
#: Wider files go to the csv module, which keeps only the columns asked for.
FAST_COLUMNS_MAX = 2_000
CHUNK_CELLS_MAX = 500_000
CHUNK_CHARS_MAX = 32 * 2**20
#: Row groups are what polars reads in parallel.
ROW_GROUP_ROWS = 100_000
SAMPLE_CHARS = 256 * 2**10

#: Called with the share done (0 to 1) and a message; may raise to stop the work.
Report = Callable[[float, str], None]

#: A record of two of these follows the last line. A quote still open there makes them one field,
#: which tells it from a last record. No file has it: files with NUL bytes are refused.
_END = "\0end"


@dataclass(frozen=True, slots=True)
class Table:
    """Text columns on disk, named "0", "1", …; *names* are what people call them.

    Cells have no spaces around them, and are null where that leaves nothing. *names* are unique,
    not empty and only those of the columns kept; the file has *column_count*.
    """

    parts: list[Path]
    names: list[str]
    column_count: int
    rows: int
    encoding: str
    separator: str
    notes: list[str]

    def scan(self) -> pl.LazyFrame:
        """The kept columns; nothing is read before it is collected."""
        if not self.parts:
            return pl.LazyFrame(schema={str(at): pl.String for at in range(len(self.names))})
        return pl.scan_parquet(self.parts, glob=False)


@dataclass(slots=True)
class _Layout:
    """How the text is cut into fields."""

    text: TextFile
    separator: str
    has_header: bool
    fields: int
    kept: int
    workspace: Path


@dataclass(slots=True)
class _Ragged:
    """Rows that did not have as many fields as the first."""

    short: int = 0
    long: int = 0
    first_line: int = 0

    def add(self, *, longer: bool, line: int) -> None:
        self.short, self.long = self.short + (not longer), self.long + longer
        self.first_line = self.first_line or line

    def notes(self, fields: int) -> Iterator[str]:
        if self.short:
            have = "row has" if self.short == 1 else "rows have"
            yield (
                f"{self.short:,} {have} fewer than {fields} fields; "
                "those that are not there count as missing."
            )
        if self.long:
            have = "row has" if self.long == 1 else "rows have"
            yield f"{self.long:,} {have} more than {fields} fields; the extra ones are ignored."
        if self.first_line:
            yield f"The first such row ends on line {self.first_line:,}."


def read_table(
    source: Path,
    workspace: Path,
    *,
    separator: str | None,
    has_header: bool,
    columns_max: int,
    report: Report,
) -> Table:
    """Read *source* into *workspace*. Raises CsvError, with what is wrong in plain words."""
    text = as_utf8(source, workspace, lambda share: report(share * 0.3, "Checking the text"))
    separator = separator or detect_separator(text)
    first = _first_record(text, separator)
    layout = _Layout(
        text, separator, has_header, len(first), min(len(first), columns_max), workspace
    )
    ragged = _Ragged()
    report(0.35, "Reading the rows")
    read = _read_regular(layout)
    if read is None:
        read = _read_carefully(layout, ragged, report)
    parts, rows = read
    header = first if has_header else [""] * len(first)
    names, renamed = _unique_names(header[:columns_max])
    notes = list(text.notes)
    if has_header:
        notes += _header_notes(first, renamed)
    if len(first) > columns_max:
        notes.append(f"Only the first {columns_max:,} of {len(first):,} columns are reported.")
    notes += ragged.notes(len(first))
    return Table(parts, names, len(first), rows, text.encoding, separator, notes)


def detect_separator(text: TextFile) -> str:
    """The separator that cuts the first rows into equally many fields, a comma if none does."""
    with text.open() as file:
        sample = file.read(SAMPLE_CHARS)
    lines = list(StringIO(sample, newline=""))
    if len(sample) == SAMPLE_CHARS and len(lines) > 1:
        lines.pop()
    scores = {each: _fit(lines, each) for each in SEPARATORS}
    return max(SEPARATORS, key=lambda each: scores[each])


def _fit(lines: list[str], separator: str) -> float:
    """How many of the first rows have as many fields as the first, if that is more than one."""
    try:
        rows = [row for row in islice(_reader(iter(lines), separator), 200) if row]
    except csv.Error:
        return 0.0
    if not rows or len(rows[0]) < 2:
        return 0.0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows)


def _reader(lines: Iterator[str], separator: str) -> "Reader":
    # The limit is the whole process's, so it is only ever raised, and always to the same value.
    csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARS_MAX))
    return csv.reader(lines, delimiter=separator)


def _first_record(text: TextFile, separator: str) -> list[str]:
    with text.open() as file:
        try:
            for row in _reader(iter(file), separator):
                if row:
                    return row
        except csv.Error as error:
            raise _too_large(1) from error
    raise CsvError("csv_empty", "The file has no content: not even a header line.")


def _unique_names(header: list[str]) -> tuple[list[str], int]:
    """Every column a name of its own, and how many had to be given one."""
    taken: set[str] = set()
    names: list[str] = []
    for number, cell in enumerate(header, 1):
        wanted = " ".join(cell.split())[:NAME_CHARS_MAX] or f"column_{number}"
        name, again = wanted, 1
        while name in taken:
            again += 1
            name = f"{wanted}_{again}"
        taken.add(name)
        names.append(name)
    renamed = sum(
        " ".join(cell.split())[:NAME_CHARS_MAX] != name
        for cell, name in zip(header, names, strict=True)
    )
    return names, renamed


def _header_notes(header: list[str], renamed: int) -> Iterator[str]:
    if renamed:
        columns = "column" if renamed == 1 else "columns"
        yield f"{renamed:,} {columns} had no name or one that was taken, and got a new one."
    if all(re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", cell) for cell in header):
        yield "The first line was read as the header, but it looks like data."


def _read_regular(layout: _Layout) -> tuple[list[Path], int] | None:
    """Read a file whose every line is one well-formed record; None when it is not such a file."""
    records = _count_regular(layout)
    if records is None:
        return None
    rows = records - layout.has_header
    if rows < 1:
        return [], 0
    part = layout.workspace / "rows.parquet"
    scan = pl.scan_csv(
        layout.text.path,
        has_header=False,
        skip_rows=int(layout.has_header),
        n_rows=rows if layout.text.survey.blank_lines_at_end else None,
        separator=layout.separator,
        schema={str(at): pl.String for at in range(layout.fields)},
        quote_char='"' if layout.text.survey.quotes else None,
        empty_string_is_null=False,
        glob=False,
    )
    try:
        scan.select(_cell(str(at)) for at in range(layout.kept)).sink_parquet(
            part, compression="lz4", row_group_size=ROW_GROUP_ROWS
        )
    except pl.exceptions.PolarsError:
        return None
    # The two passes must agree on what a record is; where they do not, the csv module decides.
    counted = pl.scan_parquet(part, glob=False).select(pl.len()).collect().item()
    return ([part], rows) if counted == rows else None


def _cell(column: str) -> pl.Expr:
    """A cell without the spaces around it; null when nothing is left."""
    bare = pl.col(column).str.strip_chars()
    return pl.when(bare != "").then(bare).alias(column)


def _count_regular(layout: _Layout) -> int | None:
    """The number of records, if each line is one: complete, and quoted as it should be."""
    survey, separator = layout.text.survey, layout.separator
    if not survey.one_record_a_line or layout.fields > FAST_COLUMNS_MAX:
        return None
    line = pl.col("line")
    cut = f"\\x{ord(separator):02x}"
    bare = line.str.replace_all('"(?:[^"]|"")*"', "\x01") if survey.quotes else line
    fields = bare.str.count_matches(separator, literal=True)
    stray = pl.lit(False)
    if survey.quotes:
        stray = bare.str.contains(f'"|[^{cut}]\x01|\x01[^{cut}]')
    lines = pl.scan_csv(
        layout.text.path,
        has_header=False,
        separator="\x1f",
        schema={"line": pl.String},
        quote_char=None,
        empty_string_is_null=False,
        glob=False,
    )
    # A blank line is no record. One within the file is for the csv module; those at its end are
    # common, harmless and known.
    odd = (fields + 1 != layout.fields) | stray
    query = lines.select(blank=line == "", odd=odd).select(
        lines=pl.len(), blank=pl.col("blank").sum(), odd=(pl.col("odd") & ~pl.col("blank")).sum()
    )
    total, blank, wrong = query.collect(engine="streaming").row(0)
    if wrong or blank != survey.blank_lines_at_end:
        return None
    return int(total - blank)


@dataclass(slots=True)
class _Chunk:
    """Rows gathered until there are enough of them for a file; characters fed in and in all."""

    layout: _Layout
    parts: list[Path] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    total: int = 0
    chars: int = 0
    read: int = 0

    def feed(self, file: TextIO) -> Iterator[str]:
        for line in file:
            self.chars += len(line)
            self.read += len(line)
            yield line
        yield f"{_END}{self.layout.separator}{_END}"

    def is_full(self) -> bool:
        cells = len(self.rows) * self.layout.kept
        return cells >= CHUNK_CELLS_MAX or self.chars >= CHUNK_CHARS_MAX

    def flush(self) -> None:
        """Write the gathered rows as one more part."""
        if not self.rows:
            return
        part = self.layout.workspace / f"rows-{len(self.parts):06}.parquet"
        kept = zip(*self.rows, strict=True)
        columns = [pl.Series(str(at), cells, dtype=pl.String) for at, cells in enumerate(kept)]
        cells = pl.DataFrame(columns).select(_cell(column.name) for column in columns)
        cells.write_parquet(part, compression="lz4")
        self.parts.append(part)
        self.total += len(self.rows)
        self.rows, self.chars = [], 0


def _read_carefully(layout: _Layout, ragged: _Ragged, report: Report) -> tuple[list[Path], int]:
    """Read with the csv module: exact on any input, and able to name the line that is broken."""
    chunk = _Chunk(layout)
    size = max(1, layout.text.path.stat().st_size)
    with layout.text.open() as file:
        reader = _reader(chunk.feed(file), layout.separator)
        skip, line = layout.has_header, 0
        try:
            for record in reader:
                row = record
                if row and row[-1].endswith(_END):
                    _refuse_open_quote(row, line + 1)
                    break
                line = reader.line_num
                if len(row) != layout.fields:
                    if not row:
                        continue
                    ragged.add(longer=len(row) > layout.fields, line=line)
                    row = record + [""] * (layout.fields - len(record))
                if skip:
                    skip = False
                    continue
                chunk.rows.append(row[: layout.kept])
                if chunk.is_full():
                    chunk.flush()
                    share = min(1.0, chunk.read / size)
                    report(0.35 + 0.65 * share, f"Read {chunk.total:,} rows")
        except csv.Error as error:
            raise _too_large(line + 1) from error
    chunk.flush()
    return chunk.parts, chunk.total


def _refuse_open_quote(row: list[str], line: int) -> None:
    if row != [_END, _END]:
        raise CsvError(
            "csv_malformed",
            f"A quote opened in the row that starts on line {line:,} is never closed.",
            line=line,
        )


def _too_large(line: int) -> CsvError:
    return CsvError(
        "csv_malformed",
        f"A field in the row that starts on line {line:,} is larger than "
        f"{FIELD_CHARS_MAX // 2**20} million characters; most likely a quote is never closed.",
        line=line,
    )

"""Reads a CSV file of any size and shape into a table of DuckDB.

DuckDB's sniffer finds the separator and the header in the first lines. Python's csv module then
cuts the whole file into records: it reads any file, and can name the line that is broken. No
record is dropped: each becomes one row, and blank lines are not records.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any, TextIO

import duckdb
from duckdb import DuckDBPyConnection as Database

from eventjobs.demo.csv.encoding import CsvError, detect_encoding

COLUMNS_MAX = 200
FIELD_CHARS_MAX = 64 * 2**20
SAMPLE_CHARS = 256 * 2**10
#: Text in which a larger share of characters is invalid has another encoding, or is no text.
REPLACED_SHARE_MAX = 0.1
#: What may be odd about a file, and how often it was seen.
NOTES = {
    "legacy": "The file is not UTF-8; its encoding was detected.",
    "replaced": "{:,} characters are not valid in this encoding, and stand as \ufffd.",
    "skipped": "Skipped above the table: {:,} of the first lines.",
    "row_names": "The header has one name fewer than the rows have values: the first has none.",
    "looks_like_data": "The first line was read as the header, but it looks like data.",
    "renamed": "{:,} columns had no name or one that was taken, and got a new one.",
    "omitted": "Only the first columns are reported; {:,} are not.",
    "short": "{:,} rows have fewer fields than the first; the others count as missing.",
    "long": "{:,} rows have more fields than the first; the extra ones are ignored.",
    "odd_line": "The first such row ends on line {:,}.",
}

#: A record of two of these follows the last line. A quote that is still open there makes them
#: one field. No file holds them: files with NUL bytes are refused.
_END = "\0end"
_SEPARATOR_LINE = re.compile(r"sep=([^\r\n\"])\r?\n", re.IGNORECASE)


@dataclass(slots=True)
class CsvFile:
    """A file, how it is written, and what was *seen* of it, as NOTES names it.

    A separator and an encoding that are empty are detected. *report* is called with the stage,
    the share of it that is done and a message; it may raise to stop the work.
    """

    source: Path
    report: Callable[[str, float, str], None]
    separator: str = ""
    encoding: str = ""
    has_header: bool = True
    seen: Counter[str] = field(default_factory=Counter)

    def load(self, database: Database, workspace: Path) -> tuple[list[str], dict[str, Any]]:
        """Read the file into the table `cells` of *database*, with columns of text c0, c1, …

        Cells have no spaces around them, and are NULL where that leaves nothing. Returns the
        names of the first COLUMNS_MAX columns, the only ones kept, and what is known of the file.
        """
        check = partial(self.report, "reading", 0.0, "Looking at the text")
        check()
        seen, is_given = self.seen, bool(self.encoding)
        self.encoding = self.encoding or detect_encoding(self.source, check)
        self._sniff(database, workspace / "sample.csv")
        header = self._copy(workspace / "cells.csv")
        if seen["replaced"] > seen["chars"] * REPLACED_SHARE_MAX:
            message = f"This is not text: much of it is not valid {self.encoding}."
            raise CsvError("csv_not_text", message)
        names = self._unique_names(header[:COLUMNS_MAX])
        database.read_csv(
            str(workspace / "cells.csv"),
            header=False,
            lineterminator=duckdb.CSVLineTerminator.LINE_FEED,
            columns={f"c{at}": "VARCHAR" for at in range(len(names))},
            auto_detect=False,
            max_line_size=max(2**21, 4 * seen["longest"] + 3 * len(names)),
        ).create("cells")
        seen["omitted"] = len(header) - len(names)
        seen["legacy"] = not is_given and not self.encoding.startswith("utf-8")
        return names, {
            "rows": seen["rows"],
            "column_count": len(header),
            "encoding": self.encoding,
            "separator": self.separator,
            "skipped_lines": seen["skipped"],
            "notes": [text.format(seen[key]) for key, text in NOTES.items() if seen[key]],
        }

    def _open(self) -> TextIO:
        codec = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        return self.source.open(encoding=codec, errors="replace", newline="")

    def _sniff(self, database: Database, scratch: Path) -> None:
        """Find the separator, and how many lines stand above the table."""
        with self._open() as file:
            sample = file.read(SAMPLE_CHARS)
        separator = self.separator
        if named := _SEPARATOR_LINE.match(sample):
            separator, sample = separator or named[1], sample[named.end() :]
        if len(sample) > SAMPLE_CHARS // 2:
            sample = sample[: sample.rfind("\n") + 1] or sample
        scratch.write_text(sample, encoding="utf-8", errors="replace", newline="")
        nothing = {"Delimiter": ",", "Columns": [], "SkipRows": 0, "HasHeader": True}
        dialect: dict[str, Any] = nothing
        options = {"quote": '"', "max_line_size": 8 * SAMPLE_CHARS}
        options |= {"delim": separator} if separator else {}
        for loose in ({}, {"strict_mode": False, "ignore_errors": True}):
            options |= loose  # some rows may have too many fields, or too few
            with suppress(duckdb.Error):  # no dialect fits
                call = f"FROM sniff_csv(?, {', '.join(f'{name} = ?' for name in options)})"
                rows = database.execute(call, [str(scratch), *options.values()])
                names = [each[0] for each in rows.description]
                dialect = dict(zip(names, rows.fetchall()[0], strict=True))
            if len(dialect["Columns"]) > 1:
                break
        columns = len(dialect["Columns"])
        self.separator = separator or (dialect["Delimiter"] if columns > 1 else ",")
        cut = csv.reader(sample.splitlines()[: dialect["SkipRows"]], delimiter=self.separator)
        above = [[cell for cell in line if cell.strip()] for line in cut]
        looks_like_data = self.has_header and not dialect["HasHeader"]
        # R leaves out the name of the first column: its header looks like one more title.
        row_names = looks_like_data and above != [] and len(above[-1]) == columns - 1
        titles = above[:-1] if row_names else above
        if any(len(cells) > max(1, columns - 2) and cells[0][0] != "#" for cells in titles):
            titles, row_names = [], False  # a line with several values is no title
        self.seen.update(skipped=len(titles) + bool(named), row_names=row_names)
        self.seen["looks_like_data"] = looks_like_data and not row_names

    def _copy(self, target: Path) -> list[str]:
        """Write the rows, all of one length, and return the header. Raises CsvError."""
        seen, size = self.seen, max(1, self.source.stat().st_size)
        with self._open() as file, target.open("w", encoding="utf-8", newline="") as out:
            records = self._records(file)
            header = next(records, None)
            if header is None:
                raise CsvError("csv_empty", "The file has no content: not even a header line.")
            if not self.has_header:
                records, header = chain([header], records), [""] * len(header)
            header = [""] * seen["row_names"] + header
            width, kept = len(header), min(len(header), COLUMNS_MAX)
            writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for record in records:
                if len(record) != width:
                    seen["short" if len(record) < width else "long"] += 1
                    seen["odd_line"] = seen["odd_line"] or seen["lines"]
                row = [cell.strip() for cell in record[:kept]] + [""] * (kept - len(record))
                writer.writerow(row)
                seen["longest"] = max(seen["longest"], sum(map(len, row)))
                if seen["rows"] % 10_000 == 0:
                    share = 0.9 * min(1.0, file.buffer.tell() / size)
                    self.report("reading", share, f"Read {seen['rows']:,} rows")
                seen["rows"] += 1
        return header

    def _unique_names(self, header: list[str]) -> list[str]:
        names: dict[str, None] = {}
        for number, cell in enumerate(header, 1):
            wanted = " ".join(cell.split())[:100]
            name = wanted or f"column_{number}"
            others = (f"{name}_{again}" for again in count(2))
            unique = next(each for each in chain([name], others) if each not in names)
            names[unique] = None
            self.seen["renamed"] += self.has_header and unique != wanted
        self.seen["renamed"] -= self.seen["row_names"]
        return list(names)

    def _records(self, file: TextIO) -> Iterator[list[str]]:
        """The records of the table that are not blank lines. Raises CsvError."""
        # The limit is that of the process, so it is only ever raised, and to the same value.
        csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARS_MAX))
        start, fault = 1, ""
        try:
            for record in csv.reader(self._lines(file), delimiter=self.separator):
                if record and record[-1].endswith(_END):
                    is_open = record != [_END, _END]
                    fault = "A quote opened in {} is never closed." if is_open else ""
                    break
                if record:
                    yield record
                start = self.seen["lines"] + 1
        except csv.Error:
            limit = f"larger than {FIELD_CHARS_MAX // 2**20} million characters"
            fault = f"A field in {{}} is {limit}; most likely a quote is never closed."
        if fault:
            row = f"the row that starts on line {start:,}"
            raise CsvError("csv_malformed", fault.format(row), line=start)

    def _lines(self, file: TextIO) -> Iterator[str]:
        seen = self.seen
        for line in iter(partial(file.readline, FIELD_CHARS_MAX + 2), ""):
            seen["lines"] += 1
            seen["chars"] += len(line)
            seen["replaced"] += line.count("\ufffd")
            if "\0" in line:
                message = f"This is not a text file: there is a NUL byte on line {seen['lines']:,}."
                raise CsvError("csv_binary", message, line=seen["lines"])
            if len(line) > FIELD_CHARS_MAX and not line.endswith(("\r", "\n")):
                raise csv.Error("a line without an end")
            if seen["lines"] > seen["skipped"]:
                yield line
        yield f"{_END}{self.separator}{_END}"

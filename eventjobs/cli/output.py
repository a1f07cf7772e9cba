"""Standard output: text, JSON, and tables."""

import sys
from collections.abc import Callable, Iterable, Sequence

import orjson
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from eventjobs.client.requests import JSONObject


def emit(value: str | JSONObject) -> None:
    """Print a line of text, or an object as a line of JSON."""
    print(value if isinstance(value, str) else orjson.dumps(value).decode(), flush=True)


def print_table(head: Iterable[Column | str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table to a terminal, and tab-separated values without a head to anything else."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(map(str, row)))
        return
    table = Table(*head, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(each if isinstance(each, Text) else Text(each) for each in row))
    Console().print(table)


def print_items(
    items: Iterable[JSONObject],
    head: Sequence[str],
    row_of: Callable[[JSONObject], Iterable[object]],
    *,
    json: bool,
) -> None:
    """Print *items* as JSON, or as a table with one row each. None becomes a dash."""
    if json:
        for item in items:
            emit(item)
        return
    rows = (row_of(item) for item in items)
    print_table(head, [["-" if cell is None else printable(cell) for cell in row] for row in rows])


def printable(text: object) -> str:
    """*text* on one line, without control characters: handlers and submitters wrote it."""
    return printable_line(" ".join(str(text).split()))


def printable_line(text: str) -> str:
    """*text* without control characters. Spaces stay as they are."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)

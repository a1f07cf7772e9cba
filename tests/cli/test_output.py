"""What commands print: tables, objects, and text without control characters."""

import io
import sys

import pytest
from rich.text import Text

from eventjobs.cli.output import print_items, print_table, printable, printable_line

ROWS: list[list[str | Text]] = [["a", "[bold]1"], ["b", Text("2", "green")]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_script_gets_tab_separated_values_without_a_head(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("name", "value"), ROWS)
    assert capsys.readouterr().out == "a\t[bold]1\nb\t2\n"


def test_a_terminal_gets_a_head_and_cells_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "dumb")
    print_table(("name", "value"), ROWS)
    lines = [line.split() for line in terminal.getvalue().splitlines()]
    assert lines == [["name", "value"], ["a", "[bold]1"], ["b", "2"]]


def test_an_item_is_a_row_or_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"name": "a\x1b", "limit": None}]
    for json in (False, True):
        head = ("name", "limit")
        print_items(items, head, lambda item: (item["name"], item["limit"]), json=json)
    assert capsys.readouterr().out == 'a\ufffd\t-\n{"name":"a\\u001b","limit":null}\n'


def test_text_cannot_control_a_terminal() -> None:
    assert printable("a\n b\x1b[31m\u202e") == "a b\ufffd[31m\ufffd"
    assert printable_line("  a\tb") == "  a\ufffdb"

"""The table of what five front ends ask for: each item names the tests that show it, or a reason.

items.tsv has a row for each item, whose last column is `file::test`, several with spaces between
them, or `not: ` and a reason why no test can show it.
"""

import ast
import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("items.tsv")
ITEMS = 306


class Item(NamedTuple):
    number: str
    seed: str
    kind: str
    text: str
    shown_by: str


def read_items() -> list[Item]:
    with TABLE.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [Item(*row) for row in rows[1:]]


@cache
def names_of_tests(path: str) -> frozenset[str]:
    """The names of the tests in a file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, functions) and node.name.startswith("test_")
    )


def test_no_item_is_missing() -> None:
    items = read_items()
    assert [each.number for each in items] == [str(n) for n in range(1, ITEMS + 1)]
    assert all(all(each) for each in items)


def test_the_tests_that_items_name_exist() -> None:
    lost = [
        f"{each.number}: {name}"
        for each in read_items()
        if not each.shown_by.startswith("not: ")
        for name in each.shown_by.split(" ")
        if name.partition("::")[2] not in names_of_tests(name.partition("::")[0])
    ]
    assert not lost


def test_the_tests_that_reasons_mention_exist() -> None:
    mentioned = {
        name.strip("(),;.")
        for each in read_items()
        if each.shown_by.startswith("not: ")
        for name in each.shown_by.split(" ")
        if name.startswith(("tests/", "(tests/"))
    }
    assert mentioned
    for name in mentioned:
        path, _, test = name.partition("::")
        assert names_of_tests(path), path
        assert not test or test in names_of_tests(path), name

"""Compares two sets of views, table by table and row by row."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from eventjobs.errors import ForeignDatabase
from eventjobs.projections.store import Store
from eventjobs.storage.sqlite import connect

#: Each table with the names of its key, and the statement that reads it in that order.
TABLES = """
WITH keys AS (
  SELECT tables.name AS name, columns.name AS key
  FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
  WHERE tables.type = 'table' AND columns.pk > 0
  ORDER BY tables.name, columns.pk)
SELECT name, json_group_array(key),
  printf('SELECT * FROM "%w" ORDER BY %s', name, group_concat(printf('"%w"', key)))
FROM keys
GROUP BY name
"""
DEFINITIONS = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"


class Difference(NamedTuple):
    """A row that exists on one side only, or the columns of a row that differ."""

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None


async def copy(views: Path, target: Path) -> None:
    """Copy one state of the live views; the service does not wait. Raises ForeignDatabase."""
    while True:
        before = _inode(views)
        try:
            live = await connect(views, read_only=True)
            try:
                with closing(sqlite3.connect(target, check_same_thread=False)) as copied:
                    await live.backup(copied)  # all pages in one step: one read transaction
            finally:
                await live.close()
        except sqlite3.Error as error:
            raise ForeignDatabase(f"the views {views} cannot be read: {error}") from error
        # A rebuild in the service may have replaced the file during the copy.
        if _inode(views) == before:
            return
        Store.remove(target)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError as error:
        raise ForeignDatabase(f"there are no views at {path}") from error


def differences(live: sqlite3.Connection, rebuilt: sqlite3.Connection) -> Iterator[Difference]:
    """Every difference: first of the definitions of tables and indexes, then of rows."""
    definitions, expected = (dict(each.execute(DEFINITIONS).fetchall()) for each in (live, rebuilt))
    for name in sorted(definitions.keys() | expected.keys()):
        if definitions.get(name) != expected.get(name):
            yield Difference(name, {}, {"sql": definitions.get(name)}, {"sql": expected.get(name)})
    for table, key, sql in rebuilt.execute(TABLES).fetchall():
        if definitions.get(table) == expected[table]:
            yield from _rows(table, orjson.loads(key), live.execute(sql), rebuilt.execute(sql))


def _rows(
    table: str, key: list[str], live: sqlite3.Cursor, rebuilt: sqlite3.Cursor
) -> Iterator[Difference]:
    columns = [each[0] for each in live.description]
    indexes = [columns.index(name) for name in key]

    def key_of(row: Any) -> list[Any]:
        return [row[index] for index in indexes]

    one, other = live.fetchone(), rebuilt.fetchone()
    while one is not None or other is not None:
        # Both are sorted by key, so the smaller row is missing on the other side.
        if other is None or (one is not None and key_of(one) < key_of(other)):
            row = dict(zip(columns, one, strict=True))
            yield Difference(table, {name: row[name] for name in key}, row, None)
            one = live.fetchone()
        elif one is None or key_of(other) < key_of(one):
            row = dict(zip(columns, other, strict=True))
            yield Difference(table, {name: row[name] for name in key}, None, row)
            other = rebuilt.fetchone()
        else:
            if one != other:
                yield _difference(table, key, columns, one, other)
            one, other = live.fetchone(), rebuilt.fetchone()


def _difference(
    table: str, key: list[str], columns: list[str], one: Sequence[Any], other: Sequence[Any]
) -> Difference:
    row = dict(zip(columns, one, strict=True))
    pairs: dict[str, tuple[Any, Any]] = {}
    for column, live, rebuilt in zip(columns, one, other, strict=True):
        if live != rebuilt:
            pairs.update(_members(column, live, rebuilt))
    return Difference(
        table,
        {name: row[name] for name in key},
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )


def _members(column: str, live: Any, rebuilt: Any) -> dict[str, tuple[Any, Any]]:
    """The members that differ if both values are JSON objects; else the column itself."""
    try:
        one, other = orjson.loads(live), orjson.loads(rebuilt)
    except orjson.JSONDecodeError:
        return {column: (live, rebuilt)}
    if not isinstance(one, dict) or not isinstance(other, dict) or one == other:
        return {column: (live, rebuilt)}
    return {
        f"{column}.{name}": (one.get(name), other.get(name))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) or (name in one) != (name in other)
    }

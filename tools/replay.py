"""Build the views of a data directory again from its log, or check the ones it has.

    eventjobs-replay DATA            build them anew; the service must be stopped
    eventjobs-replay DATA --check    build them aside and compare, also while the service runs

Exits with 0 when the views are as the log says, 1 at the first difference, 2 when it cannot tell.
"""

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import aiosqlite
import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import EventjobsError, ForeignDatabase
from eventjobs.log.rows import READ, ROWS, recorded_from_bytes
from eventjobs.log.sqlite import HEAD, LOG_ID
from eventjobs.log.sqlite_authorizer import SCHEMA_VERSION
from eventjobs.projections.store import Store
from eventjobs.storage.sqlite import connect, fetch_value, initialize, lock_directory

PAGE = 2000
#: Of one value that is printed.
CHARS_MAX = 200

POSITION = "SELECT value FROM meta WHERE name = 'position'"
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

#: Told the position reached, and the one to be reached.
Told = Callable[[int, int], object]


class Difference(NamedTuple):
    """The first row that is not as the log says: what is only on one side, or differs."""

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None


class Log:
    """`log.db`, read beside the process that writes it: never a write, never a checkpoint."""

    def __init__(self, connection: aiosqlite.Connection, log_id: str, head: int) -> None:
        self.connection = connection
        self.log_id = log_id
        self.head = head

    @classmethod
    async def open(cls, data: Path) -> "Log":
        """Raises NotOurs, TooNew."""
        try:
            connection = await connect(data / "log.db", read_only=True)
        except sqlite3.Error as error:
            raise ForeignDatabase(f"there is no log in {data}") from error
        try:
            await initialize(connection, "", SCHEMA_VERSION)
            log_id = await fetch_value(connection, LOG_ID)
            return cls(connection, log_id, await fetch_value(connection, HEAD))
        except (sqlite3.Error, ValueError) as error:
            await connection.close()
            raise ForeignDatabase(f"the log in {data} cannot be read: {error}") from error
        except BaseException:
            await connection.close()
            raise

    async def read(self, after: int, limit: int) -> list[Recorded]:
        rows = await self.connection.execute_fetchall(ROWS[READ], (after, limit))
        return [recorded_from_bytes(*row) for row in rows]


async def build(data: Path, target: Path, position: int | None, told: Told) -> int:
    """Make *target* from the log up to *position*, or to its head; where it stands then."""
    log = await Log.open(data)
    try:
        until = log.head if position is None else min(position, log.head)
        store = await Store.open(target, log.log_id, log.head)
        try:
            while store.position < until:
                page = await log.read(store.position, min(PAGE, until - store.position))
                if not page:
                    raise ForeignDatabase(f"the log ends at {store.position}, before {until}")
                await store.apply(page, parking=True)
                told(store.position, until)
            return store.position
        finally:
            await store.close()
    finally:
        await log.connection.close()


# --- building anew


def replay(data: Path, told: Told) -> int:
    """Put new views in the place of those there are. Raises DirectoryLocked."""
    lock = lock_directory(data)
    try:
        fresh = data / "views.db.new"
        Store.remove(fresh)
        try:
            position = asyncio.run(build(data, fresh, None, told))
        except BaseException:
            Store.remove(fresh)
            raise
        Store.replace(fresh, data / "views.db")
        return position
    finally:
        os.close(lock)


# --- checking


def check(data: Path, told: Told) -> tuple[int, Difference | None]:
    """Compare the views with what the log makes of them, at the position they have."""
    with TemporaryDirectory(prefix="eventjobs-replay-") as directory:
        live, rebuilt = Path(directory, "live.db"), Path(directory, "rebuilt.db")
        asyncio.run(copy(data / "views.db", live))
        with closing(sqlite3.connect(live)) as one, closing(sqlite3.connect(rebuilt)) as other:
            try:
                found = one.execute(POSITION).fetchone()
                position = int(found[0]) if found else 0
                asyncio.run(build(data, rebuilt, position, told))
                return position, next(differences(one, other), None)
            except (sqlite3.Error, ValueError) as error:
                raise ForeignDatabase(f"the views in {data} cannot be read: {error}") from error


async def copy(views: Path, target: Path) -> None:
    """One moment of the live views, so that nobody waits for the comparison. Raises NotOurs."""
    while True:
        before = _inode(views)
        try:
            live = await connect(views, read_only=True)
            try:
                with closing(sqlite3.connect(target, check_same_thread=False)) as there:
                    await live.backup(there)  # all pages in one step: one read transaction
            finally:
                await live.close()
        except sqlite3.Error as error:
            raise ForeignDatabase(f"the views {views} cannot be read: {error}") from error
        # The service may put rebuilt views in their place meanwhile.
        if _inode(views) == before:
            return
        Store.remove(target)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError as error:
        raise ForeignDatabase(f"there are no views at {path}") from error


def differences(live: sqlite3.Connection, rebuilt: sqlite3.Connection) -> Iterator[Difference]:
    """Every difference: first in what tables there are, then row by row."""
    defined, wanted = (dict(each.execute(DEFINITIONS).fetchall()) for each in (live, rebuilt))
    for name in sorted(defined.keys() | wanted.keys()):
        if defined.get(name) != wanted.get(name):
            yield Difference(name, {}, {"sql": defined.get(name)}, {"sql": wanted.get(name)})
    for table, key, sql in rebuilt.execute(TABLES).fetchall():
        if defined.get(table) == wanted[table]:
            yield from _rows(table, orjson.loads(key), live.execute(sql), rebuilt.execute(sql))


def _rows(
    table: str, key: list[str], live: sqlite3.Cursor, rebuilt: sqlite3.Cursor
) -> Iterator[Difference]:
    columns = [each[0] for each in live.description]
    places = [columns.index(name) for name in key]

    def keyed(row: Any) -> list[Any]:
        return [row[place] for place in places]

    one, other = live.fetchone(), rebuilt.fetchone()
    while one is not None or other is not None:
        # Both come in the order of the key: the smaller one is not on the other side.
        if other is None or (one is not None and keyed(one) < keyed(other)):
            known = dict(zip(columns, one, strict=True))
            yield Difference(table, {name: known[name] for name in key}, known, None)
            one = live.fetchone()
        elif one is None or keyed(other) < keyed(one):
            known = dict(zip(columns, other, strict=True))
            yield Difference(table, {name: known[name] for name in key}, None, known)
            other = rebuilt.fetchone()
        else:
            if one != other:
                yield _differing(table, key, columns, one, other)
            one, other = live.fetchone(), rebuilt.fetchone()


def _differing(
    table: str, key: list[str], columns: list[str], one: Sequence[Any], other: Sequence[Any]
) -> Difference:
    known = dict(zip(columns, one, strict=True))
    pairs: dict[str, tuple[Any, Any]] = {}
    for column, live, rebuilt in zip(columns, one, other, strict=True):
        if live != rebuilt:
            pairs.update(_parts(column, live, rebuilt))
    return Difference(
        table,
        {name: known[name] for name in key},
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )


def _parts(column: str, live: Any, rebuilt: Any) -> dict[str, tuple[Any, Any]]:
    """The members that differ, where both are JSON objects; else the column itself."""
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


# --- the command


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("eventjobs-replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="the data directory")
    parser.add_argument("--check", action="store_true", help="compare and change nothing")
    parser.add_argument("--json", action="store_true", help="tell the outcome as JSON")
    given = parser.parse_args(arguments)
    try:
        if not (given.data / "log.db").is_file():
            raise ForeignDatabase(f"there is no log in {given.data}")
        with progress_bar() as told:
            if given.check:
                position, difference = check(given.data, told)
            else:
                position, difference = replay(given.data, told), None
    except EventjobsError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        return 2
    except (sqlite3.Error, OSError) as error:
        print(f"error: data_directory: {given.data} cannot be used: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if given.json:
        outcome = {"equal": difference is None, "position": position, "checked": given.check}
        outcome["difference"] = None if difference is None else difference._asdict()
        print(orjson.dumps(outcome).decode())
    elif not given.check:
        print(f"the views of {given.data} were built anew, up to position {position}")
    elif difference is None:
        print(f"the views of {given.data} are as the log says, up to position {position}")
    else:
        print(f"the views of {given.data} are not as the log says, at position {position}:")
        print("\n".join(_lines(difference)))
    return 0 if difference is None else 1


@contextmanager
def progress_bar() -> Iterator[Told]:
    """A bar where somebody looks, nothing where nobody does."""
    if not sys.stderr.isatty():
        yield lambda position, until: None
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=None)
        yield lambda position, until: bar.update(task, completed=position, total=until)


def _lines(difference: Difference) -> Iterator[str]:
    table, key, live, rebuilt = difference
    where = ", ".join(f"{name} {value}" for name, value in key.items())
    yield f"  table {table}" + (f", {where}" if where else "")
    if live is None:
        yield "  live:    no such row"
    if rebuilt is None:
        yield "  rebuilt: no such row"
    for name in live or rebuilt or {}:
        yield f"  {name}"
        if live is not None:
            yield f"    live:    {_short(live[name])}"
        if rebuilt is not None:
            yield f"    rebuilt: {_short(rebuilt[name])}"


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= CHARS_MAX else f"{text[:CHARS_MAX]}… ({len(text)} characters)"


if __name__ == "__main__":
    sys.exit(main())

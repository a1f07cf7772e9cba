"""Rebuilds the views of a data directory from its log, or checks them.

    eventjobs-replay DATA            rebuild the views; the service must be stopped
    eventjobs-replay DATA --check    rebuild them in another place and compare, beside the service

The exit code is 0 when the views are as the log says, 1 when they differ, 2 after an error.
"""

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from eventjobs.errors import EventjobsError, ForeignDatabase
from eventjobs.projections.read_ahead import ReadAhead
from eventjobs.projections.store import Store
from eventjobs.storage.sqlite import lock_directory

from .compare_views import Difference, copy, differences
from .read_log import LogFile, require_log

#: Characters of one value that are printed.
CHARS_MAX = 200
POSITION = "SELECT value FROM meta WHERE name = 'position'"

#: Called with the position that was reached, and the last one.
OnProgress = Callable[[int, int], object]


async def build(data: Path, target: Path, position: int | None, on_progress: OnProgress) -> int:
    """Build views at *target* from the log up to *position* or its head; the position reached."""
    log = await LogFile.open(data)
    try:
        until = log.head if position is None else min(position, log.head)
        store = await Store.open(target, log.log_id, log.head)
        try:
            with ReadAhead(log) as windows:
                while store.position < until:
                    window = await windows.read(store.position, until - store.position)
                    if not window:
                        raise ForeignDatabase(f"the log ends at {store.position}, before {until}")
                    await store.apply(window, parking=True)
                    on_progress(store.position, until)
            return store.position
        finally:
            await store.close()
    finally:
        await log.connection.close()


def replay(data: Path, on_progress: OnProgress) -> int:
    """Replace the views by rebuilt ones; their position. Raises DirectoryLocked."""
    lock = lock_directory(data)
    try:
        fresh = data / "views.db.new"
        Store.remove(fresh)
        try:
            position = asyncio.run(build(data, fresh, None, on_progress))
        except BaseException:
            Store.remove(fresh)
            raise
        Store.replace(fresh, data / "views.db")
        return position
    finally:
        os.close(lock)


# --- checking


def check(data: Path, on_progress: OnProgress) -> tuple[int, Difference | None]:
    """Compare the views with rebuilt ones at the same position; it, and the first difference."""
    with TemporaryDirectory(prefix="eventjobs-replay-") as directory:
        live, rebuilt = Path(directory, "live.db"), Path(directory, "rebuilt.db")
        asyncio.run(copy(data / "views.db", live))
        with closing(sqlite3.connect(live)) as one, closing(sqlite3.connect(rebuilt)) as other:
            try:
                row = one.execute(POSITION).fetchone()
                position = int(row[0]) if row else 0
                asyncio.run(build(data, rebuilt, position, on_progress))
                return position, next(differences(one, other), None)
            except (sqlite3.Error, ValueError) as error:
                raise ForeignDatabase(f"the views in {data} cannot be read: {error}") from error


# --- the command


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("eventjobs-replay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="the data directory")
    parser.add_argument("--check", action="store_true", help="compare and change nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args(arguments)
    try:
        require_log(options.data)
        with progress_bar() as on_progress:
            if options.check:
                position, difference = check(options.data, on_progress)
            else:
                position, difference = replay(options.data, on_progress), None
    except EventjobsError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        return 2
    except (sqlite3.Error, OSError) as error:
        print(f"error: data_directory: {options.data} cannot be used: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        outcome = {"equal": difference is None, "position": position, "checked": options.check}
        outcome["difference"] = None if difference is None else difference._asdict()
        print(orjson.dumps(outcome).decode())
    elif not options.check:
        print(f"the views of {options.data} were built anew, up to position {position}")
    elif difference is None:
        print(f"the views of {options.data} are as the log says, up to position {position}")
    else:
        print(f"the views of {options.data} are not as the log says, at position {position}:")
        print("\n".join(_lines(difference)))
    return 0 if difference is None else 1


@contextmanager
def progress_bar() -> Iterator[OnProgress]:
    """A bar on a terminal; nothing where stderr is a file or a pipe."""
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

"""Rows of views files: applying batches of events, and comparing files."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from eventjobs.domain.recorded import Recorded
from eventjobs.projections.store import Store

LOG_ID = "0" * 32
HEAD = 10**9


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, byte for byte."""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        return {
            name.decode(): sorted(
                connection.execute(f"SELECT * FROM {name.decode()}").fetchall(), key=repr
            )
            for [name] in names
        }


async def apply(path: Path, batches: Sequence[Sequence[Recorded]], *, reopen: bool = False) -> None:
    """As a service does it: batch by batch, keeping in memory what it has just seen."""
    store = await Store.open(path, LOG_ID, HEAD)
    for batch in batches:
        await store.apply(batch)
        if reopen:
            await store.close()
            store = await Store.open(path, LOG_ID, HEAD)
    await store.close()


def cut(history: list[Recorded], sizes: list[int]) -> list[list[Recorded]]:
    batches = []
    rest = history
    for size in sizes:
        batches.append(rest[:size])
        rest = rest[size:]
    return [batch for batch in [*batches, rest] if batch]

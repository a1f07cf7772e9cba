"""Reads around damage in the log's file: a damaged page costs only its own events."""

import sqlite3
from typing import Any

import aiosqlite
import orjson

from eventjobs.domain.events import Unreadable
from eventjobs.domain.recorded import Recorded
from eventjobs.log.rows import READ, ROWS, recorded_from_bytes

READ_ONE = """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body
FROM events WHERE position = ?1
"""
#: Reads the index alone: the rows may be what is damaged.
POSITIONS_OF_JOB = (
    "SELECT position FROM events WHERE job_id = ?1 AND position > ?2 ORDER BY version LIMIT ?3"
)
NAMES_FROM_INDEX = """
SELECT position, job_id, version FROM events INDEXED BY sqlite_autoindex_events_1
WHERE +position IN (SELECT value FROM json_each(?1))
"""


async def read_around_damage(
    reader: aiosqlite.Connection,
    sql: str,
    parameters: tuple[Any, ...],
    head: int,
    error: Exception,
) -> list[Recorded]:
    """The result of *sql*, READ or READ_JOB, which raised *error*, read row by row.

    An event whose row is damaged is Unreadable. Raises *error* if it is not about damage, or if
    the index is damaged, too.
    """
    if not isinstance(error, sqlite3.Error):  # bytes that are no UTF-8
        rows = await reader.execute_fetchall(ROWS[sql], parameters)
        return [recorded_from_bytes(*row) for row in rows]
    if not _is_corruption(error):
        raise error
    if sql == READ:
        after, limit = parameters
        positions = list(range(after + 1, min(after + limit, head) + 1))
    else:
        rows = await reader.execute_fetchall(POSITIONS_OF_JOB, parameters)
        positions = [row[0] for row in rows]
    events: dict[int, Recorded] = {}
    for position in positions:
        try:
            for row in await reader.execute_fetchall(READ_ONE, (position,)):
                events[position] = recorded_from_bytes(*row)
        except sqlite3.DatabaseError as damage:
            if not _is_corruption(damage):
                raise
    lost = [position for position in positions if position not in events]
    names = await reader.execute_fetchall(NAMES_FROM_INDEX, (orjson.dumps(lost).decode(),))
    for position, job_id, version in names:
        why = Unreadable("the file of the log is damaged where it was")
        events[position] = Recorded(position, job_id, version, 0, "", why, "Damaged", b"{}", None)
    if len(events) < len(positions):
        raise error
    return [events[position] for position in positions]


def _is_corruption(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT

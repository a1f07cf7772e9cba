"""Reading past what is wrong in the log's file: a damaged page costs its own events alone."""

import sqlite3
from typing import Any

import aiosqlite
import orjson

from eventjobs.domain.events import Unreadable
from eventjobs.domain.recorded import Recorded
from eventjobs.log.rows import READ, ROWS, recorded

ONE = """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body
FROM events WHERE position = ?1
"""
#: From the index alone: the rows themselves may be what cannot be read.
OF_JOB = "SELECT position FROM events WHERE job_id = ?1 AND position > ?2 ORDER BY version LIMIT ?3"
NAMES = """
SELECT position, job_id, version FROM events INDEXED BY sqlite_autoindex_events_1
WHERE +position IN (SELECT value FROM json_each(?1))
"""


async def read_around(
    reader: aiosqlite.Connection,
    sql: str,
    parameters: tuple[Any, ...],
    head: int,
    error: Exception,
) -> list[Recorded]:
    """What *sql*, READ or READ_JOB, was to find when it raised *error*: row by row.

    An event whose row is damaged is Unreadable. Raises *error* when it is another.
    """
    if not isinstance(error, sqlite3.Error):  # bytes that are no UTF-8
        return [recorded(*row) for row in await reader.execute_fetchall(ROWS[sql], parameters)]
    if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
        raise error
    if sql == READ:
        after, limit = parameters
        positions = list(range(after + 1, min(after + limit, head) + 1))
    else:
        positions = [row[0] for row in await reader.execute_fetchall(OF_JOB, parameters)]
    found: dict[int, Recorded] = {}
    for position in positions:
        try:
            for row in await reader.execute_fetchall(ONE, (position,)):
                found[position] = recorded(*row)
        except sqlite3.DatabaseError as damage:
            if damage.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
    lost = [position for position in positions if position not in found]
    names = await reader.execute_fetchall(NAMES, (orjson.dumps(lost).decode(),))
    for position, job_id, version in names:
        why = Unreadable("the file of the log is damaged where it was")
        found[position] = Recorded(position, job_id, version, 0, "", why, "Damaged", b"{}", None)
    if len(found) < len(positions):
        raise error  # not even its index can be read
    return [found[position] for position in positions]

"""Reads the log of a data directory beside the service, for the tools."""

import sqlite3
from pathlib import Path

import aiosqlite

from eventjobs.domain.recorded import Recorded
from eventjobs.errors import ForeignDatabase
from eventjobs.log.rows import READ, READ_JOB, ROWS, recorded_from_bytes
from eventjobs.log.sqlite import HEAD, LOG_ID
from eventjobs.log.sqlite_authorizer import SCHEMA_VERSION
from eventjobs.storage.sqlite import connect, fetch_value, initialize

#: Rows of one read.
PAGE = 2000


def require_log(data: Path) -> None:
    """Raises ForeignDatabase when the data directory has no log."""
    if not (data / "log.db").is_file():
        raise ForeignDatabase(f"there is no log in {data}")


class LogFile:
    """`log.db`, read beside the process that writes it, without a write or a checkpoint."""

    def __init__(self, connection: aiosqlite.Connection, log_id: str, head: int) -> None:
        self.connection = connection
        self.log_id = log_id
        self.head = head

    @classmethod
    async def open(cls, data: Path) -> "LogFile":
        """Raises ForeignDatabase, DatabaseTooNew."""
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

    async def read_job(self, job_id: str, limit: int) -> list[Recorded]:
        """At most *limit* events of one job, the first ones."""
        rows = await self.connection.execute_fetchall(ROWS[READ_JOB], (job_id, 0, limit))
        return [recorded_from_bytes(*row) for row in rows]

    async def read(self, after: int, limit: int) -> list[Recorded]:
        """At most *limit* events after position *after*."""
        rows = await self.connection.execute_fetchall(ROWS[READ], (after, limit))
        return [recorded_from_bytes(*row) for row in rows]

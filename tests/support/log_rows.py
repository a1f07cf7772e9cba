"""Rows of the log, made of events or changed, for what checks a log."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
from eventjobs.tools.soak.kills.checker import COMMITMENT, Row

#: A job, an actor, and an event.
Entry = tuple[str, str, Event]


def rows_of(entries: list[Entry]) -> list[Row]:
    """*entries* as a log stores them."""
    versions: dict[str, int] = {}
    rows = []
    for position, (job_id, actor, event) in enumerate(entries, start=1):
        versions[job_id] = versions.get(job_id, 0) + 1
        type, facts, body = encode(event)
        salt = position.to_bytes(16)
        commitment = hashlib.sha256(COMMITMENT + salt + body).digest()
        place = position, job_id, versions[job_id], type, 1_000_000 * position, actor
        rows.append(Row(*place, facts, body, salt, commitment))
    return rows


def change(path: Path, *statements: str) -> None:
    """Change a database in spite of its triggers."""
    with closing(sqlite3.connect(path)) as connection, connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        dropped = triggers.fetchall()
        for name, _ in dropped:
            connection.execute(f"DROP TRIGGER {name}")
        for sql in (*statements, *(trigger for _, trigger in dropped)):
            connection.execute(sql)

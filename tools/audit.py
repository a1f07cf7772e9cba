"""Exports a log as JSON lines for an auditor, and checks every commitment.

    eventjobs-audit DATA [--job ID] [--after N] [--until N] [--unmask] [-o FILE]

A line is an event as clients read it, with its proof: `facts` and `body` are the stored text,
`salt` and `commitment` are hex; `body` and `salt` are null once erased. Values of sensitive fields
are hidden unless --unmask: such a line has `"masked": true`, `body` and `salt` are null, and its
commitment, which was checked, cannot be checked from the line. The last line on stderr has the
numbers of events and of masked ones, and the SHA-256 of the output. The exit code is 1 when a check
fails, and the first bad position is printed; 2 when the log cannot be read. The service may run at
the same time.
"""

import argparse
import asyncio
import hashlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import UUID

import orjson

from eventjobs.cache import LRUCache
from eventjobs.domain.events import JobSubmitted, Unreadable
from eventjobs.domain.mask import UNKNOWN, Mask, MaskedEvent
from eventjobs.domain.recorded import Recorded
from eventjobs.durability import replacement
from eventjobs.errors import EventjobsError, ForeignDatabase
from eventjobs.log.commitment import COMMITMENT
from eventjobs.log.rows import recorded_from_bytes

from .read_log import PAGE, LogFile, require_log

#: Jobs whose masks are in memory.
MASKS_MAX = 20_000

READ = """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body, salt, commitment
FROM events
WHERE position > ?1 AND position <= ?2
ORDER BY position
LIMIT ?3
"""
READ_JOB = """
SELECT position, CAST(job_id AS BLOB), version, CAST(type AS BLOB), at_us, CAST(actor AS BLOB),
  facts, body, salt, commitment
FROM events
WHERE job_id = ?4 AND position > ?1 AND position <= ?2
ORDER BY position
LIMIT ?3
"""


class Stored(NamedTuple):
    """A row of the log."""

    recorded: Recorded
    salt: bytes | None
    commitment: bytes

    @property
    def position(self) -> int:
        return self.recorded.position

    def fault(self) -> str | None:
        """The reason why this row cannot have been recorded so; None without one."""
        body = self.recorded.body
        if body is not None and self.salt is not None:
            if hashlib.sha256(COMMITMENT + self.salt + body).digest() != self.commitment:
                return "the body is not the one that was committed to"
        elif body is not None or self.salt is not None:
            return "only one of body and salt is erased"
        event = self.recorded.event
        return event.why if isinstance(event, Unreadable) else None

    def line(self) -> bytes:
        """The JSON line of the export."""
        facts, body = self.recorded.facts, self.recorded.body
        if isinstance(self.recorded, MaskedEvent):
            body = None
        proof = {
            "facts": facts.decode("utf-8", "replace"),
            "body": None if body is None else body.decode("utf-8", "replace"),
            "salt": None if self.salt is None else self.salt.hex(),
            "commitment": self.commitment.hex(),
        }
        line = self.recorded.json()
        if isinstance(self.recorded.event, Unreadable):  # the proof has the stored text
            line = orjson.dumps(orjson.loads(line) | {"data": None})
        return line[:-1] + b"," + orjson.dumps(proof)[1:] + b"\n"

    def hide(self, mask: Mask | None) -> "Stored":
        """The row with hidden values. Its salt would confirm guesses of them."""
        recorded = self.recorded if mask is None else mask.event(self.recorded)
        return self if recorded is self.recorded else Stored(recorded, None, self.commitment)


class JobMasks:
    """The masks of jobs, from their first events."""

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self._cache: LRUCache[tuple[Mask | None]] = LRUCache(MASKS_MAX, MASKS_MAX)

    async def of(self, recorded: Recorded) -> Mask | None:
        """The mask for an event; None for one that is shown as it is."""
        job_id = recorded.job_id
        if (cached := self._cache.get(job_id)) is None:
            first: Recorded | None = recorded
            if recorded.version != 1:
                events = await self._log.read_job(job_id, 1)
                first = events[0] if events else None
            cached = (_mask_of(first),)
            self._cache.put(job_id, cached, 1)
        return cached[0]


def _mask_of(first: Recorded | None) -> Mask | None:
    """The mask of the stream that begins with *first*: of a job, or of a part of the service."""
    if first is None or first.version != 1 or isinstance(first.event, Unreadable):
        return UNKNOWN
    return Mask.of(first.event.spec) if isinstance(first.event, JobSubmitted) else None


class Export:
    """Writes events to *file*; *first_bad* is the first fault."""

    def __init__(self, file: BinaryIO) -> None:
        self.events = 0
        self.masked = 0
        self.first_bad: str | None = None
        self._file = file
        self._bad = 0
        self._first = 0
        self._last = 0
        self._hash = hashlib.sha256()

    async def run(
        self,
        data: Path,
        job_id: str | None = None,
        after: int = 0,
        until: int | None = None,
        *,
        unmask: bool = False,
    ) -> None:
        """Export the events of all jobs, or of one. Raises ForeignDatabase, DatabaseTooNew."""
        log = await LogFile.open(data)
        masks = JobMasks(log)
        try:
            until = log.head if until is None else min(until, log.head)
            before: Stored | None = None
            async for row in _rows(log, job_id, after, until):
                self._check(row, before, after, job_id is not None)
                self._write(row if unmask else row.hide(await masks.of(row.recorded)))
                before = row
            if job_id is None and after < until and self._last != until:
                self._refuse(self._last or after, "the events after it are missing")
        except sqlite3.Error as error:
            raise ForeignDatabase(f"the log in {data} cannot be read: {error}") from error
        finally:
            await log.connection.close()

    def _check(self, row: Stored, before: Stored | None, after: int, one_job: bool) -> None:
        if one_job:
            version = before.recorded.version + 1 if before else 1
            whole = before is not None or after == 0
            if whole and row.recorded.version != version:
                self._refuse(
                    row.position, f"it is version {row.recorded.version}, after {version - 1}"
                )
        elif row.position != (position := (before.position if before else after) + 1):
            self._refuse(position, "the event is missing")
        if (fault := row.fault()) is not None:
            self._refuse(row.position, fault)

    def _refuse(self, position: int, why: str) -> None:
        self._bad += 1
        self.first_bad = self.first_bad or f"position {position}: {why}"

    def _write(self, row: Stored) -> None:
        line = row.line()
        self._file.write(line)
        self._hash.update(line)
        self.events += 1
        self.masked += isinstance(row.recorded, MaskedEvent)
        self._first = self._first or row.position
        self._last = row.position

    def summary(self) -> str:
        where = f"positions {self._first} to {self._last}" if self.events else "no positions"
        held = f"{self._bad} faults" if self._bad else "every commitment holds"
        held += f", {self.masked} masked" if self.masked else ""
        return f"{self.events} events, {where}, {held}, sha256 {self._hash.hexdigest()}"


async def _rows(log: LogFile, job_id: str | None, after: int, until: int) -> AsyncIterator[Stored]:
    sql, *more = (READ,) if job_id is None else (READ_JOB, job_id)
    while page := await log.connection.execute_fetchall(sql, (after, until, PAGE, *more)):
        for row in page:
            *stored, salt, commitment = row
            yield Stored(recorded_from_bytes(*stored), salt, commitment)
            after = row[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "eventjobs-audit", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("data", type=Path, help="the data directory")
    parser.add_argument("--job", type=UUID, metavar="ID", help="only this job's events")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="only later positions")
    parser.add_argument("--until", type=int, metavar="N", help="only positions up to N")
    parser.add_argument("--unmask", action="store_true", help="with the values of sensitive fields")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of stdout")
    options = parser.parse_args(arguments)
    try:
        require_log(options.data)
        with _open_output(options.output) as file:
            export = Export(file)
            job_id = options.job and str(options.job)
            places = job_id, options.after, options.until
            asyncio.run(export.run(options.data, *places, unmask=options.unmask))
            file.flush()
    except EventjobsError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: output: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if export.first_bad is not None:
        print(f"error: {export.first_bad}", file=sys.stderr)
    print(export.summary(), file=sys.stderr)
    return 0 if export.first_bad is None else 1


def _open_output(path: Path | None) -> AbstractContextManager[BinaryIO]:
    """A file for the owner alone, for payloads are in it; *path* appears once it is complete."""
    if path is None:
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    if path.exists() and not path.is_file():  # a pipe, or a terminal
        return path.open("wb")
    return replacement(path.resolve())


if __name__ == "__main__":
    sys.exit(main())

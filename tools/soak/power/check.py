"""Checks what a power cut has left: the log, the files it names, the key, the views."""

import asyncio
import hashlib
import io
import random
import re
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from eventjobs import Service
from eventjobs.auth.master_key import KEY_BYTES
from eventjobs.domain.codec import decode
from eventjobs.domain.events import ArtifactStored, JobSubmitted
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import EventjobsError
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.projections import Views
from eventjobs.projections.store import Store
from eventjobs.settings import Settings

from ... import audit, compare_views, replay
from .disk import Image
from .handlers import HANDLERS
from .scenarios import write

ROWS = """
SELECT position, job_id, version, type, at_us, actor, facts, body, salt, commitment
FROM events
ORDER BY position
"""
LOG_ID = "SELECT value FROM meta WHERE name = 'log_id'"
#: A start on an image takes less, also on a busy machine.
WAIT_S = 40.0
SHM_BYTES = 32768
STORED = re.compile(r"artifacts/[0-9a-f]{2}/([0-9a-f]{64})")


class Promises(NamedTuple):
    """The promises in the notes of a life up to a moment."""

    position: int
    events: frozenset[tuple[int, str]]
    jobs: frozenset[str]
    files: frozenset[str]
    key: str | None

    @classmethod
    def of(cls, notes: Sequence[str]) -> "Promises":
        words = [each.split() for each in notes]
        events = {(int(each[1]), each[2]) for each in words if each[0] == "event"}
        heads = {int(each[1]) for each in words if each[0] == "head"}
        keys = [each[1] for each in words if each[0] == "key"]
        return cls(
            max([*heads, *(position for position, _ in events)], default=0),
            frozenset(events),
            frozenset(each[1] for each in words if each[0] == "job"),
            frozenset(each[1] for each in words if each[0] == "file"),
            keys[-1] if keys else None,
        )


class Reference:
    """The log without a power cut; the log of an image must be a prefix of it."""

    def __init__(self, data: Image, folder: Path) -> None:
        write(data, folder, only="log.db")
        with closing(sqlite3.connect(folder / "log.db")) as log:
            self.rows: list[tuple[Any, ...]] = log.execute(ROWS).fetchall()
            self.log_id: str = log.execute(LOG_ID).fetchone()[0]
        self.recorded = [_decode_row(*row[:8]) for row in self.rows]
        #: The files that an event names, by its position minus one.
        self.files = [[*_files(each)] for each in self.recorded]
        self._folder = folder

    async def views(self, position: int) -> Path:
        """The views of the first *position* events."""
        path = self._folder / f"views {position}.db"
        if not path.exists():
            store = await Store.open(path, self.log_id, len(self.rows))
            if position:
                await store.apply(self.recorded[:position])
            await store.close()
        return path


def _decode_row(
    position: int,
    job_id: str,
    version: int,
    type: str,
    at_us: int,
    actor: str,
    facts: bytes,
    body: bytes | None,
) -> Recorded:
    event = decode(type, facts, body)
    return Recorded(position, job_id, version, at_us, actor, event, type, facts, body)


def _files(recorded: Recorded) -> list[str]:
    match recorded.event:
        case ArtifactStored(sha256=sha256):
            return [sha256]
        case JobSubmitted(spec=spec):
            return [each.sha256 for each in spec.artifacts]
        case _:
            return []


class Past:
    """The reference as a log that ends at *head*, for the views to follow."""

    def __init__(self, reference: Reference, head: int) -> None:
        self.log_id = reference.log_id
        self.head = head
        self._recorded = reference.recorded[:head]

    async def read(self, after: int, limit: int) -> list[Recorded]:
        return self._recorded[after : after + limit]

    async def wait(self, after: int, job_id: str | None = None) -> int:
        await asyncio.Event().wait()
        return self.head


class Checker:
    """Checks the remains of a data directory; equal logs and views only once."""

    def __init__(self, reference: Reference, folder: Path, draw: random.Random) -> None:
        self._reference = reference
        self._folder = folder
        self._draw = draw
        self._logs: dict[int, tuple[int, list[str]]] = {}
        self._views: dict[int, list[str]] = {}
        self._hashes: dict[int, str] = {}

    async def faults(self, data: Image, notes: Sequence[str], *, start: bool) -> list[str]:
        """The broken promises; *start* also starts a whole service on *data*."""
        promised = Promises.of(notes)
        key = _signature(data, "log.db")
        if key not in self._logs:
            self._logs[key] = await self._log(data)
        position, log_faults = self._logs[key]
        faults = [*log_faults]
        if position < promised.position:
            faults.append(f"log: ends at {position}, and {promised.position} was acknowledged")
        faults += self._missing_jobs(position, promised)
        faults += self._files(data, position, promised)
        faults += _key(data.get("secret.key"), promised)
        if not log_faults:
            key = hash((position, _signature(data, "views.db")))
            if key not in self._views:
                self._views[key] = await self._check_views(data, position)
            faults += self._views[key]
            if start and not faults:
                faults += await self._start(data, position)
        return faults

    def _missing_jobs(self, position: int, promised: Promises) -> list[str]:
        rows = self._reference.rows[:position]
        jobs = {row[1] for row in rows}
        faults = [f"log: job {each} was acknowledged" for each in promised.jobs - jobs]
        for at, job_id in promised.events:
            if at <= len(rows) and rows[at - 1][1] != job_id:
                faults.append(f"log: position {at} was given to {job_id}, and is {rows[at - 1][1]}")
        return faults

    def _files(self, data: Image, position: int, promised: Promises) -> list[str]:
        faults = []
        named = {each for files in self._reference.files[:position] for each in files}
        for sha256 in named | promised.files:
            content = data.get(f"artifacts/{sha256[:2]}/{sha256}")
            if content is None:
                faults.append(f"files: {sha256[:8]} is gone")
        for path, content in data.items():
            stored = STORED.fullmatch(path)
            if stored is not None and self._hash(content) != stored[1]:
                faults.append(f"files: {path} is not what was stored")
        return faults

    def _hash(self, content: bytes) -> str:
        key = hash(content)
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(content).hexdigest()
        return self._hashes[key]

    async def _log(self, data: Image) -> tuple[int, list[str]]:
        """The head of the log, and its faults."""
        write(data, self._folder, only="log.db")
        shared = self._folder / "log.db-shm"
        if shared.exists() and self._draw.random() < 0.3:  # it is written through memory
            shared.write_bytes(self._draw.randbytes(SHM_BYTES))
        try:
            log = await SQLiteLog.open(self._folder / "log.db")
            head, log_id = log.head, log.log_id
            await log.close()
            with closing(sqlite3.connect(self._folder / "log.db")) as connection:
                rows = connection.execute(ROWS).fetchall()
                [[sound]] = connection.execute("PRAGMA integrity_check").fetchall()[:1]
        except (sqlite3.Error, EventjobsError, OSError) as error:
            return 0, [f"log: cannot be opened: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(self._folder)
        faults = [] if sound == "ok" else [f"log: {sound}"]
        if [row[0] for row in rows] != [*range(1, head + 1)]:
            faults.append(f"log: {len(rows)} rows, and the head is {head}")
        if rows != self._reference.rows[:head]:
            faults.append("log: a row is not what was written")
        if rows and log_id != self._reference.log_id:
            faults.append("log: it is another one")
        return head, faults

    async def _check_views(self, data: Image, position: int) -> list[str]:
        """Compare the views that the service opens with those of the log."""
        write(data, self._folder, only="views.db")
        path = self._folder / "views.db"
        try:
            views = await Views.open(path, Past(self._reference, position))
            following = asyncio.create_task(views.run())
            reached = asyncio.create_task(views.wait_for_position(position))
            await asyncio.wait({following, reached}, timeout=WAIT_S, return_when="FIRST_COMPLETED")
            at = views.position
            for task in (following, reached):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await views.close()
            fault = (
                None if at < position else _difference(path, await self._reference.views(position))
            )
        except Exception as error:  # noqa: BLE001 -- after any error there are no views
            return [f"views: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(self._folder)
        return [] if fault is None else [f"views: {fault}"]

    async def _start(self, data: Image, position: int) -> list[str]:
        """A whole service starts on it and runs a job; then audit and replay find no fault."""
        write(data, self._folder)
        settings = Settings(result_bytes_max=1024, drain_s=0.0)
        try:
            async with asyncio.timeout(WAIT_S):
                async with Service(self._folder, HANDLERS, settings=settings) as service:
                    job = await service.submit("noop", "after the cut")
                    await service.wait(job.job_id)
                    await service.views.wait_for_position(service.log.head)
                export = audit.Export(io.BytesIO())
                await export.run(self._folder)
                _, difference = await asyncio.to_thread(replay.check, self._folder, lambda *_: None)
        except Exception as error:  # noqa: BLE001 -- after any error it has not started
            return [f"start: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(self._folder)
        faults = [] if export.first_bad is None else [f"start: {export.first_bad}"]
        if job.position <= position:
            faults.append(f"start: position {job.position} is given out again")
        if difference is not None:
            faults.append(f"start: views: {difference}")
        return faults


def _key(content: bytes | None, promised: Promises) -> list[str]:
    if content is not None and len(content) != KEY_BYTES:
        return [f"key: it has {len(content)} bytes"]
    digest = None if content is None else hashlib.sha256(content).hexdigest()
    return ["key: it is not the one that was used"] if promised.key not in {None, digest} else []


def _signature(image: Image, name: str) -> int:
    """A hash of the files of a database, without its shared memory."""
    there = {path for path in image if path.startswith(name) and not path.endswith("-shm")}
    return hash(tuple((path, image[path]) for path in sorted(there)))


def _difference(views: Path, rebuilt: Path) -> str | None:
    with closing(sqlite3.connect(views)) as live, closing(sqlite3.connect(rebuilt)) as other:
        [[sound]] = live.execute("PRAGMA integrity_check").fetchall()[:1]
        if sound != "ok":
            return " ".join(str(sound).split())
        difference = next(compare_views.differences(live, other), None)
        return None if difference is None else str(difference)

"""The SQLite log keeps its file to itself, and nothing in it ever changes."""

import asyncio
import hashlib
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import aiosqlite
import pytest

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event, JobSubmitted, LogWritten, Unreadable
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DatabaseTooNew, ForeignDatabase, Overloaded
from eventjobs.log import NewEvent, follow, sqlite
from eventjobs.log import rows as stored
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.log.sqlite_authorizer import SCHEMA
from eventjobs.storage.sqlite import fetch_value
from tests.support.clock import FakeClock
from tests.support.histories import job_id

SUBMITTED = JobSubmitted(JobSpec("test", {"secret": "Zoë"}))
A, B = job_id(1), job_id(2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SQLiteLog]:
    """With three events: two of job A, one of job B."""
    log = await SQLiteLog.open(path)
    for job, version in ((A, 0), (A, 1), (B, 0)):
        await add(log, job, version)
    yield log
    await log.close()


async def add(log: SQLiteLog, job_id: str, version: int, event: Event = SUBMITTED) -> Recorded:
    return await log.append(job_id, version, event, actor="tester")


@contextmanager
def beside(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another program, with nothing set."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path) -> list[tuple[object, ...]]:
    with beside(path) as connection:
        return connection.execute("SELECT * FROM events ORDER BY position").fetchall()


# --- opening


async def test_a_log_is_what_it_was_when_it_is_opened_again(log: SQLiteLog, path: Path) -> None:
    appended = await log.read(0)
    await log.close()
    again = await SQLiteLog.open(path)
    assert (again.head, again.log_id) == (3, log.log_id)
    assert await again.read(0) == appended
    assert (await add(again, A, 2)).position == 4
    await again.close()


async def test_what_is_not_ours_is_refused_and_not_touched(path: Path) -> None:
    for content in (os.urandom(8192), b"SQLite format 3\0" + bytes(8176), b"hello"):
        path.write_bytes(content)
        with pytest.raises(ForeignDatabase):
            await SQLiteLog.open(path)
        assert path.read_bytes() == content
        assert [each.name for each in path.parent.iterdir()] == ["log.db"]


async def test_another_programs_database_is_refused_and_not_touched(path: Path) -> None:
    with beside(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE events (position)")
    content = path.read_bytes()
    with pytest.raises(ForeignDatabase):
        await SQLiteLog.open(path)
    assert path.read_bytes() == content


async def test_a_log_of_a_newer_eventjobs_is_refused(log: SQLiteLog, path: Path) -> None:
    await log.close()
    with beside(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    content = path.read_bytes()
    with pytest.raises(DatabaseTooNew, match="schema 2"):
        await SQLiteLog.open(path)
    assert path.read_bytes() == content


async def test_a_log_whose_making_was_cut_off_is_made_again(path: Path) -> None:
    """The id used to be written after the tables: a kill between the two left a log unopenable."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("BEGIN;" + SCHEMA)
    connection.close()
    log = await SQLiteLog.open(path)
    assert len(log.log_id) == 32
    await log.close()
    with beside(path) as connection:
        schema = connection.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchall()
    assert schema == [(log.log_id,)]


async def test_its_files_are_readable_by_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        log = await SQLiteLog.open(path)
        await add(log, A, 0)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        await log.close()
    finally:
        os.umask(before)
    assert modes == {"log.db": 0o600, "log.db-wal": 0o600, "log.db-shm": 0o600}


async def test_closing_leaves_one_file_with_everything_in_it(log: SQLiteLog, path: Path) -> None:
    await log.close()
    assert [each.name for each in path.parent.iterdir()] == ["log.db"]
    assert len(rows(path)) == 3


async def pragmas(connection: aiosqlite.Connection) -> dict[str, object]:
    names = ("journal_mode", "synchronous", "recursive_triggers", "trusted_schema", "query_only")
    return {name: await fetch_value(connection, f"PRAGMA {name}") for name in names}


async def test_every_connection_is_set_up_to_lose_and_change_nothing(log: SQLiteLog) -> None:
    await log._writer.connection.set_authorizer(None)
    full = 2
    ours = {"journal_mode": "wal", "recursive_triggers": 1, "trusted_schema": 0}
    assert await pragmas(log._writer.connection) == ours | {"synchronous": full, "query_only": 0}
    assert await pragmas(log._reader) == ours | {"synchronous": full, "query_only": 1}


# --- what is stored


async def test_a_row_is_what_was_encoded_and_its_commitment(log: SQLiteLog, path: Path) -> None:
    await add(log, B, 1, LogWritten(1, "info"))  # with an empty body
    appended = await log.read(0)
    for row, expected in zip(rows(path), appended, strict=True):
        *start, facts, body, salt, commitment = row
        assert start == [
            expected.position,
            expected.job_id,
            expected.version,
            expected.type,
            expected.at_us,
            expected.actor,
        ]
        assert (expected.type, facts, body) == encode(expected.event)
        assert isinstance(salt, bytes)
        assert len(salt) == 16
        assert isinstance(body, bytes)
        assert commitment == hashlib.sha256(b"eventjobs/body/v1\0" + salt + body).digest()
    salts = {row[8] for row in rows(path)}
    assert len(salts) == 4, "a salt is drawn for each"


async def test_a_batch_of_any_sizes_is_stored_exactly(log: SQLiteLog, path: Path) -> None:
    expected = [LogWritten(1, "info" * (n % 3), "ü" * (n * 37 % 1000) or None) for n in range(300)]
    appended = await asyncio.gather(*(add(log, B, n + 1, each) for n, each in enumerate(expected)))
    await log.close()
    again = await SQLiteLog.open(path)
    assert await again.read(3, 1000) == appended
    await again.close()


async def test_a_stored_event_of_an_unknown_type_is_read_as_unreadable(
    log: SQLiteLog, path: Path
) -> None:
    """It does not keep the events after it from being read."""
    await log.close()
    with beside(path) as connection:
        connection.execute(
            "INSERT INTO events SELECT 4, ?, 1, 'JobTeleported', 0, 'x', facts, body, salt,"
            " commitment FROM events WHERE position = 1",
            (job_id(9),),
        )
    log = await SQLiteLog.open(path)
    later = await add(log, job_id(8), 0, JobSubmitted(JobSpec("a")))
    await log.close()
    log = await SQLiteLog.open(path)
    *_, strange, last = await log.read(0)
    assert isinstance(strange.event, Unreadable)
    assert "JobTeleported" in strange.event.why
    assert (strange.position, strange.job_id, strange.type) == (4, job_id(9), "JobTeleported")
    assert last == later
    await log.close()


# --- nothing changes: what is tried over our own connection

NEXT = f"""
INTO events SELECT 4, '{B}', 2, type, at_us, actor, facts, body, salt, commitment
FROM events WHERE position = 3
"""
ATTACKS = {
    "update": "UPDATE events SET actor = 'me'",
    "update position": "UPDATE events SET position = 9 WHERE position = 3",
    "update facts": "UPDATE events SET facts = x'7b7d' WHERE position = 1",
    "update body": "UPDATE events SET body = x'7b7d', salt = zeroblob(16) WHERE position = 1",
    "update commitment": "UPDATE events SET commitment = zeroblob(32) WHERE position = 1",
    "update or replace": "UPDATE OR REPLACE events SET position = 1 WHERE position = 3",
    "erase and change": "UPDATE events SET body = NULL, salt = NULL, actor = 'me'",
    "erase half": "UPDATE events SET body = NULL WHERE position = 1",
    "delete": "DELETE FROM events WHERE position = 3",
    "delete all": "DELETE FROM events",
    "replace position": f"""INSERT OR REPLACE INTO events
        SELECT 3, '{B}', 1, type, 0, 'me', facts, body, salt, commitment
        FROM events WHERE position = 3""",
    "replace version": f"""INSERT OR REPLACE INTO events
        SELECT 4, '{B}', 1, type, 0, 'me', facts, body, salt, commitment
        FROM events WHERE position = 3""",
    "replace into": """REPLACE INTO events
        SELECT position, job_id, version, type, 0, 'me', facts, body, salt, commitment
        FROM events WHERE position = 3""",
    "upsert": """INSERT INTO events
        SELECT position, job_id, version, type, 0, 'me', facts, body, salt, commitment
        FROM events WHERE position = 3
        ON CONFLICT (position) DO UPDATE SET actor = 'me'""",
    "upsert version": f"""INSERT INTO events
        SELECT 4, '{B}', 1, type, 0, 'me', facts, body, salt, commitment
        FROM events WHERE position = 3
        ON CONFLICT (job_id, version) DO UPDATE SET actor = 'me'""",
    "position gap": f"INSERT {NEXT.replace('4,', '5,')}",
    "position 0": f"INSERT {NEXT.replace('4,', '0,')}",
    "position -1": f"INSERT {NEXT.replace('4,', '-1,')}",
    "position unsaid": f"INSERT {NEXT.replace('4,', 'NULL,')}",
    "version gap": f"INSERT {NEXT.replace('2,', '3,')}",
    "version 0": f"INSERT {NEXT.replace('2,', '0,')}",
    "first version missing": f"INSERT {NEXT.replace(B, job_id(9))}",
    "already erased": f"INSERT {NEXT.replace('body, salt', 'NULL, NULL')}",
    "no salt": f"INSERT {NEXT.replace('salt,', 'NULL,')}",
    "short commitment": f"INSERT {NEXT.replace('commitment', 'zeroblob(31)')}",
    "wrong kind": f"INSERT {NEXT.replace('at_us', repr('soon'))}",
    "drop trigger": "DROP TRIGGER events_delete",
    "drop table": "DROP TABLE events",
    "rename": "ALTER TABLE events RENAME TO history",
    "add column": "ALTER TABLE events ADD COLUMN note",
    "index": "CREATE INDEX events_actor ON events (actor)",
    "trigger": "CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END",
    "temporary trigger": """CREATE TEMP TRIGGER mine BEFORE UPDATE ON main.events
        BEGIN SELECT RAISE(IGNORE); END""",
    "temporary table": "CREATE TEMP TABLE events (position)",
    "view": "CREATE VIEW mine AS SELECT 1",
    "attach": "ATTACH ':memory:' AS other",
    "recursive triggers": "PRAGMA recursive_triggers = OFF",
    "writable schema": "PRAGMA writable_schema = ON",
    "schema": "DELETE FROM sqlite_schema WHERE type = 'trigger'",
    "stranger's mark": "PRAGMA application_id = 0",
    "durability": "PRAGMA synchronous = OFF",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_nothing_is_changed_over_the_writers_connection(
    log: SQLiteLog, path: Path, attack: str
) -> None:
    before = rows(path)
    with pytest.raises(sqlite3.DatabaseError):
        await log._writer.connection.execute_fetchall(attack)
    assert rows(path) == before
    assert (await add(log, B, 1)).position == 4, "and the log goes on"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_nothing_is_changed_over_the_readers_connection(
    log: SQLiteLog, path: Path, attack: str
) -> None:
    """What turns a guard of the writer's off may pass here: there is nothing to guard."""
    before = rows(path)
    with suppress(sqlite3.DatabaseError):
        await log._reader.execute_fetchall(attack)
    with pytest.raises(sqlite3.DatabaseError):
        await log._reader.execute_fetchall(ATTACKS["replace position"])
    assert rows(path) == before


async def test_no_guard_can_be_turned_off_before_an_attack(log: SQLiteLog, path: Path) -> None:
    """What stops one attack must not be what another attack turns off first."""
    for first in ("PRAGMA recursive_triggers = OFF", "PRAGMA writable_schema = ON"):
        for attack in (ATTACKS["replace position"], ATTACKS["schema"], ATTACKS["drop trigger"]):
            before = rows(path)
            for each in (first, attack):
                with pytest.raises(sqlite3.DatabaseError):
                    await log._writer.connection.execute_fetchall(each)
            assert rows(path) == before


async def test_an_event_can_be_erased_and_keeps_its_facts_and_commitment(
    log: SQLiteLog, path: Path
) -> None:
    before = rows(path)
    await log._writer.connection.execute_fetchall(
        "UPDATE events SET body = NULL, salt = NULL WHERE position = 1"
    )
    *start, _, _, commitment = before[0]
    assert rows(path) == [(*start, None, None, commitment), *before[1:]]
    await log.close()
    again = await SQLiteLog.open(path)
    [erased] = await again.read(0, 1)
    assert erased.event == JobSubmitted(JobSpec("test"))
    assert b'"erased":true' in erased.json()
    with pytest.raises(sqlite3.DatabaseError):
        await again._writer.connection.execute_fetchall(
            "UPDATE events SET body = x'7b7d', salt = zeroblob(16) WHERE position = 1"
        )
    await again.close()


# --- bounds


async def test_too_many_waiting_appends_are_refused_and_harm_no_other(path: Path) -> None:
    log = await SQLiteLog.open(path, waiting_max=10)
    outcomes = await asyncio.gather(
        *(add(log, job_id(n), 0) for n in range(30)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert [type(each) for each in refused] == [Overloaded] * 20
    assert log.head == 10
    await add(log, job_id(99), 0)
    await log.close()


async def test_too_many_waiting_bytes_are_refused(path: Path) -> None:
    log = await SQLiteLog.open(path, waiting_bytes_max=150_000)
    large = LogWritten(1, "info", "x" * 20_000)
    outcomes = await asyncio.gather(
        *(add(log, job_id(n), 0, large) for n in range(5)), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [Recorded] * 3 + [Overloaded] * 2
    await asyncio.gather(*(add(log, job_id(n), 0, large) for n in (3, 4)))
    await log.close()


async def test_a_batch_is_bounded_and_order_is_kept_across_batches(path: Path) -> None:
    log = await SQLiteLog.open(path, batch_max=7, batch_bytes_max=100_000)
    large = LogWritten(1, "info", "x" * 30_000)
    appended = await asyncio.gather(*(add(log, A, n, large) for n in range(40)))
    assert [each.position for each in appended] == list(range(1, 41))
    await log.close()


async def test_a_full_disk_that_has_space_again_is_noticed_without_an_append(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventjobs.storage.sqlite.FREE_BYTES_MIN", 2**62)
    log = await SQLiteLog.open(path, clock)
    assert await log.unwritable() == "the disk is full"
    for _ in range(5):
        await clock.advance(1.0)
    assert await log.unwritable() is None
    await log.close()


async def test_events_appended_together_share_one_commit(path: Path) -> None:
    """However many fit beside others; the bound of waiting events counts each of them."""
    log = await SQLiteLog.open(path, batch_max=7, waiting_max=60)
    commits: list[list[Recorded]] = []

    async def watch() -> None:
        async for batch in follow(log, 0):
            commits.append(batch)
            if batch[-1].position == 60:
                return

    watching = asyncio.create_task(watch())
    groups = [[NewEvent(job_id(n), k, SUBMITTED, "me") for k in range(5)] for n in range(12)]
    appends = [asyncio.create_task(log.append_many(each)) for each in groups]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await log.append_many(groups[0])
    outcomes = await asyncio.gather(*appends)
    await watching
    assert outcomes == commits
    await log.close()


# --- from disk


async def test_pages_from_disk_equal_what_was_in_memory(path: Path) -> None:
    log = await SQLiteLog.open(path)
    async with asyncio.TaskGroup() as group:
        for job in range(20):
            for version in range(10):
                group.create_task(add(log, job_id(job), version))
    live = await log.read(0, 1000)
    by_job = [await log.read_job(job_id(job)) for job in range(20)]
    await log.close()
    again = await SQLiteLog.open(path)
    for after in (0, 1, 99, 199, 200):
        assert await again.read(after, 50) == live[after : after + 50]
    assert [await again.read_job(job_id(job)) for job in range(20)] == by_job
    await again.close()


async def test_a_page_of_events_too_large_for_sqlite_is_read_in_parts(path: Path) -> None:
    """A thousand submissions of a megabyte stopped the views for ever."""
    log = await SQLiteLog.open(path)
    large = LogWritten(1, "info", "x" * 10_000)
    appended = await asyncio.gather(*(add(log, A, n, large) for n in range(9)))
    await log.close()
    again = await SQLiteLog.open(path)
    reader = again._reader
    await reader._execute(reader._conn.setlimit, sqlite3.SQLITE_LIMIT_LENGTH, 30_000)  # type: ignore[no-untyped-call]
    read: list[Recorded] = []
    while page := await again.read(len(read), 9):
        read += page
    assert read == appended
    await again.close()


@pytest.mark.parametrize(
    ("sql", "parameters", "index"),
    [
        (stored.READ, (0, 1), "USING INTEGER PRIMARY KEY (rowid>?)"),
        (stored.READ_JOB, (A, 0, 1), "USING INDEX sqlite_autoindex_events_1 (job_id=?)"),
        (stored.VERSIONS, ("[]",), "sqlite_autoindex_events_1 (job_id=?)"),
        (stored.FIND_BY_SALT, ("[]",), "sqlite_autoindex_events_1 (job_id=? AND version=?)"),
        (sqlite.HEAD, (), "SEARCH events"),
    ],
    ids=["read", "read_job", "versions", "find", "head"],
)
async def test_no_read_looks_at_every_event(
    log: SQLiteLog, path: Path, sql: str, parameters: tuple[object, ...], index: str
) -> None:
    with beside(path) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN " + sql, parameters).fetchall()
    steps = [row[3] for row in plan]
    assert any(index in each for each in steps), steps
    assert not [each for each in steps if each.startswith("SCAN events")], steps
    assert not [each for each in steps if "TEMP B-TREE" in each], steps

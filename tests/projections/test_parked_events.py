"""An event that cannot be read stops its own job, and nothing else."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event, JobSubmitted, Paused, Unreadable
from eventjobs.domain.job import evolve, fold
from eventjobs.domain.recorded import Recorded
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobUnreadable
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.log.rows import recorded_from_bytes
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.projections.store import Store
from eventjobs.tools import audit, replay
from tests.conftest import Connect, Serve
from tests.support.histories import START_US, histories, job_id
from tests.support.views import quick_folder, refuse_payload_13

LOG_ID = "0" * 32
JSON_TOO_DEEP = b'{"payload":' + b"[" * 2000 + b"]" * 2000 + b"}"

#: What is written into the log instead of (type, at_us, actor, facts, body) of a submission.
BEGINNINGS: dict[str, dict[str, Any]] = {
    "of a newer version": {"type": "JobTeleported"},
    "of a newer shape": {"type": "JobSubmitted/99"},
    "facts that are no JSON": {"facts": b"{nope"},
    "facts that are no UTF-8": {"facts": b'{"type":"\xff"}'},
    "facts with NUL": {"facts": b'{"type":"\0"}'},
    "facts that are a list": {"facts": b"[]"},
    "facts of two lines": {"facts": b'{"type":\n"echo"}'},
    "facts with a tail": {"facts": b'{"type":"echo"} '},
    "a body that is a number": {"body": b"3"},
    "a body that is too deep": {"body": JSON_TOO_DEEP},
    "no type": {"facts": b"{}"},
    "a type that is a number": {"facts": b'{"type":3}'},
    "a field nobody knows": {"facts": b'{"type":"echo","colour":"red"}'},
    "a field in both halves": {"body": b'{"type":"echo"}'},
    "priority in words": {"facts": b'{"type":"echo","priority":"high"}'},
    "priority that was NaN": {"facts": b'{"type":"echo","priority":null}'},
    "priority out of range": {"facts": b'{"type":"echo","priority":4611686018427387904}'},
    "run_at with a fraction": {"facts": b'{"type":"echo","run_at_us":1.5}'},
    "run_at in the year 33658": {"facts": b'{"type":"echo","run_at_us":1000000000000000000}'},
    "ttl without end": {"facts": b'{"type":"echo","ttl_s":1e300}'},
    "timeout in words": {"facts": b'{"type":"echo","timeout_s":"soon"}'},
    "attempts that are a list": {"facts": b'{"type":"echo","max_attempts":[1]}'},
    "tags that are numbers": {"body": b'{"tags":[1]}'},
    "tags that are text": {"body": b'{"tags":"abc"}'},
    "artifacts that are none": {"facts": b'{"type":"echo","artifacts":[{"name":1}]}'},
    "artifacts of text": {"facts": b'{"type":"echo","artifacts":["a"]}'},
    "after that is a number": {"facts": b'{"type":"echo","after":5}'},
    "parent that is an object": {"facts": b'{"type":"echo","parent":{}}'},
    "a time before 1970": {"at_us": -(2**60)},
    "a time after 9999": {"at_us": 2**62},
    "an actor that is no UTF-8": {"actor": b"\xff"},
    "another beginning": {"type": "CancelRequested", "facts": b"{}", "body": b"{}"},
}
#: The same for the second event of a job.
MIDDLES: dict[str, dict[str, Any]] = {
    "then of a newer version": {"type": "JobTeleported", "facts": b"{}"},
    "an attempt in words": {"type": "AttemptStarted", "facts": b'{"attempt":"x","worker":"w"}'},
    "no worker": {"type": "AttemptStarted", "facts": b'{"attempt":1}'},
    "submitted again": {"type": "JobSubmitted", "facts": b'{"type":"echo"}'},
    "not about a job": {"type": "Paused", "facts": b'{"kind":"type","name":"echo"}'},
    "steps without number": {"type": "StepCompleted", "facts": b'{"attempt":1,"name":"a"}'},
}
NAMES = [*BEGINNINGS, *MIDDLES]


def rows(name: str, number: int, position: int) -> list[tuple[Any, ...]]:
    """As READ's columns: what a log has of a job that *name* says what is wrong with."""
    submission: dict[str, Any] = {
        "type": "JobSubmitted",
        "at_us": START_US,
        "actor": b"tester",
        "facts": b'{"type":"echo","max_attempts":1}',
        "body": b'{"payload":1}',
    }
    if number < len(BEGINNINGS):
        versions = [submission | BEGINNINGS[name], submission | MIDDLES["an attempt in words"]]
    else:
        versions = [submission, submission | {"body": b"{}"} | MIDDLES[name]]
    # What comes after it is of no use any more, however readable it is.
    ended = {"type": "JobCancelled", "facts": b"{}", "body": b"{}"}
    stored = [*versions, submission | ended]
    named = job_id(1000 + number).encode()
    columns = ("at_us", "actor", "facts", "body")
    return [
        (position + at, named, at + 1, each["type"].encode(), *(each[name] for name in columns))
        for at, each in enumerate(stored)
    ]


def poison(path: Path, names: Sequence[str] = NAMES) -> list[int]:
    """Write them into the closed log at *path*; the positions of the wrong events."""
    wrong = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in names:
            [[head]] = connection.execute("SELECT coalesce(max(position), 0) FROM events")
            number = NAMES.index(name)
            wrong.append(head + 1 if number < len(BEGINNINGS) else head + 2)
            for row in rows(name, number, head + 1):
                connection.execute(
                    "INSERT INTO events VALUES (?, CAST(? AS TEXT), ?, CAST(? AS TEXT), ?,"
                    " CAST(? AS TEXT), ?, ?, randomblob(16), zeroblob(32))",
                    row,
                )
    return wrong


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


async def write_poison(data: Path, serve: Serve) -> list[int]:
    """A directory with a job that has ended, then one of each kind of poison."""
    service = await serve(echo, data=data)
    await service.wait((await service.submit("echo", 1)).job_id)
    await service.close()
    return await asyncio.to_thread(poison, data / "log.db")


# --- one event


@pytest.mark.parametrize("name", NAMES)
async def test_it_is_read_and_told_and_its_job_is_not(tmp_path: Path, name: str) -> None:
    log = await SQLiteLog.open(tmp_path / "log.db")
    await log.close()
    [wrong] = await asyncio.to_thread(poison, tmp_path / "log.db", [name])
    log = await SQLiteLog.open(tmp_path / "log.db")
    events = await log.read(0)
    assert [each.position for each in events] == [1, 2, 3]
    for each in events:
        shown = orjson.loads(each.json())
        assert (shown["position"], shown["job_id"]) == (each.position, each.job_id)
        assert b"\n" not in each.json()
        if isinstance(each.event, Unreadable):
            assert shown["data"]["unreadable"] == each.event.why
    assert [each.json() for each in await log.read_job(events[0].job_id)] == [
        each.json() for each in events
    ]
    if isinstance(events[0].event, Unreadable):
        with pytest.raises(JobUnreadable, match=f"event {wrong} "):
            fold(events)
    elif (job := fold(events)) is None:
        assert name == "another beginning"
    else:
        assert job.parked is not None
        assert job.parked["position"] == wrong
    await log.close()


@pytest.mark.parametrize("priority", ["high", float("nan"), 1.5, 2**62, None])
async def test_what_could_not_be_read_again_is_not_appended(tmp_path: Path, priority: Any) -> None:
    log = await SQLiteLog.open(tmp_path / "log.db")
    with pytest.raises((TypeError, ValueError), match="priority"):
        await log.append(
            job_id(1), 0, JobSubmitted(JobSpec("echo", priority=priority)), actor="tester"
        )
    assert log.head == 0
    await log.close()


# --- a whole service


@pytest.mark.parametrize("views", ["old views", "no views"])
async def test_others_go_on(client: Connect, serve: Serve, tmp_path: Path, views: str) -> None:
    """Starting, running, lists, pages, streams, long-polls: as if it were not there."""
    data = tmp_path / "data"
    wrong = await write_poison(data, serve)
    if views == "no views":
        await asyncio.to_thread((data / "views.db").unlink)
    api = await client(echo, data=data)
    service = api.service
    job = await service.submit("echo", 2)
    assert (await service.wait(job.job_id)).result == 2
    await service.views.wait_for_position(service.log.head)
    shown = (await api.get("/readyz")).json
    assert shown["ready"] is True
    assert shown["lag"] == 0
    positions = [each["position"] for each in shown["parked"]["first"]]
    assert positions == sorted(positions)
    assert set(positions) <= {*wrong, *(each + 1 for each in wrong)}
    assert shown["parked"]["count"] >= len(wrong) - 1
    listed = (await api.get("/v1/jobs?limit=1000")).json["jobs"]
    assert [each["status"] for each in listed] == ["completed", "completed"]
    assert (await api.get("/v1/counts")).json["counts"] == {"echo": {"completed": 2}}
    page = (await api.get("/v1/events?limit=1000")).json
    assert [each["position"] for each in page["events"]] == list(range(1, service.log.head + 1))
    page = (await api.get("/v1/events?type=echo&limit=1000")).json
    assert job.job_id in {each["job_id"] for each in page["events"]}


async def test_its_own_job_says_so(client: Connect, serve: Serve, tmp_path: Path) -> None:
    await write_poison(tmp_path / "data", serve)
    api = await client(echo, data=tmp_path / "data")
    for number, name in enumerate(NAMES):
        if name == "another beginning":
            continue  # that is no job
        about = f"/v1/jobs/{job_id(1000 + number)}"
        if number < len(BEGINNINGS):
            with pytest.raises(JobUnreadable):
                await api.service.jobs.load(job_id(1000 + number))
        else:
            assert (await api.get(f"{about}/events")).status == 200
            assert (await api.get(f"{about}/history")).status == 200
        for reply in (
            await api.get(about),
            await api.get(f"{about}/why"),
            await api("POST", f"{about}/cancel"),
            await api("POST", f"{about}/retry"),
            await api("DELETE", about),
            await api("PUT", about, {"type": "echo"}),
        ):
            assert (reply.status, reply.code) == (500, "job_unreadable"), (name, reply.body)


async def test_the_tools_read_past_it(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "data"
    wrong = await write_poison(data, serve)
    service = await serve(echo, data=data)
    await service.views.wait_for_position(head := service.log.head)
    await service.close()
    assert await asyncio.to_thread(replay.check, data, lambda *_: None) == (head, None)
    assert await asyncio.to_thread(replay.replay, data, lambda *_: None) == head
    assert await asyncio.to_thread(replay.check, data, lambda *_: None) == (head, None)
    out = tmp_path / "out"
    code = await asyncio.to_thread(audit.main, [str(data), "-o", str(out)])
    lines = [orjson.loads(line) for line in (await asyncio.to_thread(out.read_bytes)).splitlines()]
    assert code == 1
    assert [line["position"] for line in lines] == list(range(1, head + 1))
    assert lines[wrong[0] - 1]["data"] is None


async def test_a_dependent_of_it_waits_and_a_child_goes_on(serve: Serve, tmp_path: Path) -> None:
    """What became of it is not known: its end must not be made up."""
    data = tmp_path / "data"
    service = await serve(data=data)
    await service.close()
    name = "an attempt in words"
    parked = job_id(1000 + NAMES.index(name))
    await asyncio.to_thread(poison, data / "log.db", [name])
    service = await serve(echo, data=data)
    log = service.log
    after = JobSubmitted(JobSpec("echo", 1, after=(parked,)))
    child = JobSubmitted(JobSpec("echo", 2, parent=parked))
    await log.append(job_id(1), 0, after, actor="tester")
    await log.append(job_id(2), 0, child, actor="tester")
    assert (await service.wait(job_id(2))).status == "completed"
    assert await service.views.unmet_dependencies(job_id(1)) == [(parked, None)]
    assert await service.views.jobs_to_cancel(9) == []


# --- the views are a function of the log, with it as without it


def with_poison(history: list[Recorded], places: list[tuple[int, str]]) -> list[Recorded]:
    """*history*, and in it events that cannot be read or do not follow."""
    write_poison: list[Recorded] = []
    versions: dict[str, int] = {}
    at = dict(places)
    for number, each in enumerate(history):
        written = [each]
        if (kind := at.get(number)) is not None:
            strange = Unreadable("for a test") if kind == "unreadable" else Paused("type", "csv")
            if kind == "instead":
                written = [
                    Recorded(0, each.job_id, 0, each.at_us, "x", strange, kind, b"{}", b"{}")
                ]
            else:
                written.append(
                    Recorded(0, each.job_id, 0, each.at_us, "x", strange, kind, b"{}", b"{}")
                )
        for event in written:
            versions[event.job_id] = version = versions.get(event.job_id, 0) + 1
            write_poison.append(
                Recorded(
                    len(write_poison) + 1,
                    event.job_id,
                    version,
                    event.at_us,
                    event.actor,
                    event.event,
                    event.type,
                    event.facts,
                    event.body,
                )
            )
    return write_poison


poison_places = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["unreadable", "instead", "service"])),
    min_size=1,
    max_size=4,
)


async def build(path: Path, batches: list[list[Recorded]]) -> dict[str, list[Any]]:
    store = await Store.open(path, LOG_ID, 10**9)
    for batch in batches:
        if batch:
            await store.apply(batch, parking=True)
    await store.close()
    return await asyncio.to_thread(dump, path)


def dump(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for [name] in names
        }


@settings(max_examples=40)
@given(histories(), poison_places, st.lists(st.integers(1, 9), max_size=9))
async def test_the_views_are_the_same_however_the_log_was_cut(
    history: list[Recorded], places: list[tuple[int, str]], sizes: list[int]
) -> None:
    log = with_poison(history, places)
    cut = []
    rest = log
    for size in sizes:
        cut.append(rest[:size])
        rest = rest[size:]
    with quick_folder() as folder:
        assert await build(folder / "cut", [*cut, rest]) == await build(folder / "whole", [log])


async def test_what_a_projection_refuses_is_parked_and_the_others_of_its_batch_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours in a projection: as bad as an event of a newer version, and no worse."""
    refuse_payload_13(monkeypatch)
    log = [
        Recorded(n, job_id(n), 1, START_US, "x", event, *encode(event))
        for n in range(1, 31)
        for event in [JobSubmitted(JobSpec("echo", n))]
    ]
    whole = await build(tmp_path / "whole", [log])
    assert [(row[0], row[3]) for row in whole["parked"]] == [(13, "RuntimeError: thirteen")]
    assert len(whole["queue"]) == 29
    assert await build(tmp_path / "cut", [log[:10], log[10:14], log[14:]]) == whole


@pytest.mark.parametrize("error", [OSError("no file is left"), MemoryError()], ids=["os", "memory"])
async def test_an_event_is_not_parked_for_an_error_that_may_pass(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    event = JobSubmitted(JobSpec("echo", 13))
    batch = [Recorded(1, job_id(1), 1, START_US, "x", event, *encode(event))]
    with quick_folder() as folder:
        store = await Store.open(folder / "views.db", LOG_ID, 10**9)
        with monkeypatch.context() as failing:
            refuse_payload_13(failing, error)
            with pytest.raises(type(error)):
                await store.apply(batch, parking=True)
        applied = await store.apply(batch, parking=True)
        assert ([each.after.job_id for each in applied.changes], applied.parked) == (
            [job_id(1)],
            [],
        )
        await store.close()


@pytest.mark.parametrize("refused", [0, 1, 2, 3])
async def test_what_is_applied_and_parked_of_a_batch_is_returned_in_order(
    monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    refuse_payload_13(monkeypatch)
    with quick_folder() as folder:
        store = await Store.open(folder / "views.db", LOG_ID, 10**9)
        for size in range(1, 5):
            await check_batch(store, size, refused)
        await store.close()


async def check_batch(store: Store, size: int, refused: int) -> None:
    first = store.position + 1
    batch = [
        Recorded(n, job_id(n), 1, START_US, "x", event, *encode(event))
        for n in range(first, first + size)
        for event in [JobSubmitted(JobSpec("echo", 13 if n - first == refused else 0))]
    ]
    applied = await store.apply(batch, parking=True)
    good = [each for each in batch if each.position != first + refused]
    assert [each.after.position for each in applied.changes] == [e.position for e in good]
    assert [each.position for each in applied.parked] == [
        each.position for each in batch if each not in good
    ]
    assert store.position == batch[-1].position


async def test_a_pause_that_cannot_follow_pauses_nothing(tmp_path: Path) -> None:
    events: list[Event] = [JobSubmitted(JobSpec("echo")), Paused("type", "echo")]
    log = [
        Recorded(n, job_id(1), n, START_US, "x", event, *encode(event))
        for n, event in enumerate(events, start=1)
    ]
    rows = await build(tmp_path / "views.db", [log])
    assert [row[0] for row in rows["parked"]] == [2]
    assert rows["pauses"] == []


def test_an_event_that_does_not_follow_parks_the_job() -> None:
    submitted, paused = JobSubmitted(JobSpec("echo")), Paused("type", "echo")
    first = Recorded(1, job_id(1), 1, START_US, "x", submitted, *encode(submitted))
    second = Recorded(2, job_id(1), 2, START_US, "x", paused, *encode(paused))
    job = evolve(evolve(None, first), second)
    assert job.parked is not None
    assert job.parked["position"] == 2
    assert job.finished_us is None, "nobody knows what became of it"


def test_a_row_of_the_log_is_read_whatever_its_bytes_are() -> None:
    write_poison = recorded_from_bytes(1, b'\xff"', 1, b"\xfe", 2**62, b"\xfd", b"\xfc", b"\xfb")
    assert isinstance(write_poison.event, Unreadable)
    assert orjson.loads(write_poison.json())["data"]["facts"] == "\\xfc"


def test_the_first_moment_of_1970_is_a_time_in_a_row_of_bytes() -> None:
    submitted = JobSubmitted(JobSpec("echo"))
    type, facts, body = encode(submitted)
    row = recorded_from_bytes(1, job_id(1).encode(), 1, type.encode(), 0, b"x", facts, body)
    assert row == Recorded(1, job_id(1), 1, 0, "x", submitted, type, facts, body)

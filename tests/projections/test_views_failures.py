"""Views that cannot be read or written hide nothing that was acknowledged, and end nothing."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.http import requests
from eventjobs.projections import store as views_store
from eventjobs.projections.fold import Written
from eventjobs.projections.store import Store
from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.log_lines import capture_logs
from tests.support.views import refuse_payload_13


@handler("echo")
async def echo(context: Context, payload: Any) -> Any:
    return payload


class Broken:
    """A switch for the disk of the views."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.tried = asyncio.Event()

    def fail(self, code: int) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = code
        self.error = error


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    broken = Broken()
    write = Store.write

    async def failing(store: Store) -> Written:
        broken.tried.set()
        if broken.error is not None:
            raise broken.error
        return await write(store)

    monkeypatch.setattr(Store, "write", failing)
    monkeypatch.setattr(requests, "VIEWS_S", 0.05)
    return broken


@pytest.fixture
async def api(client: Connect, broken: Broken) -> AsyncIterator[Client]:
    """With a job that has ended, and views that cannot be written from then on."""
    api = await client(echo)
    job = await api.service.submit("echo", 1)
    await api.service.wait(job.job_id)
    await api.service.views.wait_for_position(api.service.log.head)
    broken.fail(sqlite3.SQLITE_FULL)
    yield api
    broken.error = None


@pytest.mark.parametrize("is_cached", [False, True], ids=["at first", "later"])
async def test_a_job_is_told_from_the_log(api: Client, broken: Broken, is_cached: bool) -> None:
    later = {"run_at": "2100-01-01T00:00:00Z"}
    job = await api.submit("echo", 2, **later)
    about = f"/v1/jobs/{job['job_id']}"
    if is_cached:
        await api.service.views.failure_event.wait()
    reply = await api.get(about)
    assert (reply.status, reply.json["status"], reply.json["payload"]) == (200, "queued", 2)
    assert (await api.get(about, If_None_Match=reply.headers["ETag"])).status == 304
    assert (await api.get(f"{about}/events")).status == 200
    assert (await api.get(f"{about}/history")).status == 200
    again = await api("PUT", about, {"type": "echo", "payload": 2, **later})
    assert (again.status, again.json["job_id"]) == (200, job["job_id"])
    cancelled = await api("POST", f"{about}/cancel")
    assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert (await api.get(about)).json["status"] == "cancelled"
    assert (await api("DELETE", about)).status == 204
    gone = await api.get(about)
    assert (gone.status, gone.code) == (410, "job_gone")
    missing = await api.get(f"/v1/jobs/{'0' * 8}-0000-4000-8000-{'0' * 12}")
    assert (missing.status, missing.code) == (404, "job_not_found")


async def test_a_job_in_memory_is_told_from_the_log_once_it_has_changed(
    client: Connect, broken: Broken
) -> None:
    """Memory is as late as the views are."""
    api = await client(echo, concurrency=0)
    about = (await api.submit("echo", 2))["links"]["self"]
    for _ in range(2):  # from the database, then from memory
        assert (await api.get(about)).json["status"] == "queued"
    broken.fail(sqlite3.SQLITE_FULL)
    cancelled = await api("POST", f"{about}/cancel")
    assert (cancelled.json["status"], cancelled.headers["ETag"]) == ("cancelled", '"2"')
    now = await api.get(about, If_None_Match='"1"')
    assert (now.status, now.body) == (200, cancelled.body)
    broken.error = None


async def test_what_only_the_views_know_is_a_503(api: Client, broken: Broken) -> None:
    job = await api.submit("echo", 2)
    await api.service.views.failure_event.wait()
    paths = ["/v1/jobs", "/v1/counts", "/v1/types", "/v1/queues", "/v1/breakers", "/v1/webhooks"]
    paths.append("/v1/keys")
    for path in [*paths, f"/v1/jobs/{job['job_id']}/why"]:
        reply = await api.get(path)
        assert (reply.status, reply.code) == (503, "views_behind"), path
        assert reply.headers["Retry-After"] == "1"
    claim = {"types": ["echo"], "worker": "w", "wait_s": 5}
    for path, body in (("/v1/work/claim", claim), ("/v1/keys", {"name": "ann"})):
        reply = await api("POST", path, body)
        assert (reply.status, reply.code) == (503, "views_behind")


async def test_readyz_tells_why_and_all_is_well_again(api: Client, broken: Broken) -> None:
    job = await api.submit("echo", 2)
    await api.service.views.failure_event.wait()
    readiness = (await api.get("/readyz")).json
    assert readiness["views_failing"] == "OperationalError: database or disk is full"
    assert (readiness["ready"], readiness["writable"], readiness["lag"] > 0) == (True, True, True)
    assert readiness["parked"] is None
    broken.error = None
    assert (await api.service.wait(job["job_id"])).result == 2
    await api.service.views.wait_for_position(api.service.log.head)
    readiness = (await api.get("/readyz")).json
    assert (readiness["views_failing"], readiness["lag"]) == (None, 0)
    assert len((await api.get("/v1/jobs")).json["jobs"]) == 2


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR])
async def test_whatever_the_disk_does_the_service_goes_on(
    api: Client, broken: Broken, code: int
) -> None:
    """Also while they cannot be made anew."""
    broken.fail(code)
    job = await api.submit("echo", 2)
    for _ in range(3):
        broken.tried.clear()
        await broken.tried.wait()
    assert api.service.ready
    broken.error = None
    assert (await api.service.wait(job["job_id"])).result == 2


async def test_a_fold_that_raises_is_no_end(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views of before are made anew; what raises again is parked, and the next job runs."""

    def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
        def strict(job: Job | None, recorded: Recorded) -> Job:
            after = evolve(job, recorded)
            if after.spec.payload == 13:
                raise RuntimeError("thirteen")
            return after

        monkeypatch.setattr("eventjobs.projections.fold.evolve", strict)

    await raise_at_payload_13(client, monkeypatch, refuse, "queued")


async def test_a_projection_that_raises_is_no_end(
    client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same: but the job itself runs, which does not wait for what the projection writes."""
    await raise_at_payload_13(client, monkeypatch, refuse_payload_13, "completed")


async def raise_at_payload_13(
    client: Connect,
    monkeypatch: pytest.MonkeyPatch,
    refuse: Callable[[pytest.MonkeyPatch], None],
    status: str,
) -> None:
    api = await client(echo)
    await api.service.wait((await api.service.submit("echo", 1)).job_id)
    await api.service.views.wait_for_position(api.service.log.head)
    refuse(monkeypatch)
    api.service.views._current.store.is_new = False  # as after a restart
    bad = await api.submit("echo", 13)
    good = await api.submit("echo", 14)
    assert (await api.service.wait(good["job_id"])).result == 14
    await api.service.views.wait_for_position(api.service.log.head)
    readiness = (await api.get("/readyz")).json["parked"]
    assert (readiness["count"], readiness["first"][0]["job_id"]) == (1, bad["job_id"])
    assert (await api.get(f"/v1/jobs/{bad['job_id']}")).json["status"] == status, "by the log"
    with capture_logs() as lines:
        await api.service.views.rebuild()
    assert [each["count"] for each in lines if each["event"] == "events are parked"] == [1]


async def test_reading_spoilt_views_makes_them_anew(client: Connect) -> None:
    """Without an event that would have to be written."""
    api = await client(echo)
    for number in range(50):
        await api.service.wait((await api.service.submit("echo", "x" * number * 50)).job_id)
    views = api.service.views
    await views.wait_for_position(api.service.log.head)
    store = views._current.store
    for connection in (store._writer, store._reader, store._list_reader):
        await connection.execute_fetchall("PRAGMA cache_size = 0")
    await store._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    with (api.service.settings.data / "views.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"rubbish!" * 8192)
    page = await views.jobs({}, order="newest", cursor=None, limit=99)
    assert len(page) == 50
    assert views.failing is None


async def test_views_that_cannot_be_opened_are_opened_later(
    client: Connect, tmp_path: Path
) -> None:
    (tmp_path / "data" / "views.db").mkdir(parents=True)
    api = await client(echo)
    job = await api.submit("echo", 2)
    assert (await api.get(f"/v1/jobs/{job['job_id']}")).json["status"] == "queued"
    readiness = (await api.get("/readyz")).json
    assert "views.db" in readiness["views_failing"]
    assert readiness["recovered"] is False
    (tmp_path / "data" / "views.db").rmdir()
    assert (await api.service.wait(job["job_id"])).result == 2


@pytest.mark.parametrize(
    ("pinned", "jobs", "size"), [(True, 24, 60_000), (False, 24, 60_000), (False, 8, 300_000)]
)
async def test_the_wal_of_the_views_does_not_grow_for_ever(
    client: Connect, monkeypatch: pytest.MonkeyPatch, pinned: bool, jobs: int, size: int
) -> None:
    """Also while another program has a transaction open on it: but only then is it rebuilt."""
    monkeypatch.setattr(views_store, "WAL_BYTES_MAX", 200_000)
    monkeypatch.setattr("eventjobs.projections.views.WAL_CHECK_WRITES", 4)
    api = await client(echo, concurrency=0)
    path = api.service.settings.data / "views.db"
    file = path.stat().st_ino
    views = api.service.views
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if pinned:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM jobs").fetchall()
        largest = of_first_file = 0
        for _ in range(jobs):
            await api.service.submit("echo", "x" * size)
            await views.wait_for_position(api.service.log.head)
            largest = max(largest, await asyncio.to_thread(views._current.store.wal_bytes))
            if path.stat().st_ino == file:
                of_first_file = largest
        assert 200_000 < largest < 2_000_000
        assert of_first_file > 4 * 200_000 or not pinned
        assert (path.stat().st_ino != file) is pinned
        assert await views.counts() == {"echo": {"queued": jobs}}

"""JobStore: the class that synchronous job services have, over events."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from eventjobs.domain.events import JobImported
from eventjobs.job_store import JobStore, create_job
from eventjobs.service import Service
from tests.support.log_lines import capture_logs

ID = "12345678-1234-1234-1234-123456789abc"
JOB: dict[str, Any] = {
    "job_id": ID,
    "status": "running",
    "created_at": "2025-01-01T00:00:00",
    "updated_at": "2025-01-01T00:01:00",
    "progress": 75.5,
    "metadata": {"ta": "oncology", "list": [1, None, "ü"]},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(str(tmp_path))
    yield store
    store.close()


def test_a_job_is_stored_read_updated_and_deleted(store: JobStore) -> None:
    assert store.get_job(ID) is None
    assert store.store_job(JOB) is True
    assert store.get_job(ID) == JOB
    assert store.update_job(ID, {"status": "completed", "result": {"n": 1}}) is True
    after = store.get_job(ID)
    assert after is not None
    assert after | {"updated_at": None} == JOB | {
        "status": "completed",
        "result": {"n": 1},
        "updated_at": None,
    }
    assert after["updated_at"] > JOB["updated_at"]
    assert store.delete_job(ID) is True
    assert store.get_job(ID) is None
    assert store.delete_job(ID) is False
    assert store.update_job(ID, {}) is False
    assert store.store_job(after) is True  # the same again, after it was deleted
    assert store.get_job(ID) == after


def test_jobs_are_listed_newest_first(store: JobStore) -> None:
    for number, status in enumerate(["queued", "failed", "queued", "completed"]):
        id = f"00000000-0000-4000-8000-{number:012d}"
        store.store_job({"job_id": id, "status": status, "created_at": f"2025-01-0{number + 1}"})
    assert [each["created_at"][-1] for each in store.list_jobs()] == ["4", "3", "2", "1"]
    assert [each["created_at"][-1] for each in store.list_jobs("queued", limit=1)] == ["3"]
    assert store.list_jobs(status="cancelled") == store.list_jobs(limit=0) == []
    store.delete_job("00000000-0000-4000-8000-000000000003")
    assert len(store.list_jobs()) == 3


@pytest.mark.parametrize(
    "job",
    [
        {},
        None,
        [],
        "text",
        {"job_id": ID},
        {"job_id": "x", "status": "queued"},
        {"job_id": ID, "status": "done"},
        {"job_id": ID, "status": ["queued"]},
        {"job_id": ID, "status": "queued", "progress": float("nan")},
        {"job_id": ID, "status": "queued", "result": object()},
        {"job_id": ID, "status": "queued", "created_at": "yesterday"},
    ],
)
def test_malformed_input_is_false_and_a_warning(store: JobStore, job: Any) -> None:
    with capture_logs() as logs:
        assert store.store_job(job) is False
    assert [each["log_level"] for each in logs] == ["warning"]
    assert store.get_job(ID) is None


@pytest.mark.parametrize("id", ["not-a-uuid", "../../etc/passwd", "", None, 5, b"x"])
def test_an_id_that_is_none_is_nothing(store: JobStore, id: Any) -> None:
    assert store.get_job(id) is None
    assert store.update_job(id, {"status": "failed"}) is False
    assert store.delete_job(id) is False
    store.store_job(JOB)
    assert store.update_job(ID, None) is False  # type: ignore[arg-type]
    assert store.list_jobs(limit="x") == []  # type: ignore[arg-type]


def test_files_in_the_directory_are_jobs(store: JobStore, tmp_path: Path) -> None:
    other = str(uuid4())
    (tmp_path / f"{ID}.json").write_bytes(orjson.dumps(JOB))
    (tmp_path / f"{other}.json").write_text("{")
    assert [each["job_id"] for each in store.list_jobs()] == [ID]
    assert store.get_job(other) is None
    store.update_job(ID, {"status": "completed"})
    store.close()  # and opened again by the next call
    after = store.get_job(ID)
    assert after is not None
    assert after["status"] == "completed", "the file is older"


def test_it_says_where_it_is(tmp_path: Path) -> None:
    with capture_logs() as logs:
        JobStore(base_dir="jobs")
    assert [each["event"] for each in logs] == ["📁 JobStore initialized with base_dir: jobs"]


def test_threads_share_a_store(store: JobStore) -> None:
    store.store_job(JOB | {"n": {}})

    def update(number: int) -> bool:
        return store.update_job(ID, {f"n{number}": number})

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(update, range(40)))
    job = store.get_job(ID)
    assert job is not None
    assert [job[f"n{number}"] for number in range(40)] == [*range(40)]


def test_create_job_queues_a_payload(store: JobStore) -> None:
    job = store.get_job(create_job({"text": "a protocol"}, store))
    assert job is not None
    assert (job["status"], job["payload"]) == ("queued", {"text": "a protocol"})
    assert job["created_at"] == job["updated_at"]


def test_jobs_are_read_beside_a_service_and_changed_after_it(
    store: JobStore, tmp_path: Path
) -> None:
    store.store_job(JOB)
    store.update_job(ID, {"status": "completed", "result": 5})
    store.close()

    def use() -> None:
        job = store.get_job(ID)
        assert job is not None
        assert [job] == store.list_jobs("completed")
        with capture_logs() as logs:
            assert store.update_job(ID, {"status": "failed"}) is False
            assert store.store_job(JOB) is False
            assert store.delete_job(ID) is False
        refused = [each for each in logs if each["log_level"] == "error"]
        assert len(refused) == 3
        assert "is writing to" in refused[0]["event"]

    async def check() -> None:
        async with Service(tmp_path) as service:
            await asyncio.to_thread(use)
            job = await service.jobs.load(ID)
            assert job is not None
            assert (job.status, job.result, job.version) == ("completed", 5, 2)
            events = [each.event for each in await service.log.read_job(ID)]
            assert [type(each) for each in events] == [JobImported, JobImported]

    asyncio.run(check())
    assert store.delete_job(ID) is True
    assert store.get_job(ID) is None

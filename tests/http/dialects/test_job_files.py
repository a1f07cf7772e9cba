"""Files of jobs, as another job service keeps them, are served when they are read."""

import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import Connect
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS
from tests.support.keys import ADMIN, bearer, make_key
from tests.support.log_lines import capture_logs

ID = "12345678-1234-1234-1234-123456789abc"
STATUS = f"/api/job-status/{ID}"
RECORD: dict[str, Any] = {
    "job_id": ID,
    "status": "completed",
    "created_at": "2025-01-01T00:00:00",
    "updated_at": "2025-01-01T00:01:00",
    "result": {"suggestions": [{"id": "1", "text": "Test suggestion"}]},
}


def write(directory: Path, record: Any, name: str = f"{ID}.json") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(record if isinstance(record, bytes) else orjson.dumps(record))
    return path


async def connect(client: Connect, directory: Path, **settings: Any) -> Client:
    names = f"{directory},{directory}/shadow"
    return await client(*HANDLERS, dialects="000", job_store_dirs=names, **settings)


async def test_a_file_that_is_written_while_the_service_runs_is_served_at_once(
    client: Connect, tmp_path: Path
) -> None:
    api = await connect(client, tmp_path)
    assert (await api.get(STATUS)).status == 404
    write(tmp_path, RECORD)
    assert (await api.get(STATUS)).json == {**RECORD, "progress": 100} | {
        "created_at": "2025-01-01T00:00:00",
        "updated_at": "2025-01-01T00:01:00",
    }
    job = (await api.get(f"/v1/jobs/{ID}")).json
    assert (job["status"], job["finished_at"]) == ("completed", "2025-01-01T00:01:00.000000Z")
    assert job["expires_at"] > job["updated_at"][:3] + "6", "its time to live counts from now"
    page = await api.get("/v1/jobs?type=imported")
    assert [each["job_id"] for each in page.json["jobs"]] == [ID]
    why = await api.get(f"/v1/jobs/{ID}/why")
    assert why.json["reasons"][0]["source"] == f"{tmp_path.name}/{ID}.json"


async def test_a_file_that_changes_is_noticed_at_the_next_read(
    client: Connect, tmp_path: Path
) -> None:
    api = await connect(client, tmp_path)
    write(tmp_path, RECORD | {"status": "running", "progress": 75.5})
    for path in (STATUS, f"/v1/jobs/{ID}"):
        assert (await api.get(path)).json["progress"] == 75.5
    write(tmp_path, RECORD | {"status": "failed", "error_message": "no more paper"})
    failed = (await api.get(f"/v1/jobs/{ID}")).json
    assert (failed["status"], failed["error"]["message"]) == ("failed", "no more paper")
    write(tmp_path, RECORD, f"shadow/{ID}.json")  # the newest of two files counts
    for path in (f"/v1/jobs/{ID}", STATUS):  # the failed job is in memory
        assert (await api.get(path)).json["status"] == "completed"
    assert len(await api.service.log.read_job(ID)) == 3
    os.utime(tmp_path / f"shadow/{ID}.json")
    await api.get(STATUS)
    assert len(await api.service.log.read_job(ID)) == 3, "the same content is no change"


async def test_a_job_of_another_program_is_not_run_here(client: Connect, tmp_path: Path) -> None:
    api = await connect(client, tmp_path)
    write(tmp_path, RECORD | {"status": "queued", "type": "echo"})
    assert (await api.get(STATUS)).json["status"] == "queued"
    refused = await api("POST", f"/v1/jobs/{ID}/cancel")
    assert (refused.status, refused.code) == (409, "wrong_state")
    later = await api("POST", "/v1/jobs", {"type": "echo", "payload": 1})
    await api.service.wait(later.json["job_id"])
    assert (await api.get(f"/v1/jobs/{ID}")).json["attempt"] == 0


async def test_a_history_becomes_events_with_its_own_times(client: Connect, tmp_path: Path) -> None:
    api = await connect(client, tmp_path)
    lines = (
        b'{"event": "job_created", "ts": "2025-01-01T00:00:00", "data": {"payload": {"n": 1}}}',
        b'{"event": "started", "timestamp": "2025-01-01T00:00:10"}',
        b'{"event": "progress", "timest',
        b'{"event": "progress", "timestamp": "2025-01-01T00:00:20", "progress": 50}',
        b'{"event": "completed", "timestamp": "2025-01-01T00:01:00", "result": {"ok": true}}',
    )
    with capture_logs() as logs:
        write(tmp_path, b"\n".join(lines), f"{ID}/events.log")
        job = (await api.get(f"/v1/jobs/{ID}")).json
    assert [job[name][11:19] for name in ("created_at", "started_at", "finished_at")] == [
        "00:00:00",
        "00:00:10",
        "00:01:00",
    ]
    assert (job["payload"], job["result"]) == ({"n": 1}, {"ok": True})
    history = (await api.get(f"/v1/jobs/{ID}/history")).json["entries"]
    assert [each["text"].split(": ")[1][:7] for each in history] == [
        "queued,",
        "running",
        "running",
        "complet",
    ]
    [skipped] = [each["why"] for each in logs if each["event"].startswith("lines of a job file")]
    assert skipped[0].startswith("line 3: it is not JSON")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b'{"job_id": "1234', "it is not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"status": "completed", "progress": NaN}', "it is not JSON"),
        (b'{"status": "completed", "result": "\xff\xfe"}', "it is not JSON"),
        (b'{"status": "completed", "result": ' + b"[" * 500 + b"]" * 500 + b"}", "cannot be kept"),
        (b'{"job_id": "1", "status": "completed"}', "not the one in its name"),
        (b'{"job_id": [], "status": "completed"}', "not the one in its name"),
        (b'{"status": "done"}', "not one of the known ones"),
        (b"{}", "its status is None"),
        (b'{"status": "failed", "created_at": "yesterday"}', "which is no time"),
        (b'{"status": "failed", "created_at": 1e300}', "which is no time"),
        (b'{"status": "failed", "result": "' + b"x" * 2000 + b'"}', "more than 1500 bytes"),
    ],
)
async def test_a_malformed_file_is_a_warning_and_not_found(
    client: Connect, tmp_path: Path, content: bytes, why: str
) -> None:
    api = await connect(client, tmp_path, job_file_bytes_max=1500)
    write(tmp_path, content)
    with capture_logs() as logs:
        for path in (STATUS, f"/v1/jobs/{ID}", STATUS):
            assert (await api.get(path)).status == 404
    [line] = [each for each in logs if each["event"] == "job file not read"]  # it is read once
    assert line["log_level"] == "warning"
    assert why in line["why"]
    write(tmp_path, RECORD | {"result": "repaired"})
    assert (await api.get(STATUS)).json["result"] == "repaired"


async def test_links_and_other_files_are_not_followed(client: Connect, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", RECORD)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    api = await connect(client, jobs)
    path = jobs / f"{ID}.json"
    path.symlink_to(outside)
    assert (await api.get(STATUS)).status == 404
    path.unlink()
    path.mkdir()
    assert (await api.get(STATUS)).status == 404
    path.rmdir()
    os.mkfifo(path)
    assert (await api.get(STATUS)).status == 404
    path.unlink()
    write(tmp_path / "outside", {"status": "completed"}, "events.log")
    (jobs / ID).symlink_to(tmp_path / "outside")
    assert (await api.get(STATUS)).status == 404


async def test_a_file_never_changes_a_job_of_this_service(client: Connect, tmp_path: Path) -> None:
    api = await connect(client, tmp_path)
    await api("PUT", f"/v1/jobs/{ID}", {"type": "echo", "payload": 1})
    await api.service.wait(ID)
    write(tmp_path, RECORD | {"result": "forged"})
    assert (await api.get(STATUS)).json["result"] == 1


@pytest.mark.parametrize(("owner", "status"), [(None, 404), ("ann", 200), ("bob", 404)])
async def test_imported_jobs_belong_to_the_owner_of_the_setting(
    client: Connect, tmp_path: Path, owner: str | None, status: int
) -> None:
    api = await connect(client, tmp_path, auth="required", job_store_owner=owner)
    ann = bearer(await make_key(api.service, owner="ann"))
    root = bearer(await make_key(api.service, ADMIN, owner="root"))
    write(tmp_path, RECORD)
    for path in (STATUS, f"/v1/jobs/{ID}"):
        assert (await api.get(path)).status == 401
        assert (await api.get(path, **ann)).status == status
        assert (await api.get(path, **root)).status == 200


async def test_without_directories_no_file_is_read(client: Connect, tmp_path: Path) -> None:
    write(tmp_path, RECORD)
    api = await client(*HANDLERS, dialects="000", job_store_dirs="off")
    assert (await api.get(STATUS)).status == 404


async def test_the_directories_of_the_dialects_are_below_the_working_directory(
    client: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    api = await client(*HANDLERS, dialects="000")
    write(tmp_path / "shadow" / "jobs", RECORD)
    assert (await api.get(STATUS)).json["status"] == "completed"


async def test_an_imported_job_that_runs_elsewhere_survives_a_restart(
    client: Connect, tmp_path: Path
) -> None:
    settings = {"data": tmp_path / "data"}
    api = await connect(client, tmp_path, **settings)
    write(tmp_path, RECORD | {"status": "running"})
    assert (await api.get(STATUS)).json["status"] == "running"
    await api.service.close()
    again = await connect(client, tmp_path, **settings)
    assert (await again.get(STATUS)).json["status"] == "running"
    assert len(await again.service.log.read_job(ID)) == 1

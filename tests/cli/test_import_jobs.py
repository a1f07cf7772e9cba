"""eventjobs-import, with 10,000 files and every kind of malformed one."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import orjson
import pytest

from eventjobs.cli.import_jobs import main
from eventjobs.domain.job import Status
from eventjobs.service import Service

COUNT = 10_000
STATUSES = ("completed", "failed", "running", "queued")


def id_of(number: int) -> str:
    return str(UUID(int=number + (4 << 76) + (2 << 62)))


def record(number: int) -> dict[str, Any]:
    return {
        "job_id": id_of(number),
        "status": STATUSES[number % 4],
        "created_at": f"2025-01-01T{number % 24:02d}:00:00",
        "updated_at": "2025-01-02T00:00:00",
        "result": {"suggestions": [{"id": str(number), "text": "x" * 100}]},
        "error_message": "no more paper" if number % 4 == 1 else None,
        "progress": number % 101,
    }


def write(directory: Path, number: int, content: object) -> Path:
    path = directory / f"{id_of(number)}.json"
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return path


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


CONTENTS: list[tuple[str, object]] = [
    ("it is empty", b""),
    ("it is not JSON", b'{"job_id": "0000'),
    ("it is not JSON", b"jobs: none"),
    ("it is not a JSON object", b"[]"),
    ("its job_id is 'x'", {"job_id": "x", "status": "queued"}),
    ("its job_id is '00000000", {"job_id": id_of(7), "status": "queued"}),
    ("its status is 'done'", {"status": "done"}),
    ("its status is None", {"result": 1}),
    ("its created_at is 'soon'", {"status": "queued", "created_at": "soon"}),
    ("its updated_at is -1", {"status": "queued", "updated_at": -1}),
    ("it has more than", b'{"status": "queued", "result": "' + b"x" * 2_000_000 + b'"}'),
    ("it is not JSON", b'{"status": "\xff\xfe\x00"}'),
    ("it is not JSON", b'{"status": "queued", "progress": NaN}'),
    ("it cannot be stored", b'{"status": "queued", "a":' + b"[" * 900 + b"]" * 900 + b"}"),
]
FILES: list[Callable[[Path], object]] = [make_directory, link_to_itself, make_pipe]


def test_ten_thousand_files_are_imported_in_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[..., None]
) -> None:
    jobs, shadow, data = (tmp_path / name for name in ("jobs", "shadow", "data"))
    jobs.mkdir()
    shadow.mkdir()
    for number in range(COUNT):
        write(jobs, number, record(number))
    malformed = {}
    for number, (why, content) in enumerate(CONTENTS, COUNT):
        malformed[str(write(jobs, number, content))] = why
    for number, change in enumerate(FILES, COUNT + 100):
        change(path := write(jobs, number, b""))
        malformed[str(path)] = "it is not a regular file"
    (jobs / "notes.json").write_text("{}")
    malformed[str(jobs / "notes.json")] = "its name is no UUID"
    (jobs / "log.txt").write_text("no job")
    os.utime(write(shadow, 1, record(1) | {"status": "queued"}), (0, 0))  # older than the other
    history = jobs / id_of(COUNT + 200) / "events.log"
    history.parent.mkdir()
    history.write_text('{"event": "created"}\n{"even\n{"event": "completed", "result": 1}\n')

    started_s = perf_counter()
    assert main([str(jobs), str(shadow), "--data", str(data), "--json"]) == 1
    record_property("campaign result", f"{COUNT} files in {perf_counter() - started_s:.2f} s")
    printed = capsys.readouterr()
    report = orjson.loads(printed.out)
    assert (report["imported"], report["older"], report["unchanged"]) == (COUNT + 1, 1, 0)
    reasons = dict(report["malformed"])
    assert reasons.keys() == malformed.keys()
    for name, why in malformed.items():
        assert reasons[name].startswith(why), (name, reasons[name])
    assert [each[1][:6] for each in report["skipped_lines"]] == ["line 2"]
    assert str(jobs / "notes.json") in printed.err

    write(jobs, 3, record(3) | {"status": "completed"})
    assert main([str(jobs), str(shadow), "--data", str(data)]) == 1
    assert capsys.readouterr().out.startswith(
        f"0 imported, 1 changed, {COUNT} unchanged, {len(malformed)} malformed"
    )
    asyncio.run(check_service(data))


async def check_service(data: Path) -> None:
    async with Service(data) as service:
        await service.views.wait_for_position(service.log.head)
        counts = await service.views.counts()
        of_type = counts["imported"]
        assert of_type == {
            "completed": COUNT // 4 + 2,
            "failed": COUNT // 4,
            "running": COUNT // 4,
            "queued": COUNT // 4 - 1,
        }
        job = await service.jobs.load(id_of(4))
        assert job is not None
        assert (job.status, job.result) == (Status.COMPLETED, record(4)["result"])


def test_a_running_service_keeps_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1, record(1))

    async def run() -> int:
        async with Service(tmp_path / "data"):
            return await asyncio.to_thread(main, [str(tmp_path), "--data", str(tmp_path / "data")])

    assert asyncio.run(run()) == 2
    assert "data_directory_locked" in capsys.readouterr().err


def test_a_missing_directory_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "jobs"), "--data", str(tmp_path / "data")]) == 2
    assert "error: directory:" in capsys.readouterr().err


def test_an_interrupted_import_reports_and_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write(tmp_path, number, record(number))
    arguments = [str(tmp_path), "--data", str(tmp_path / "data")]
    monkeypatch.setattr("eventjobs.cli.import_jobs.BATCH", 2)
    with monkeypatch.context() as patch:

        async def stop(*ignored: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("eventjobs.cli.import_jobs.BulkImport._record", stop)
        assert main(arguments) == 130
    assert "run it again" in capsys.readouterr().err
    assert main([*arguments, "--owner", "ann"]) == 0
    assert capsys.readouterr().out == "3 imported, 0 changed, 0 unchanged, 0 malformed; 3 events\n"


def test_a_file_without_permission_is_malformed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, 1, record(1))

    def refuse(*ignored: object, **options: object) -> int:
        raise PermissionError(13, "Permission denied")  # root would be permitted

    with monkeypatch.context() as patch:
        patch.setattr("eventjobs.storage.job_directories._open", refuse)
        assert main([str(tmp_path), "--data", str(tmp_path / "data")]) == 1
    assert f"{path}: it cannot be read: Permission denied" in capsys.readouterr().err

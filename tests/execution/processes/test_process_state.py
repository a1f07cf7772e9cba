"""What a job changes of its process is restored for the next job."""

import os
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.process_handlers import leaves, pid, sees
from tests.support.processes import result_of

LEFT = (
    *("directory", "removed directory", "variable", "no variables", "umask", "alarm", "locale"),
    *("timeout", "recursion", "silence", "temporary", "stdout"),
)


async def test_the_next_job_of_a_process_finds_it_as_it_was(serve: Serve) -> None:
    """An alarm, say, that a job has set killed the next one."""
    service = await serve(leaves, sees, processes=1)
    first = await result_of(service, "sees")
    for each in LEFT:
        await result_of(service, "leaves", each)
        assert await result_of(service, "sees") == first, each


async def test_what_a_module_sets_when_it_is_imported_stays(serve: Serve) -> None:
    service = await serve(sees, processes=1)
    assert (await result_of(service, "sees"))["imported"] == "yes"
    assert (await result_of(service, "sees"))["imported"] == "yes"


async def test_a_process_goes_on_when_its_directory_is_removed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "removed").mkdir()
    monkeypatch.chdir(tmp_path / "removed")
    service = await serve(leaves, pid, processes=1)
    process = await result_of(service, "pid")
    (tmp_path / "removed").rmdir()
    job = await service.submit("leaves", "directory", max_attempts=1)
    assert (await service.wait(job.job_id)).status == "completed"
    assert await result_of(service, "pid") == process


async def test_a_process_works_where_the_service_was_started(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = await serve(sees)
    os.chdir("/")
    assert (await result_of(service, "sees"))["directory"] == str(tmp_path)

"""The commands eventjobs-replay and eventjobs-audit, beside the service and without it."""

import asyncio
import hashlib
import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from eventjobs import Context, JobError, Service, Settings, handler
from eventjobs.log.commitment import COMMITMENT
from tests.support.log_rows import change

ROOT = Path(__file__).parents[2]


@handler("steps")
async def steps(context: Context, payload: Any) -> Any:
    for number in range(3):
        context.progress(number, 3, stage=f"stage {number}", message=f"secret {number}")
    return {"counted": 3}


@handler("fail", max_attempts=1)
async def fail(context: Context, payload: Any) -> None:
    raise JobError("broken", "it does not work")


async def run_jobs(service: Service, count: int = 8) -> list[str]:
    """*count* jobs of each type, and one that was cancelled before it could start."""
    ids = []
    for number in range(count):
        for type in ("steps", "fail"):
            job = await service.submit(type, {"secret": number}, tags=("one", f"tag {number}"))
            ids.append(job.job_id)
    later = await service.submit("steps", job_id=f"{7:032x}", retry_delay_s=1.0, priority=3)
    await asyncio.gather(*map(service.wait, ids), service.wait(later.job_id))
    return ids


def settings() -> Settings:
    return Settings(progress_interval_s=0.0)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with Service(tmp_path / "data", [steps, fail], settings=settings()) as service:
        await run_jobs(service)
        await service.views.wait_for_position(service.log.head)
        yield service


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """The directory of a closed service."""
    async with Service(tmp_path / "data", [steps, fail], settings=settings()) as service:
        await run_jobs(service)
        await service.views.wait_for_position(service.log.head)
    return tmp_path / "data"


async def run(tool: str, *arguments: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", f"eventjobs.tools.{tool}", *map(str, arguments)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


# --- replay


async def test_checking_beside_the_service_finds_views_as_the_log_says(service: Service) -> None:
    code, out, err = await run("replay", service.settings.data, "--check")
    assert (code, err) == (0, "")
    assert f"as the log says, up to position {service.log.head}" in out


async def test_checking_compares_at_the_position_that_the_views_have_reached(data: Path) -> None:
    """A log that is ahead makes the views late, not wrong."""
    change(
        data / "log.db",
        """INSERT INTO events
        SELECT position + 1, '00000000-0000-4000-8000-00000000000a', 1, 'JobSubmitted', at_us,
          actor, CAST('{"type":"steps"}' AS BLOB), CAST('{}' AS BLOB), salt, commitment
        FROM events ORDER BY position DESC LIMIT 1""",
    )
    code, out, _ = await run("replay", data, "--check", "--json")
    [[head]] = rows(data / "log.db", "SELECT max(position) FROM events")
    assert code == 0
    assert orjson.loads(out) == {
        "checked": True,
        "equal": True,
        "position": head - 1,
        "difference": None,
    }


async def test_checking_names_the_column_that_differs(data: Path) -> None:
    change(data / "views.db", "UPDATE jobs SET status = 'running' WHERE born = 1")
    code, out, _ = await run("replay", data, "--check")
    assert code == 1
    lines = out.splitlines()
    assert "not as the log says" in lines[0]
    assert lines[1:] == [
        "  table jobs, born 1",
        "  status",
        '    live:    "running"',
        '    rebuilt: "completed"',
    ]


async def test_checking_names_the_member_of_a_state_that_differs(data: Path) -> None:
    change(data / "views.db", "UPDATE jobs SET state = json_set(state, '$.attempt', 9)")
    code, out, _ = await run("replay", data, "--check", "--json")
    assert code == 1
    assert orjson.loads(out)["difference"] == {
        "table": "jobs",
        "key": {"born": 1},
        "live": {"state.attempt": 9},
        "rebuilt": {"state.attempt": 1},
    }


async def test_checking_finds_a_row_that_should_not_be_there(data: Path) -> None:
    change(data / "views.db", "INSERT INTO counts VALUES ('nothing', 'queued', 3)")
    code, out, _ = await run("replay", data, "--check")
    assert code == 1
    assert "table counts, type nothing, status queued" in out
    assert "rebuilt: no such row" in out


async def test_checking_finds_a_row_that_is_missing(data: Path) -> None:
    change(data / "views.db", "DELETE FROM tags WHERE born = 1 AND tag = 'one'")
    code, out, _ = await run("replay", data, "--check")
    assert code == 1
    assert "table tags, tag one, born 1" in out
    assert "live:    no such row" in out


async def test_checking_finds_an_index_that_is_missing(data: Path) -> None:
    change(data / "views.db", "DROP INDEX jobs_type")
    code, out, _ = await run("replay", data, "--check")
    assert code == 1
    assert "jobs_type" in out


async def test_checking_changes_no_file(data: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {name: (data / name).read_bytes() for name in ("log.db", "views.db")}

    before = contents()
    assert (await run("replay", data, "--check"))[0] == 0
    assert contents() == before


async def test_views_are_not_replaced_while_a_service_has_them(service: Service) -> None:
    code, out, err = await run("replay", service.settings.data)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: data_directory_locked: process {os.getpid()} is writing")
    assert err.count("\n") == 1


async def test_views_that_were_lost_or_changed_are_built_anew(data: Path) -> None:
    change(data / "views.db", "DELETE FROM jobs")
    code, out, _ = await run("replay", data)
    assert code == 0
    assert "built anew" in out
    assert (await run("replay", data, "--check"))[0] == 0
    assert not (data / "views.db.new").exists()
    async with Service(data, [steps, fail]) as service:
        assert (await service.views.counts())["fail"] == {"failed": 8}


@pytest.mark.parametrize("tool", ["replay", "audit"])
async def test_a_directory_without_a_log_is_refused_in_one_line(tool: str, tmp_path: Path) -> None:
    code, out, err = await run(tool, tmp_path / "typo")
    assert (code, out) == (2, "")
    assert err == (f"error: not_an_eventjobs_database: there is no log in {tmp_path / 'typo'}\n")
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("tool", ["replay", "audit"])
async def test_a_file_that_is_no_log_is_refused_in_one_line(tool: str, tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database at all" * 100)
    code, _, err = await run(tool, tmp_path)
    assert code == 2
    assert err.startswith("error: not_an_eventjobs_database: ")
    assert err.count("\n") == 1


# --- audit


async def test_an_export_beside_the_service_has_every_event_and_its_proof(
    service: Service,
) -> None:
    code, out, err = await run("audit", service.settings.data)
    assert code == 0
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert [each["position"] for each in lines] == list(range(1, service.log.head + 1))
    for each, recorded in zip(lines, await service.log.read(0, 10_000), strict=True):
        commitment = hashlib.sha256(
            COMMITMENT + bytes.fromhex(each["salt"]) + each["body"].encode()
        )
        assert each["commitment"] == commitment.hexdigest()
        assert each["facts"].encode() == recorded.facts
        assert {**orjson.loads(each["facts"]), **orjson.loads(each["body"])} == each["data"]
        assert each.items() >= orjson.loads(recorded.json()).items()
    assert err == (
        f"{len(lines)} events, positions 1 to {len(lines)}, every commitment holds, "
        f"sha256 {hashlib.sha256(out.encode()).hexdigest()}\n"
    )


async def test_a_tampered_body_is_found(data: Path) -> None:
    change(data / "log.db", "UPDATE events SET body = CAST('{}' AS BLOB) WHERE position = 1")
    code, out, err = await run("audit", data)
    assert code == 1
    assert err.startswith("error: position 1: the body is not the one that was committed to\n")
    assert "1 faults" in err
    assert len(out.splitlines()) == rows(data / "log.db", "SELECT count(*) FROM events")[0][0]


async def test_a_lawful_erasure_is_no_fault_but_half_of_one_is(data: Path) -> None:
    change(data / "log.db", "UPDATE events SET body = NULL, salt = NULL WHERE position = 1")
    code, out, _ = await run("audit", data, "--until", 1)
    assert code == 0
    line = orjson.loads(out)
    assert (line["body"], line["salt"], line["data"]["erased"]) == (None, None, True)
    lawless = "PRAGMA ignore_check_constraints = ON"
    change(data / "log.db", lawless, "UPDATE events SET salt = NULL WHERE position = 2")
    code, _, err = await run("audit", data)
    assert code == 1
    assert err.startswith("error: position 2: only one of body and salt is erased")


@pytest.mark.parametrize("deleted", ["position = 5", "position > 5"])
async def test_missing_events_are_found_by_their_positions(data: Path, deleted: str) -> None:
    [[head]] = rows(data / "log.db", "SELECT max(position) FROM events")
    change(data / "log.db", f"DELETE FROM events WHERE {deleted} AND position < {head}")
    code, _, err = await run("audit", data)
    assert code == 1
    assert err.startswith(
        f"error: position {5 + (deleted == 'position > 5')}: the event is missing"
    )


async def test_facts_that_cannot_be_read_are_found_and_still_exported(data: Path) -> None:
    change(data / "log.db", "UPDATE events SET facts = CAST('{' AS BLOB) WHERE position = 2")
    code, out, err = await run("audit", data)
    assert code == 1
    assert err.startswith("error: position 2: a stored ")
    line = orjson.loads(out.splitlines()[1])
    assert (line["position"], line["data"], line["facts"]) == (2, None, "{")


async def test_one_job_and_a_range_can_be_exported_to_a_private_file(
    data: Path, tmp_path: Path
) -> None:
    job_id = f"{7:032x}"
    written = f"{job_id[:8]}-{job_id[8:12]}-{job_id[12:16]}-{job_id[16:20]}-{job_id[20:]}"
    file = tmp_path / "job.jsonl"
    code, out, _ = await run("audit", data, "--job", job_id, "-o", file)
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert (code, out) == (0, "")
    assert [each["version"] for each in lines] == list(range(1, len(lines) + 1))
    assert {each["job_id"] for each in lines} == {written}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code, out, _ = await run("audit", data, "--after", 2, "--until", 4)
    assert code == 0
    assert [orjson.loads(line)["position"] for line in out.splitlines()] == [3, 4]

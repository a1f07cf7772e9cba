"""What an audit of a log, or of a part of it, says about events that are missing."""

import io
from pathlib import Path

import pytest

from eventjobs.domain.events import JobSubmitted, LogWritten
from eventjobs.domain.spec import JobSpec
from eventjobs.log.sqlite import SQLiteLog
from eventjobs.tools.audit import Export
from tests.support.histories import job_id
from tests.support.log_rows import change

A, B = job_id(1), job_id(2)


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A log of six events: A has the odd positions, and B the even ones."""
    log = await SQLiteLog.open(tmp_path / "log.db")
    for version in range(3):
        event = LogWritten(1, "info", "line") if version else JobSubmitted(JobSpec("test"))
        for job in (A, B):
            await log.append(job, version, event, actor="tester")
    await log.close()
    return tmp_path


async def faults(
    data: Path, job: str | None = None, after: int = 0, until: int | None = None
) -> str | None:
    """The first fault that an export names, whose summary counts as many."""
    export = Export(io.BytesIO())
    await export.run(data, job, after, until)
    assert (" faults," in export.summary()) == (export.first_bad is not None)
    return export.first_bad


@pytest.mark.parametrize(
    ("gone", "after", "until", "fault"),
    [
        ("1", 0, None, "position 1: the event is missing"),
        ("3", 0, None, "position 3: the event is missing"),
        ("3", 2, None, "position 3: the event is missing"),
        ("3", 2, 4, "position 3: the event is missing"),
        ("3, 4", 0, 4, "position 2: the events after it are missing"),
        ("4", 3, 4, "position 3: the events after it are missing"),
        ("4", 2, 4, "position 3: the events after it are missing"),
        ("1", 0, 1, "position 0: the events after it are missing"),
        ("4", 4, None, None),
        ("4", 4, 9, None),
        ("4", 0, 3, None),
        ("4", 3, 3, None),
        ("4", 9, None, None),
        ("0", 0, 6, None),
    ],
)
async def test_a_missing_event_within_the_range_is_a_fault(
    data: Path, gone: str, after: int, until: int | None, fault: str | None
) -> None:
    """Also the first one of the range, and its last one."""
    change(data / "log.db", f"DELETE FROM events WHERE position IN ({gone})")
    assert await faults(data, after=after, until=until) == fault


@pytest.mark.parametrize(
    ("gone", "after", "fault"),
    [
        (0, 0, None),
        (1, 0, "position 3: it is version 2, after 0"),
        (3, 0, "position 5: it is version 3, after 1"),
        (2, 0, None),
        (3, 2, None),
        (1, 2, None),
        (3, 4, None),
    ],
)
async def test_a_missing_event_of_one_job_shows_in_its_versions(
    data: Path, gone: int, after: int, fault: str | None
) -> None:
    """Not before the first event of an export that begins later: its version may be any."""
    change(data / "log.db", f"DELETE FROM events WHERE position = {gone}")
    assert await faults(data, A, after) == fault

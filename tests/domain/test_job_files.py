"""What the files of another job service say about their jobs."""

from typing import Any

import orjson
import pytest

from eventjobs.domain import job_files
from eventjobs.domain.events import JobImported
from eventjobs.domain.job_files import (
    STATES_MAX,
    History,
    MalformedJobFile,
    Source,
    parse_history,
    parse_job_file,
)
from eventjobs.domain.timestamps import MAX_US

MODIFIED_US = 1_800_000_000_000_000
SOURCE = Source("12345678-1234-1234-1234-123456789abc", "jobs/1.json", MODIFIED_US)
YEAR_2025_US = 1_735_689_600_000_000
YEAR_2025 = "2025-01-01T00:00:00"
MINUTE_US = 60_000_000


def parse(**fields: Any) -> JobImported:
    return parse_job_file(orjson.dumps({"status": "completed"} | fields), SOURCE)


def parse_lines(*lines: Any) -> History:
    return parse_history(b"\n".join(map(orjson.dumps, lines)), SOURCE)


@pytest.mark.parametrize(
    ("value", "at_us"),
    [
        (YEAR_2025, YEAR_2025_US),
        ("2025-01-01T02:00:00+02:00", YEAR_2025_US),
        ("2025-01-01T00:00:00.5Z", YEAR_2025_US + 500_000),
        ("2025-01-01", YEAR_2025_US),
        (1_735_689_600, YEAR_2025_US),
        (1_735_689_600.25, YEAR_2025_US + 250_000),
        (0, 0),
        ("9999-12-31T23:59:59.999999", MAX_US),
    ],
)
def test_a_time_is_iso_8601_or_seconds_since_1970(value: Any, at_us: int) -> None:
    assert parse(created_at=value).created_us == at_us


@pytest.mark.parametrize(
    "value", [True, -1, "1969-12-31T23:59:59", "9999-12-31T23:59:59-01:00", 1e300, "soon", []]
)
def test_another_value_is_no_time(value: Any) -> None:
    with pytest.raises(MalformedJobFile, match="its updated_at is "):
        parse(updated_at=value)


@pytest.mark.parametrize(
    ("fields", "created_us", "updated_us", "finished_us"),
    [
        ({}, MODIFIED_US, MODIFIED_US, MODIFIED_US),
        ({"created_at": 1}, 1_000_000, 1_000_000, 1_000_000),
        ({"updated_at": 2}, 2_000_000, 2_000_000, 2_000_000),
        ({"created_at": 1, "updated_at": 2}, 1_000_000, 2_000_000, 2_000_000),
        ({"updated_at": 2, "completed_at": 1}, 2_000_000, 2_000_000, 1_000_000),
        ({"updated_at": 5, "completed_at": 4, "finished_at": 3}, 5_000_000, 5_000_000, 3_000_000),
        ({"status": "failed", "updated_at": 2}, 2_000_000, 2_000_000, 2_000_000),
        ({"status": "running", "updated_at": 2, "finished_at": 1}, 2_000_000, 2_000_000, None),
    ],
)
def test_a_time_that_is_missing_is_another_one_of_the_file(
    fields: dict[str, Any], created_us: int, updated_us: int, finished_us: int | None
) -> None:
    job = parse(**fields)
    assert (job.created_us, job.updated_us) == (created_us, updated_us)
    assert (job.started_us, job.finished_us) == (None, finished_us)


@pytest.mark.parametrize(
    ("fields", "type"),
    [
        ({"type": "csv"}, "csv"),
        ({"job_type": "csv"}, "csv"),
        ({"type": "csv", "job_type": "xml"}, "csv"),
        ({"type": "a" * 200}, "a" * 200),
        ({"type": "a" * 201}, "imported"),
        ({"type": "a\nb"}, "imported"),
        ({"type": 5}, "imported"),
        ({"type": "eventjobs.delivery"}, "imported"),
        ({}, "imported"),
    ],
)
def test_the_type_is_that_of_the_file_if_it_may_be_one(fields: dict[str, Any], type: str) -> None:
    assert parse(**fields).type == type


def test_the_id_in_a_file_is_that_in_its_name_however_it_is_written() -> None:
    for same in (SOURCE.job_id, SOURCE.job_id.upper(), SOURCE.job_id.replace("-", "")):
        assert parse(job_id=same).source == SOURCE.path
    for other in ("87654321" + SOURCE.job_id[8:], "1", 1):
        with pytest.raises(MalformedJobFile, match="not the one in its name"):
            parse(job_id=other)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ({"event": "job_created"}, "queued"),
        ({"event_type": "QUEUED"}, "queued"),
        ({"type": "JobSubmitted"}, "queued"),
        ({"event": "started"}, "running"),
        ({"event": "progress"}, "running"),
        ({"event": "job.finished"}, "completed"),
        ({"event": "succeeded"}, "completed"),
        ({"event": "error"}, "failed"),
        ({"event": "running_failed"}, "failed"),
        ({"event": "cancelled"}, "cancelled"),
        ({"event": "started", "status": "failed"}, "failed"),
        ({"event": "started", "data": {"status": "completed"}}, "completed"),
    ],
)
def test_a_line_of_a_history_sets_the_status_that_it_names(line: Any, status: str) -> None:
    [state] = parse_lines(line).states
    assert state.status == status


@pytest.mark.parametrize("inner", ["data", "job", "fields", "updates", "changes"])
def test_fields_of_a_job_may_be_in_an_object_of_the_line(inner: str) -> None:
    [state] = parse_lines({"event": "failed", "at": 1, inner: {"error": "no paper"}}).states
    assert state.record["error_message"] == "no paper"
    assert inner not in state.record


def test_the_message_of_an_error_is_kept_when_the_line_has_one() -> None:
    [state] = parse_lines({"event": "failed", "error": "E7", "error_message": "no paper"}).states
    assert state.record["error_message"] == "no paper"


@pytest.mark.parametrize("name", ["timestamp", "ts", "time", "at", "updated_at", "created_at"])
def test_a_state_of_a_history_has_the_times_of_its_lines(name: str) -> None:
    lines = [
        {"event": "created", name: YEAR_2025},
        {"event": "started", name: "2025-01-01T00:01:00"},
        {"event": "progress", name: "2025-01-01T00:02:00"},
        {"event": "completed", name: "2025-01-01T00:03:00"},
    ]
    first, *_, last = parse_lines(*lines).states
    assert (first.created_us, first.updated_us) == (YEAR_2025_US, YEAR_2025_US)
    assert (first.started_us, first.finished_us, first.line) == (None, None, 1)
    assert last.created_us == YEAR_2025_US
    assert last.started_us == YEAR_2025_US + MINUTE_US
    assert last.updated_us == last.finished_us == YEAR_2025_US + 3 * MINUTE_US
    assert last.line == 4


def test_a_line_without_a_state_is_part_of_the_next_one_and_a_wrong_one_is_skipped() -> None:
    text = b'{"payload": 7}\n \n{"event": "created"}\n[1]\n{"job_id": "1"}\n'
    history = parse_history(text, SOURCE)
    [state] = history.states
    assert (state.line, state.record["payload"]) == (3, 7)
    assert [each.partition(":")[0] for each in history.skipped] == ["line 4", "line 5"]
    for lines, why in (([{"payload": 7}], "no line of it has a status"), ([[1], {}], "line 1: ")):
        with pytest.raises(MalformedJobFile, match=why):
            parse_lines(*lines)


@pytest.mark.parametrize("more", [0, 1, 5])
def test_of_a_long_history_the_first_and_the_newest_states_are_kept(more: int) -> None:
    lines = range(1, STATES_MAX + more + 1)
    states = parse_lines(*({"status": "running", "progress": line} for line in lines)).states
    assert [each.line for each in states] == [1, *lines[more + 1 :]]


def test_of_a_history_of_too_many_bytes_the_newest_state_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [{"status": "queued", "payload": "x" * 200}, {"status": "running"}]
    states = parse_lines(*lines).states
    assert [each.line for each in states] == [1, 2]
    size = sum(len(orjson.dumps(each.record)) for each in states)
    for more, kept in ((0, [1, 2]), (-1, [2])):
        monkeypatch.setattr(job_files, "STATES_BYTES_MAX", size + more)
        assert [each.line for each in parse_lines(*lines).states] == kept

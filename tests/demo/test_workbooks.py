"""analyze-csv reads workbooks, and says what is wrong with one that it cannot read."""

import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventjobs.demo.csv.convert_workbook import text_of
from eventjobs.demo.csv.workbook import read_sheet
from eventjobs.demo.handlers import analyze_csv
from eventjobs.errors import JobError
from eventjobs.handlers.base_context import Stopped
from tests.support.demo_jobs import RecordingContext, column, profile_of, run
from tests.support.workbooks import ENCRYPTED, FAR_APART, XLS, Rows, archive, ods, xlsx

CITIES: Rows = [["city", "people"], ["Rome", 3], ["Oslo, north", 2.5], [None, None], ["Bonn", 1000]]


def test_a_sheet_is_read_as_its_csv_would_be(tmp_path: Path) -> None:
    result = profile_of(tmp_path / "a", xlsx({"Cities": CITIES}))
    assert (result["rows"], result["column_count"]) == (3, 2)
    assert column(result, "people")["type"] == "float"
    assert result["notes"][0] == "This is a workbook; its sheet 'Cities' was read."


def test_the_first_sheet_with_rows_is_read_or_the_named_one(tmp_path: Path) -> None:
    book = xlsx({"Empty": [], "Cities": CITIES, "Other": [["a"], ["b"]]})
    result = profile_of(tmp_path / "a", book)
    assert result["notes"][0] == (
        "This is a workbook; its sheet 'Cities' was read. Others were not: 2."
    )
    assert profile_of(tmp_path / "a", book, sheet="Other")["rows"] == 1


@pytest.mark.parametrize(
    ("book", "rows"),
    [(XLS, 2), (ods([["city", "n"], ["Rome", "3"]]), 1)],
    ids=["xls", "ods"],
)
def test_other_formats_are_known_by_their_content(tmp_path: Path, book: bytes, rows: int) -> None:
    result = profile_of(tmp_path / "no_suffix", book)
    assert (result["rows"], result["columns"][0]["name"]) == (rows, "city")


def test_the_first_progress_is_in_the_stage_of_reading(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(xlsx({"Cities": CITIES}))
    context = RecordingContext(tmp_path / "a")
    run(analyze_csv, context)
    shares = [share for share, _ in context.progressed]
    assert context.progressed[0] == (0, "reading")
    assert shares == sorted(shares)


WHOLE = xlsx({"Cities": CITIES})
BROKEN: dict[str, tuple[bytes, str, str]] = {
    "half an archive": (WHOLE[: len(WHOLE) // 2], "excel_broken", "no whole workbook"),
    "another archive": (archive({"a.txt": "x"}), "excel_broken", "no workbook"),
    "a sheet that is no XML": (xlsx({"A": "<worksheet"}), "excel_broken", "not closed"),
    "an old one": (XLS[:1000], "excel_broken", "no whole workbook"),
    "a password": (ENCRYPTED, "excel_password", "password"),
    "no rows": (xlsx({"A": [], "B": []}), "csv_empty", "no sheet with rows"),
    "too many cells": (FAR_APART, "excel_too_large", "memory"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_workbook_that_cannot_be_read_fails_for_good(tmp_path: Path, name: str) -> None:
    content, code, pattern = BROKEN[name]
    with pytest.raises(JobError, match=pattern) as caught:
        profile_of(tmp_path / "a", content)
    assert (caught.value.error_code, caught.value.retryable) == (code, False)


def test_an_unknown_sheet_is_an_error_that_lists_the_others(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="Cities") as caught:
        profile_of(tmp_path / "a", WHOLE, sheet="May")
    assert caught.value.error_code == "excel_no_sheet"


def test_a_cancelled_job_stops_its_reader(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(WHOLE)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        raise Stopped

    with pytest.raises(Stopped):
        read_sheet(tmp_path / "a", "", tmp_path, check)
    assert checks == 1


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (3.0, "3"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        (True, "true"),
        (date(2025, 3, 1), "2025-03-01"),
        (datetime(2025, 3, 1, 4, 5), "2025-03-01 04:05:00"),  # noqa: DTZ001  cells have no zone
        (time(4, 5), "04:05:00"),
        (timedelta(hours=30), "1 day, 6:00:00"),
        ("a\0b", "ab"),
        ("", ""),
    ],
)
def test_a_cell_is_text(cell: Any, text: str) -> None:
    assert text_of(cell) == text


def test_without_the_library_the_job_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [each for each in sys.modules if each.startswith("eventjobs.demo.csv.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(JobError) as caught:
        run(analyze_csv, RecordingContext(tmp_path))
    assert caught.value.error_code == "demo_extra_missing"

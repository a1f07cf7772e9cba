"""analyze-csv reads a file of any shape, or says what is wrong with it."""

import csv
import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventjobs.demo.csv.column_stats import MARKERS
from eventjobs.demo.handlers import analyze_csv
from eventjobs.errors import JobError
from tests.support.demo_jobs import RecordingContext, Result, column, csv_text, profile_of, run

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Result]:
    """Profile a file with this content."""
    return partial(profile_of, tmp_path / "in put[1].csv")


cell_text = st.text(
    st.sampled_from(',;"\n\r ab1-.é日') | st.characters(exclude_categories=["Cs", "Cc"]), max_size=6
) | st.sampled_from(["", "1", "2.5", "NA", "-", "true", "2024-01-01"])
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cell_text, min_size=width, max_size=width), max_size=8)
)


def missing_in(cells: list[str], type: str) -> int:
    gone = {"", *MARKERS} if type != "text" else {""}
    return sum(cell.strip().lower() in gone for cell in cells)


@quick
@given(
    table=tables,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_rows_and_missing_values_are_those_of_pythons_csv_module(
    table: list[list[str]], quoting: Any, ending: str, profile: Callable[..., Result]
) -> None:
    header = [f"h{at}" for at in range(len(table[0]))] if table else ["h0"]
    content = csv_text([header, *table], quoting=quoting, lineterminator=ending)
    result = profile(content, separator=",")
    # Written with another line ending, a lone carriage return is not quoted and splits its row.
    rows = [row for row in csv.reader(io.StringIO(content, newline="")) if row][1:]
    assert result["rows"] == len(rows)
    for at, expected in enumerate(result["columns"]):
        cells = [row[at] if at < len(row) else "" for row in rows]
        assert expected["missing"] == missing_in(cells, expected["type"])
        if expected["type"] == "text":
            present = {cell.strip() for cell in cells} - {""}
            assert expected["distinct"] == len(present)


def outcome(profile: Callable[..., Result], content: str | bytes) -> tuple[Result, str]:
    """The result, or the code of the error that ended the job for good."""
    try:
        return profile(content), ""
    except JobError as error:
        return {}, "" if error.retryable else error.error_code


@quick
@given(text=st.text(st.sampled_from(',;|\t"\n\r ab1.-é'), min_size=1, max_size=40))
@example(text='a\n"')  # the open quote holds nothing but the end of the file
def test_any_text_has_the_rows_of_pythons_csv_module_or_a_named_fault(
    text: str, profile: Callable[..., Result]
) -> None:
    result, fault = outcome(profile, text)
    if fault:
        assert fault in ("csv_empty", "csv_malformed")
    else:
        lines = io.StringIO(text, newline="").readlines()[result["skipped_lines"] :]
        records = csv.reader(lines, delimiter=result["separator"])
        rows = [row for row in records if row]
        assert result["rows"] == len(rows) - 1
        row_names = any("one name fewer" in note for note in result["notes"])
        assert result["column_count"] == len(rows[0]) + row_names


@quick
@given(content=st.binary(max_size=200))
def test_any_bytes_end_in_a_result_or_a_fault_that_is_final(
    content: bytes, profile: Callable[..., Result]
) -> None:
    result, fault = outcome(profile, content)
    assert "rows" in result or fault.startswith("csv_")


BROKEN = {
    "nothing at all": (b"", "csv_empty", "no content"),
    "blank lines": (b"\n \r\n\n", "csv_empty", "no content"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "csv_empty", "no content"),
    "a NUL byte": (b"a,b\n1,\x00\n", "csv_binary", "NUL byte on line 2"),
    "a workbook": (
        b"PK\x03\x04\x14\x00\x08\x00" + bytes(range(256)),
        "excel_broken",
        "no whole workbook",
    ),
    "an archive": (b"\x1f\x8b\x08\x00abc", "csv_binary", "gzip"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "csv_binary", "PDF"),
    "control characters": (bytes(range(1, 256)), "csv_not_text", "control characters"),
    "half a character": (b"\xff\xfea\x00,\x00\x00\xd8", "csv_not_text", "utf-16"),
    "an open quote": (
        b'a,b\n1,2\n3,"open\n4,5\n',
        "csv_malformed",
        "line 3 is never closed",
    ),
    "an open quote in the header": (
        b'"a,b\n1,2\n',
        "csv_malformed",
        "line 1 is never closed",
    ),
    "an endless field": (b'a\n1\n"\n' + b"x" * 2**26, "csv_malformed", "line 3 is larger"),
    "a web page": (b"<!DOCTYPE html><html></html>", "csv_other_format", "HTML"),
    "JSON": (b'{"a": 1}', "csv_other_format", "JSON"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_ends_the_job_with_a_code_and_what_is_wrong(
    kind: str, profile: Callable[..., Result]
) -> None:
    content, code, words = BROKEN[kind]
    with pytest.raises(JobError) as caught:
        profile(content)
    assert caught.value.error_code == code
    assert words in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(separator: str, profile: Callable[..., Result]) -> None:
    rows = [["name", "note"], ["a", "x, y"], ["b", "1; 2"], ["c", "p | q"], ["d", "tab\there"]]
    result = profile(csv_text(rows, delimiter=separator))
    assert result["separator"] == separator
    assert [each["name"] for each in result["columns"]] == ["name", "note"]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-32", "utf-32"),
    ],
)
def test_other_encodings_are_read_and_named(
    encoding: str, expected: str, profile: Callable[..., Result]
) -> None:
    result = profile("naïve,größe\ncafé,1\n€,2\n".encode(encoding))
    assert result["encoding"] == expected
    assert [each["name"] for each in result["columns"]] == ["naïve", "größe"]
    assert {each["value"] for each in column(result, "naïve")["texts"]["top"]} == {"café", "€"}
    assert bool(result["notes"]) == (expected in ("cp1252", "utf-16", "utf-32"))


def test_ragged_rows_are_kept_and_pointed_out(profile: Callable[..., Result]) -> None:
    result = profile("a,b,c\n1,2,3\n4,5\n6,7,8,9\n\n1,1,1\n")
    assert result["rows"] == 4
    assert column(result, "c")["missing"] == 1
    assert result["notes"] == [
        "1 rows have fewer fields than the first; the others count as missing.",
        "1 rows have more fields than the first; the extra ones are ignored.",
        "The first such row ends on line 3.",
    ]


def test_every_column_gets_a_name_of_its_own(profile: Callable[..., Result]) -> None:
    result = profile("a,,a,a_2,\n1,2,3,4,5\n")
    names = [each["name"] for each in result["columns"]]
    assert names == ["a", "column_2", "a_2", "a_2_2", "column_5"]
    assert "4 columns had no name" in result["notes"][0]


def test_a_header_alone_is_a_table_without_rows(profile: Callable[..., Result]) -> None:
    result = profile("a,b\n")
    assert (result["rows"], result["column_count"]) == (0, 2)
    assert result["sentences"] == ["The file has a header with 2 columns and no rows."]
    assert result["charts"] == []


def test_a_file_without_a_header_keeps_its_first_row(profile: Callable[..., Result]) -> None:
    assert profile("1,2\n3,4\n", header=False)["rows"] == 2
    result = profile("1,2\n3,4\n")
    assert result["rows"] == 1
    assert "looks like data" in result["notes"][0]


def test_quoted_newlines_and_huge_fields_are_one_value(profile: Callable[..., Result]) -> None:
    huge = "x" * 3_000_000
    expected = column(profile(f'a,b\n"one\ntwo, ""three""",1\n{huge},2\n'), "a")
    assert expected["distinct"] == 2
    assert expected["texts"]["longest"] == 3_000_000
    assert {each["value"] for each in expected["texts"]["top"]} == {
        'one two, "three"',
        "x" * 59 + "…",
    }


def test_the_result_is_bounded_whatever_the_file(tmp_path: Path) -> None:
    chance = random.Random(1)
    names = [f"{n}{'long name ' * 50}" for n in range(2_500)]
    rows = [[f"{chance.random()}" + "y" * 500 * (n % 2) for n in range(2_500)] for _ in range(30)]
    ctx = RecordingContext(tmp_path / "wide.csv")
    (tmp_path / "wide.csv").write_text(csv_text([names, *rows]))
    result = run(analyze_csv, ctx)
    assert result["column_count"] == 2_500
    assert len(result["columns"]) == 200
    assert result["columns_omitted"] == 2_300
    assert "Only the first columns are reported; 2,300 are not." in result["notes"]
    assert len(json.dumps(result)) < 500_000
    assert max(map(len, ctx.artifacts.values())) < 50_000

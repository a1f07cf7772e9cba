"""analyze-csv finds the type of a column, and reads every value as what it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.demo_jobs import Result, column, csv_text, profile_of


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Result]:
    """Profile a file with this content."""
    return partial(profile_of, tmp_path / "in put[1].csv")


def test_integers_of_64_bit_have_their_exact_ends(profile: Callable[..., Result]) -> None:
    """DataProfiler#217, buckaroo#632"""
    result = profile("h,v\n-9123456789012345678,1\n5,2\n7000000000000000000,3\n")
    numbers = column(result, "h")["numbers"]
    assert (numbers["min"], numbers["max"]) == (-9123456789012345678, 7000000000000000000)
    bins = numbers["histogram"]
    assert sum(bins["counts"]) + bins["below"] + bins["above"] == 3
    assert column(result, "v")["numbers"]["mean"] == 2


@pytest.mark.parametrize("digits", [19, 20, 25, 38, 39, 60])
def test_long_ids_are_counted_as_what_they_are(digits: int, profile: Callable[..., Result]) -> None:
    """pandas#48170, readr#976, CSV.jl#1082"""
    ids = [f"{'98765432109' * 6}"[: digits - 3] + f"{n:03}" for n in range(100)]
    described = column(profile("id,v\n" + "".join(f"{each},1\n" for each in ids)), "id")
    assert (described["distinct"], described["distinct_exact"]) == (100, True)
    assert described["type"] == ("integer" if digits < 39 else "text")


@pytest.mark.parametrize(
    ("cells", "type", "largest", "format"),
    [
        (["1,234", "2,500", "12,345", "999"], "integer", 12345, "1,234.5"),
        (["1,234.5", "2,500.25", "7"], "float", 2500.25, "1,234.5"),
        (["1.234,5", "2.500,25", "7"], "float", 2500.25, "1.234,5"),
        (["1 234", "12 500"], "integer", 12500, "1 234,5"),
        (["1\u202f234,5", "12\u00a0500,5"], "float", 12500.5, "1 234,5"),
        (["1'234.5", "12\u2019500"], "float", 12500, "1'234.5"),
        (["1,5", "-2,75", "10"], "float", 10, "1234,5"),
        (["12345,678", "1,5"], "float", 12345.678, "1234,5"),
        (["1.234", "2.500"], "float", 2.5, None),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_thousands_and_decimals_are_told_apart(
    cells: list[str],
    type: str,
    largest: float,
    format: str | None,
    separator: str,
    profile: Callable[..., Result],
) -> None:
    """readr#799, polars#18797"""
    rows = [["n", "x"], *([cell, "x"] for cell in cells)]
    described = column(profile(csv_text(rows, delimiter=separator)), "n")
    assert (described["type"], described["numbers"]["max"]) == (type, largest)
    assert described["numbers"]["format"] == format


def test_commas_that_could_be_either_are_pointed_out(profile: Callable[..., Result]) -> None:
    result = profile("n\tx\n1,234\ty\n2,500\ty\n")
    assert column(result, "n")["numbers"]["other_format"] == "1234,5"
    assert "would fit, too" in result["notes"][0]
    assert profile("n\tx\n1,234\ty\n1,234,567\ty\n12\ty\n7\ty\n")["notes"] == []


@pytest.mark.parametrize(
    ("first", "last", "earliest"),
    [
        (
            "2020-12-01 21:25:58.745232+02",
            "2020-12-31 21:25:58+02",
            "2020-12-01T19:25:58.745232Z",
        ),
        ("2020-12-01 21:25:58+00", "2020-12-31 21:25:58+00", "2020-12-01T21:25:58Z"),
        ("2020-12-01T21:25Z", "2020-12-31T21:25Z", "2020-12-01T21:25:00Z"),
        ("2020-12-01 21:25:58 UTC", "2020-12-31 21:25:58 UTC", "2020-12-01T21:25:58Z"),
        ("2020-12-01T21:25:58+05:30", "2020-12-31 21:25:58-0330", "2020-12-01T15:55:58Z"),
        ("2020-12-01T21:25:58.123456789Z", "2020-12-31T00:00Z", "2020-12-01T21:25:58.123456Z"),
        ("2020-12-01T21:25:58", "2020-12-31T21:25:58", "2020-12-01T21:25:58"),
        ("01/12/2020 21:25", "31/12/2020 21:25", "2020-12-01T21:25:00"),
        ("12/01/2020 9:25 PM", "12/31/2020 10:00 AM", "2020-12-01T21:25:00"),
        ("01-Dec-2020", "31-Dec-2020", "2020-12-01"),
        ("Dec 1, 2020", "Dec 31, 2020", "2020-12-01"),
    ],
)
def test_dates_and_times_are_read_as_their_writers_have_them(
    first: str, last: str, earliest: str, profile: Callable[..., Result]
) -> None:
    """polars#23601, duckdb#1627"""
    described = column(profile(csv_text([["t", "x"], [last, "1"], [first, "1"]])), "t")
    assert described["type"] in ("date", "datetime")
    assert described["dates"]["earliest"] == earliest


@pytest.mark.parametrize(
    "cells",
    [
        ["01/02/24", "03/04/25"],  # which of the three is the year?
        ["2020-13-01", "2020-12-01"],
        ["0x1F", "12"],
        ["12 345 67", "1"],
        ["1,23,456", "1"],
        ["1.2.3", "2.0.0"],
        ["+49 30 123456", "030 123456"],
        ["1 2 3", "4 5 6"],
    ],
)
def test_what_only_looks_like_a_number_or_a_date_is_text(
    cells: list[str], profile: Callable[..., Result]
) -> None:
    described = column(profile(csv_text([["c", "d"], *([cell, "x"] for cell in cells)])), "c")
    assert described["type"] == "text"


def test_an_empty_column_is_empty(profile: Callable[..., Result]) -> None:
    described = column(profile("a,b\n1,\n2,\n"), "b")
    assert (described["type"], described["missing"], described["distinct"]) == ("empty", 2, 0)

"""analyze-csv: the numbers of a profile are exact, and its sentences and charts say them."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from eventjobs.demo.csv import profile as csv_profile
from eventjobs.demo.handlers import analyze_csv
from eventjobs.errors import JobError
from tests.support.demo_jobs import (
    RecordingContext,
    Result,
    column,
    csv_text,
    profile_of,
    run,
    sample_frame,
)

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Result]:
    """Profile a file with this content."""
    return partial(profile_of, tmp_path / "in put[1].csv")


def assert_same_numbers(frame: pl.DataFrame, result: Result) -> None:
    """Everything that can be asked of polars directly is what the profile says."""
    assert result["rows"] == frame.height
    for name in frame.columns:
        described, values = column(result, name), frame[name].drop_nulls()
        assert described["missing"] == frame[name].null_count(), name
        assert described["missing_share"] == frame[name].null_count() / frame.height
        assert described["distinct"] == values.n_unique(), name
    for name in ("id", "x", "y", "n"):
        described, values = column(result, name)["numbers"], frame[name].drop_nulls()
        wanted = {
            "min": values.min(),
            "max": values.max(),
            "mean": values.mean(),
            "median": values.median(),
            "std": values.std(),
            "q1": values.quantile(0.25, "linear"),
            "q3": values.quantile(0.75, "linear"),
        }
        assert {key: described[key] for key in wanted} == pytest.approx(wanted), name
        bins = described["histogram"]
        assert sum(bins["counts"]) + bins["below"] + bins["above"] == len(values)
        for at, counted in enumerate(bins["counts"][:-1]):
            low, high = bins["edges"][at : at + 2]
            assert counted == ((values >= low) & (values < high)).sum(), (name, low)
    tops = frame["city"].drop_nulls().value_counts().sort("count", "city", descending=[True, False])
    assert [tuple(each.values()) for each in column(result, "city")["texts"]["top"]] == tops.rows()
    days = column(result, "day")["dates"]
    assert (days["earliest"], days["latest"]) == (str(frame["day"].min()), str(frame["day"].max()))
    truth = {"true": frame["ok"].sum(), "false": (~frame["ok"]).sum()}
    assert column(result, "ok")["booleans"] == truth
    for pair in result["correlations"]:
        both = frame.select(pair["a"], pair["b"]).drop_nulls()
        assert pair["rows"] == both.height
        assert pair["r"] == pytest.approx(both.select(pl.corr(*both.columns)).item())


def test_all_numbers_are_those_polars_computes_itself(profile: Callable[..., Result]) -> None:
    frame = sample_frame(3_000)
    result = profile(frame.write_csv())
    assert_same_numbers(frame, result)
    assert [each["type"] for each in result["columns"]] == (
        ["integer", "float", "float", "integer", "text", "date", "boolean"]
    )
    strongest = result["correlations"][0]
    assert {strongest["a"], strongest["b"]} == {"x", "y"}
    sizes = [abs(each["r"]) for each in result["correlations"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_million_rows_take_seconds_and_are_exact(tmp_path: Path) -> None:
    few = sample_frame(1_000)
    frame = pl.concat([few] * 1_000).with_columns(id=pl.int_range(1, pl.len() + 1))
    frame.write_csv(tmp_path / "big.csv")
    ctx = RecordingContext(tmp_path / "big.csv")
    result = run(analyze_csv, ctx)
    assert_same_numbers(frame, result)
    assert len(ctx.progressed) <= 101


def test_known_answers(profile: Callable[..., Result]) -> None:
    numbers = column(profile("v\n" + "1\n2\n3\n4\n100\n"), "v")["numbers"]
    assert numbers["median"] == 3
    assert numbers["mean"] == 22
    assert (numbers["q1"], numbers["q3"]) == (2, 4)
    assert numbers["outliers"] == 1
    texts = column(profile("t\nb\na\nbb\nb\n\n"), "t")["texts"]
    assert texts["top"] == [
        {"value": "b", "count": 2},
        {"value": "a", "count": 1},
        {"value": "bb", "count": 1},
    ]
    assert (texts["shortest"], texts["longest"]) == (1, 2)


@pytest.mark.parametrize("marker", ["", "NA", "N/A", "null", "NaN", "None", "-", "n/a", "NULL"])
def test_markers_are_missing_where_the_rest_are_numbers(
    marker: str, profile: Callable[..., Result]
) -> None:
    described = profile(f"n,t\n1,x\n{marker},{marker}\n3,y\n")
    assert column(described, "n")["type"] == "integer"
    assert column(described, "n")["missing"] == 1
    assert column(described, "t")["missing"] == (1 if marker == "" else 0)


@pytest.mark.parametrize(
    ("cells", "type"),
    [
        (["1", "-2", "+3", "0"], "integer"),
        (["1", "2.5", "1e3", ".5"], "float"),
        (["9223372036854775808", "1"], "integer"),
        (["00501", "10001"], "text"),
        (["1_000", "2"], "text"),
        (["yes", "No", "TRUE"], "boolean"),
        (["2024-02-29", "2023-12-31"], "date"),
        (["2023-02-29", "2023-12-31"], "text"),
        (["31/12/2023", "01/01/2024"], "date"),
        (["12/31/2023", "01/01/2024"], "date"),
        (["2024-01-01T10:00:00Z", "2024-01-01T10:00:00.25+02:00"], "datetime"),
        (["2024-01-01 10:00", "2024-01-02 10:30"], "datetime"),
        (["", "NA", "-"], "empty"),
        (["inf", "1"], "float"),
    ],
)
def test_a_column_has_the_narrowest_type_that_fits_every_value(
    cells: list[str], type: str, profile: Callable[..., Result]
) -> None:
    result = profile(csv_text([["c", "d"], *([cell, "x"] for cell in cells)]))
    assert column(result, "c")["type"] == type


def test_a_decimal_comma_is_understood_where_commas_do_not_separate(
    profile: Callable[..., Result],
) -> None:
    result = profile("a;b\n1,5;x\n2,5;y\n-3,5;z\n")
    assert result["separator"] == ";"
    assert column(result, "a")["numbers"]["min"] == -3.5


def test_infinite_values_are_counted_and_reach_no_number(profile: Callable[..., Result]) -> None:
    described = column(profile("a,b\n1,1e308\ninf,-1e308\n-inf,1e308\n3,1e999\n"), "a")
    assert described["numbers"]["infinite"] == 2
    assert described["numbers"]["mean"] == 2


def test_constant_columns_have_no_correlation(profile: Callable[..., Result]) -> None:
    rows = "\n".join(f"{n},5,{n * 2},{'7' if n < 4 else ''}" for n in range(10))
    result = profile(f"a,constant,b,same_where_there\n{rows}\n")
    assert [(each["a"], each["b"]) for each in result["correlations"]] == [("a", "b")]
    assert result["correlations"][0]["r"] == pytest.approx(1.0)


def test_text_that_is_almost_all_numbers_names_the_exceptions(
    profile: Callable[..., Result],
) -> None:
    result = profile("n\n" + "\n".join(map(str, range(99))) + "\noops\n")
    assert column(result, "n")["exceptions"] == ["oops"]
    assert column(result, "n")["exceptions_count"] == 1
    assert any("would be numbers, but for 1 values: “oops”." in s for s in result["sentences"])


def test_dates_that_could_be_read_both_ways_are_pointed_out(profile: Callable[..., Result]) -> None:
    result = profile("d\n01/02/2024\n03/04/2024\n")
    assert column(result, "d")["dates"]["other_format"] == "%m/%d/%Y"
    assert result["notes"] == ["d was read as %d/%m/%Y; %m/%d/%Y would fit, too."]


def test_what_memory_cannot_hold_is_counted_exactly(
    profile: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_profile, "MEMORY_MAX", "70MB")
    cells = [f"v{n}{'-' * 200}" for n in range(300_000)] + ["often"] * 50
    described = column(profile("t\n" + "\n".join(cells)), "t")
    assert (described["distinct"], described["distinct_exact"]) == (300_001, True)
    assert described["texts"]["top"][0] == {"value": "often", "count": 50}


def test_a_file_that_needs_too_much_memory_fails_the_job_for_good(
    profile: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_profile, "MEMORY_MAX", "1MB")
    with pytest.raises(JobError) as caught:
        profile("t\n" + "\n".join(map(str, range(100_000))))
    assert (caught.value.error_code, caught.value.retryable) == ("csv_too_large", False)


def test_sentences_say_what_the_numbers_show(profile: Callable[..., Result]) -> None:
    result = profile(sample_frame(1_000).write_csv(), sentences_max=20)
    described = " ".join(result["sentences"])
    assert described.startswith("The table has 1,000 rows and 7 columns: 4 of numbers")
    assert "“x” and “y” rise and fall together" in described or "No two columns" in described
    assert re.search(r"“day” runs from 2020-\d\d-\d\d to 2022-\d\d-\d\d\.", described)
    assert "“id” has a different value in every row." in described
    assert len(profile(sample_frame(50).write_csv(), sentences_max=2)["sentences"]) == 2


HOSTILE = "<script>alert('&\"]]>')</script>\u202e\ufffe\x0b\x1b"


def test_every_chart_is_xml_that_says_what_it_shows_and_runs_nothing(tmp_path: Path) -> None:
    rows = [[HOSTILE, f"{HOSTILE} 2", f"{HOSTILE} 3"]]
    rows += [
        [f"{n % 7}.5", str(n % 7 * 2) if n % 3 else "", f"{HOSTILE}{n % 4}"] for n in range(60)
    ]
    ctx = RecordingContext(tmp_path / "hostile.csv")
    (tmp_path / "hostile.csv").write_text(csv_text(rows))
    result = run(analyze_csv, ctx)
    assert result["charts"] == list(ctx.artifacts)
    assert result["charts"] == [
        "chart-01-missing.svg",
        "chart-02-correlations.svg",
        "chart-03-column-1.svg",
        "chart-04-column-2.svg",
        "chart-05-column-3.svg",
    ]
    for svg in ctx.artifacts.values():
        root = ET.fromstring(svg)
        tags = {each.tag.split("}")[1] for each in root.iter()}
        assert tags <= {"svg", "title", "desc", "defs", "style", "rect", "path", "text", "g"}
        assert root[0].text
        assert root[1].text
        assert not re.search("[\u202e\ufffe\x0b\x1b]", svg)


def test_charts_and_sentences_are_as_many_as_asked_for(profile: Callable[..., Result]) -> None:
    content = sample_frame(100).write_csv()
    assert len(profile(content, charts_max=3)["charts"]) == 3
    assert profile(content, charts_max=0)["charts"] == []

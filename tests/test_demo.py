"""The demo's jobs do real work: what they report is right, bounded, and safe for any file."""

import asyncio
import csv
import io
import json
import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventjobs.demo import (
    HANDLERS,
    analyze_csv,
    analyze_text,
    charts,
    countdown,
    csv_columns,
    csv_reading,
    flaky,
    noop,
    primes,
)
from eventjobs.demo.csv_types import MARKERS
from eventjobs.demo.protocol_text import split_sentences, syllables
from eventjobs.errors import InvalidInput, JobError
from eventjobs.events import Artifact
from eventjobs.handlers import Handler, Handlers, Stopped
from eventjobs.job import Job
from eventjobs.service import Service

Result = dict[str, Any]
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Told:
    """A context that remembers what a handler told it."""

    def __init__(self, source: Path | None = None, attempt: int = 1) -> None:
        self.source = source
        self.attempt = attempt
        self.progressed: list[tuple[float, str | None]] = []
        self.messages: list[str | None] = []
        self.artifacts: dict[str, str] = {}
        self.cancel_at = float("inf")

    def sleep(self, delay_s: float) -> None:
        assert delay_s >= 0

    def check_cancelled(self) -> None:
        if self.progressed and self.progressed[-1][0] >= self.cancel_at:
            raise Stopped

    def progress(
        self, done: float, total: float, *, stage: str | None = None, message: str | None = None
    ) -> None:
        assert 0 <= done <= total
        self.progressed.append((done / total, stage))
        self.messages.append(message)

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        json.dumps(fields, allow_nan=False)

    def artifact(self, name: str, content: bytes, media_type: str) -> None:
        assert media_type == "image/svg+xml"
        self.artifacts[name] = content.decode()

    def input(self, name: str | None = None) -> Path:
        if self.source is None:
            raise JobError("artifact_missing", "the job has no artifact", retryable=False)
        return self.source


def run(handler: Handler, ctx: Told, **payload: Any) -> Result:
    result = handler.function(ctx, handler.parse(payload))
    return json.loads(json.dumps(result, allow_nan=False))  # type: ignore[no-any-return]


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Result]:
    """Profile a file with this content."""

    def of(content: str | bytes, **payload: Any) -> Result:
        source = tmp_path / "in put[1].csv"
        source.write_bytes(content.encode() if isinstance(content, str) else content)
        return run(analyze_csv, Told(source), **payload)

    return of


def column(result: Result, name: str) -> Result:
    return next(each for each in result["columns"] if each["name"] == name)


def written(rows: list[list[str]], **how: Any) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, **how).writerows(rows)
    return text.getvalue()


# Numbers


def sample_frame(rows: int) -> pl.DataFrame:
    chance = random.Random(7)
    x = [chance.gauss(50, 10) if chance.random() > 0.1 else None for _ in range(rows)]
    return pl.DataFrame(
        {
            "id": range(1, rows + 1),
            "x": x,
            "y": [3 * value + chance.gauss(0, 1) if value else 7.5 for value in x],
            "n": [chance.randint(-5, 5) for _ in range(rows)],
            "city": [chance.choice(["Paris", "Berlin, DE", 'The "Hague"', None]) for _ in x],
            "day": [date(2020, 1, 1) + timedelta(chance.randint(0, 900)) for _ in x],
            "ok": [chance.choice([True, False, None]) for _ in x],
        },
        strict=False,
    )


def assert_same_numbers(frame: pl.DataFrame, result: Result) -> None:
    """Everything that can be asked of polars directly is what the profile says."""
    assert result["rows"] == frame.height
    for name in frame.columns:
        told, values = column(result, name), frame[name].drop_nulls()
        assert told["missing"] == frame[name].null_count(), name
        assert told["missing_share"] == frame[name].null_count() / frame.height
        assert told["distinct"] == values.n_unique(), name
    for name in ("id", "x", "y", "n"):
        told, values = column(result, name)["numbers"], frame[name].drop_nulls()
        wanted = {
            "min": values.min(),
            "max": values.max(),
            "mean": values.mean(),
            "median": values.median(),
            "std": values.std(),
            "q1": values.quantile(0.25, "linear"),
            "q3": values.quantile(0.75, "linear"),
        }
        assert {key: told[key] for key in wanted} == pytest.approx(wanted), name
        bins = told["histogram"]
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
    ctx = Told(tmp_path / "big.csv")
    result = run(analyze_csv, ctx)
    assert_same_numbers(frame, result)
    assert len(ctx.progressed) <= 101


def test_the_slow_way_of_reading_gives_the_same_profile(
    profile: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = sample_frame(500).write_csv()
    fast = profile(content)
    monkeypatch.setattr(csv_reading, "_count_regular", lambda layout: None)
    monkeypatch.setattr(csv_reading, "CHUNK_CELLS_MAX", 100)
    assert profile(content) == fast


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
    told = profile(f"n,t\n1,x\n{marker},{marker}\n3,y\n")
    assert column(told, "n")["type"] == "integer"
    assert column(told, "n")["missing"] == 1
    assert column(told, "t")["missing"] == (1 if marker == "" else 0)


@pytest.mark.parametrize(
    ("cells", "type"),
    [
        (["1", "-2", "+3", "0"], "integer"),
        (["1", "2.5", "1e3", ".5"], "float"),
        (["9223372036854775808", "1"], "float"),
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
    result = profile(written([["c", "d"], *([cell, "x"] for cell in cells)]))
    assert column(result, "c")["type"] == type


def test_a_decimal_comma_is_understood_where_commas_do_not_separate(
    profile: Callable[..., Result],
) -> None:
    result = profile("a;b\n1,5;x\n2,5;y\n-3,5;z\n")
    assert result["separator"] == ";"
    assert column(result, "a")["numbers"]["min"] == -3.5


def test_infinite_values_are_counted_and_reach_no_number(profile: Callable[..., Result]) -> None:
    told = column(profile("a,b\n1,1e308\ninf,-1e308\n-inf,1e308\n3,1e999\n"), "a")
    assert told["numbers"]["infinite"] == 2
    assert told["numbers"]["mean"] == 2


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
    assert any("would be numbers, but 1 value is not (“oops”)" in s for s in result["sentences"])


def test_dates_that_could_be_read_both_ways_are_pointed_out(profile: Callable[..., Result]) -> None:
    result = profile("d\n01/02/2024\n03/04/2024\n")
    assert column(result, "d")["dates"]["other_format"] == "%m/%d/%Y"
    assert "month before day would fit as well" in result["notes"][0]


def test_very_many_different_texts_are_estimated_and_say_so(
    profile: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_columns, "DISTINCT_MAX", 100)
    cells = [f"v{n}" for n in range(1_000)] + ["often"] * 50
    told = column(profile("t\n" + "\n".join(cells)), "t")
    assert not told["distinct_exact"]
    assert told["distinct"] == pytest.approx(1_001, rel=0.1)
    assert told["texts"]["top"][0] == {"value": "often", "count": 50}


# Files of every shape

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
    content = written([header, *table], quoting=quoting, lineterminator=ending)
    result = profile(content, separator=",")
    # Written with another line ending, a lone carriage return is not quoted and splits its row.
    rows = [row for row in csv.reader(io.StringIO(content, newline="")) if row][1:]
    assert result["rows"] == len(rows)
    for at, told in enumerate(result["columns"]):
        cells = [row[at] if at < len(row) else "" for row in rows]
        assert told["missing"] == missing_in(cells, told["type"])
        if told["type"] == "text":
            present = {cell.strip() for cell in cells} - {""}
            assert told["distinct"] == len(present)


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
        records = csv.reader(io.StringIO(text, newline=""), delimiter=result["separator"])
        rows = [row for row in records if row]
        assert result["rows"] == len(rows) - 1
        assert result["column_count"] == len(rows[0])


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
        "csv_binary",
        "an Excel",
    ),
    "an archive": (b"\x1f\x8b\x08\x00abc", "csv_binary", "gzip"),
    "a PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "csv_binary", "PDF"),
    "control characters": (bytes(range(1, 256)), "csv_not_text", "control characters"),
    "bytes of no encoding": (b"a,b\n1,2\n3,caf\xe9 \x81\n", "csv_not_text", "line 3"),
    "half a character": (b"\xff\xfea\x00,\x00\x00\xd8", "csv_not_text", "UTF-16"),
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
    result = profile(written(rows, delimiter=separator))
    assert result["separator"] == separator
    assert [each["name"] for each in result["columns"]] == ["name", "note"]


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-32", "utf-32"),
    ],
)
def test_other_encodings_are_read_and_named(
    encoding: str, told: str, profile: Callable[..., Result]
) -> None:
    result = profile("naïve,größe\ncafé,1\n€,2\n".encode(encoding))
    assert result["encoding"] == told
    assert [each["name"] for each in result["columns"]] == ["naïve", "größe"]
    assert {each["value"] for each in column(result, "naïve")["texts"]["top"]} == {"café", "€"}
    assert bool(result["notes"]) == (told in ("cp1252", "utf-16", "utf-32"))


def test_ragged_rows_are_kept_and_pointed_out(profile: Callable[..., Result]) -> None:
    result = profile("a,b,c\n1,2,3\n4,5\n6,7,8,9\n\n1,1,1\n")
    assert result["rows"] == 4
    assert column(result, "c")["missing"] == 1
    assert result["notes"] == [
        "1 row has fewer than 3 fields; those that are not there count as missing.",
        "1 row has more than 3 fields; the extra ones are ignored.",
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
    told = column(profile(f'a,b\n"one\ntwo, ""three""",1\n{huge},2\n'), "a")
    assert told["distinct"] == 2
    assert told["texts"]["longest"] == 3_000_000
    assert {each["value"] for each in told["texts"]["top"]} == {
        'one two, "three"',
        "x" * 59 + "…",
    }


def test_the_result_is_bounded_whatever_the_file(tmp_path: Path) -> None:
    chance = random.Random(1)
    names = [f"{n}{'long name ' * 50}" for n in range(2_500)]
    rows = [[f"{chance.random()}" + "y" * 500 * (n % 2) for n in range(2_500)] for _ in range(30)]
    ctx = Told(tmp_path / "wide.csv")
    (tmp_path / "wide.csv").write_text(written([names, *rows]))
    result = run(analyze_csv, ctx)
    assert result["column_count"] == 2_500
    assert len(result["columns"]) == 200
    assert result["columns_omitted"] == 2_300
    assert "Only the first 200 of 2,500 columns" in " ".join(result["notes"])
    assert len(json.dumps(result)) < 500_000
    assert max(map(len, ctx.artifacts.values())) < 50_000


# Sentences and charts


def test_sentences_say_what_the_numbers_show(profile: Callable[..., Result]) -> None:
    result = profile(sample_frame(1_000).write_csv(), sentences_max=20)
    told = " ".join(result["sentences"])
    assert told.startswith("The table has 1,000 rows and 7 columns: 4 of numbers")
    assert "“x” and “y” rise and fall together" in told or "No two columns" in told
    assert re.search(r"“day” runs from 2020-\d\d-\d\d to 2022-\d\d-\d\d\.", told)
    assert "“id” has a different value in every row." in told
    assert len(profile(sample_frame(50).write_csv(), sentences_max=2)["sentences"]) == 2


HOSTILE = "<script>alert('&\"]]>')</script>\u202e\ufffe\x0b\x1b"


def test_every_chart_is_xml_that_says_what_it_shows_and_runs_nothing(tmp_path: Path) -> None:
    rows = [[HOSTILE, f"{HOSTILE} 2", f"{HOSTILE} 3"]]
    rows += [
        [f"{n % 7}.5", str(n % 7 * 2) if n % 3 else "", f"{HOSTILE}{n % 4}"] for n in range(60)
    ]
    ctx = Told(tmp_path / "hostile.csv")
    (tmp_path / "hostile.csv").write_text(written(rows))
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
        assert tags <= {"svg", "title", "desc", "rect", "line", "text", "g"}
        assert root[0].text
        assert root[1].text
        assert not re.search("[\u202e\ufffe\x0b\x1b]", svg)


@quick
@given(low=st.floats(-1e15, 1e15), width=st.floats(1e-3, 1e15))
def test_ticks_are_few_round_and_around_the_range(low: float, width: float) -> None:
    width = max(width, abs(low) * 1e-6)
    ticks = charts.nice_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + step * 1e-6
    assert ticks[-1] >= low + width - step * 1e-6


def test_charts_and_sentences_are_as_many_as_asked_for(profile: Callable[..., Result]) -> None:
    content = sample_frame(100).write_csv()
    assert len(profile(content, charts_max=3)["charts"]) == 3
    assert profile(content, charts_max=0)["charts"] == []


# The handlers


def test_the_stages_come_in_order_and_progress_never_goes_back(tmp_path: Path) -> None:
    sample_frame(200).write_csv(tmp_path / "a.csv")
    ctx = Told(tmp_path / "a.csv")
    run(analyze_csv, ctx)
    shares = [share for share, _ in ctx.progressed]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    stages = list(dict.fromkeys(stage for _, stage in ctx.progressed))
    assert stages == ["reading", "analyzing", "narrating", "visualizing"]
    assert all(ctx.messages)


@pytest.mark.parametrize("done", [0.0, 0.4, 0.5, 0.85, 0.9])
def test_a_cancelled_job_stops_at_the_next_step(done: float, tmp_path: Path) -> None:
    sample_frame(200).write_csv(tmp_path / "a.csv")
    ctx = Told(tmp_path / "a.csv")
    ctx.cancel_at = done
    with pytest.raises(Stopped):
        run(analyze_csv, ctx)
    assert ctx.progressed[-1][0] < 1


def test_without_polars_the_job_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(JobError, match=r"eventjobs\[demo\]") as caught:
        run(analyze_csv, Told(tmp_path))
    assert caught.value.error_code == "polars_missing"


def test_the_demo_can_be_imported_without_polars() -> None:
    script = "import sys; sys.modules['polars'] = None; import eventjobs.demo"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_job_without_a_file_ends_with_artifact_missing() -> None:
    with pytest.raises(JobError) as caught:
        run(analyze_csv, Told())
    assert caught.value.error_code == "artifact_missing"


@pytest.mark.parametrize(
    "payload", [{"separator": ",,"}, {"separator": '"'}, {"separator": "\n"}, {"charts": 1}]
)
def test_a_payload_that_does_not_fit_is_refused(payload: Result) -> None:
    with pytest.raises(InvalidInput):
        analyze_csv.parse(payload)


def test_the_demo_has_these_types() -> None:
    types = ["analyze-csv", "analyze-text", "countdown", "flaky", "llm-summary", "noop", "primes"]
    assert Handlers.of(HANDLERS).types() == types


PROTOCOL = """STUDY SYNOPSIS AND OBJECTIVES

The Primary Endpoint (PE) is overall survival. Blood samples will be collected by Dr. Smith \
every 4 weeks, e.g. on Day 1. Patients should be assessed regularly for AEs. The PE was chosen.
Subjects receive approximately 2.5 mg of drug.
"""


def test_a_protocol_gets_suggestions_at_their_places() -> None:
    result = run(analyze_text, Told(), text=PROTOCOL, ta="oncology")
    for each in result["suggestions"]:
        assert 0 <= each["start"] < each["end"] <= len(PROTOCOL)
    found = {
        (each["kind"], PROTOCOL[each["start"] : each["end"]]) for each in result["suggestions"]
    }
    assert found == {
        ("passive_voice", "be collected"),
        ("passive_voice", "be assessed"),
        ("passive_voice", "was chosen"),
        ("vague_wording", "should"),
        ("vague_wording", "regularly"),
        ("vague_wording", "approximately"),
        ("undefined_abbreviation", "AE"),
    }
    assert result["sentences"] == 6
    assert result["ta"] == "oncology"
    assert len({each["id"] for each in result["suggestions"]}) == len(result["suggestions"])


def test_readability_is_fleschs_formula() -> None:
    text = "The cat sat on the mat. The dog ran to the big red barn."
    ease = run(analyze_text, Told(), text=text)["readability"]["flesch_reading_ease"]
    assert ease == pytest.approx(206.835 - 1.015 * 14 / 2 - 84.6 * 14 / 14, abs=0.1)
    words = {"table": 2, "protocol": 3, "assessed": 2, "treated": 2, "made": 1, "a": 1}
    assert {word: syllables(word) for word in words} == words


def test_abbreviations_and_decimals_do_not_end_a_sentence() -> None:
    text = (
        "See Fig. 2 for e.g. 2.5 mg vs. 5 mg. Next one, etc. No. 5? Yes!\n- An item\n- Another item"
    )
    spans = [text[each.start : each.end] for each in split_sentences(text)]
    assert spans == [
        "See Fig. 2 for e.g. 2.5 mg vs. 5 mg.",
        "Next one, etc.",
        "No. 5?",
        "Yes!",
        "- An item",
        "- Another item",
    ]


def test_a_truncated_document_is_looked_at_in_part_and_says_so() -> None:
    text = "This should be done. " * 2_000
    whole = run(analyze_text, Told(), text=text)
    part = run(analyze_text, Told(), text=text, mode="document_truncated")
    assert (part["truncated"], whole["truncated"]) == (True, False)
    assert part["characters_analyzed"] == 20_000
    assert part["characters_total"] == len(text)
    assert len(whole["suggestions"]) == 200
    assert whole["suggestions_total"] == 4_000
    assert {each["kind"] for each in whole["suggestions"]} == {"vague_wording", "passive_voice"}


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_text_is_an_error_for_good(text: str) -> None:
    with pytest.raises(JobError) as caught:
        run(analyze_text, Told(), text=text)
    assert (caught.value.error_code, caught.value.retryable) == ("text_empty", False)


@quick
@given(text=st.text(min_size=1))
def test_any_text_is_reviewed(text: str) -> None:
    if text.strip():
        result = run(analyze_text, Told(), text=text)
        assert len(result["suggestions"]) <= 200


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        "!",
        ".",
        "a",
        "A",
        "AB ",
        "AB(",
        "is ",
        "is not ",
        "\n",
        "\n ",
        " ",
        '."',
        "etc",
        "x (",
        "Ab-",
    ],
)
def test_a_hostile_text_takes_no_longer_than_others(piece: str) -> None:
    """Many rules on one line: each must stay linear in the length of the text."""
    text = piece * (300_000 // len(piece)) + "x"
    assert run(analyze_text, Told(), text=text)["characters_total"] == len(text)


@pytest.mark.parametrize(
    ("text", "undefined"),
    [
        ("The serum level (SL) rose. SL fell.", set()),
        ("SL (serum level) rose.", set()),
        ("SL: serum level", set()),
        ("The SL rose (see Section 2).", {"SL"}),
        ("SAEs and QT-2 rose in the US.", {"SAE", "QT-2"}),
    ],
)
def test_an_abbreviation_is_defined_by_brackets_or_a_list(text: str, undefined: set[str]) -> None:
    found = run(analyze_text, Told(), text=text)["suggestions"]
    told = {text[each["start"] : each["end"]] for each in found}
    assert told == undefined


def test_primes_are_counted() -> None:
    told = Told()
    assert run(primes, told, below=10_000) == {"count": 1229, "largest": 9973}
    assert run(primes, told, below=2) == {"count": 0, "largest": 0}


async def test_a_countdown_tells_of_every_step() -> None:
    ctx = Told()
    payload = countdown.parse({"steps": 4, "interval_s": 0})
    assert await countdown.function(ctx, payload) == {"steps": 4}
    assert [share for share, _ in ctx.progressed] == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(InvalidInput):
        countdown.parse({"steps": 0})


async def test_a_flaky_job_succeeds_after_the_failures_asked_for() -> None:
    payload = flaky.parse({})
    for attempt in (1, 2):
        with pytest.raises(JobError) as caught:
            await flaky.function(Told(attempt=attempt), payload)
        assert caught.value.error_code == "flaky"
        assert caught.value.retryable
    assert await flaky.function(Told(attempt=3), payload) == {"attempts": 3}


async def test_noop_takes_anything_and_returns_nothing() -> None:
    assert await noop.function(Told(), noop.parse({"any": ["thing"]})) is None


async def served(tmp_path: Path, content: bytes) -> Job:
    """The job that a real service made of a file with this content, once it has ended."""
    async with Service(tmp_path / "data", HANDLERS) as service:
        kept = await asyncio.to_thread(service.artifacts.store, content)
        artifacts = (Artifact("table.csv", *kept),)
        submitted = await service.submit("analyze-csv", {}, artifacts=artifacts)
        return await asyncio.wait_for(service.wait(submitted.job_id), 30)


def test_a_real_service_profiles_an_uploaded_file(tmp_path: Path) -> None:
    job = asyncio.run(served(tmp_path, sample_frame(300).write_csv().encode()))
    assert job.status == "completed"
    assert job.result["rows"] == 300
    assert [each.name for each in job.artifacts] == ["table.csv", *job.result["charts"]]


def test_a_real_service_fails_a_broken_file_for_good(tmp_path: Path) -> None:
    job = asyncio.run(served(tmp_path, b"a\n\0"))
    assert (job.status, job.attempt) == ("failed", 1)
    assert job.error is not None
    assert job.error["code"] == "csv_binary"

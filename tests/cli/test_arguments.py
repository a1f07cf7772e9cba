"""Values on the command line: files, times and delays."""

from pathlib import Path

import pytest
import typer

from eventjobs.cli.arguments import (
    parse_file,
    parse_payload,
    parse_seconds,
    parse_time,
    without_unset,
)


def test_the_name_of_a_file_is_that_of_its_path_unless_it_has_one() -> None:
    assert parse_file("data/in.csv") == ("in.csv", Path("data/in.csv"))
    assert parse_file("table=data/in.csv") == ("table", Path("data/in.csv"))
    assert parse_file("a=b=c") == ("a=b", Path("c"))


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("0", 0)],
)
def test_a_delay_has_a_unit_or_is_in_seconds(text: str, delay_s: float) -> None:
    assert parse_seconds(text) == delay_s


@pytest.mark.parametrize("text", ["", "-1", "1w", "1h30m", "1e3", "inf"])
def test_what_is_no_delay_ends_the_command(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as exit:
        parse_seconds(text)
    assert exit.value.exit_code == 2
    assert capsys.readouterr().err.startswith("error: usage: ")


def test_a_time_keeps_its_offset() -> None:
    at = parse_time("2090-01-31T12:00:00+02:00")
    assert at is not None
    assert at.timestamp() == 3_789_540_000


def test_what_is_not_set_is_left_out() -> None:
    assert [parse(None) for parse in (parse_payload, parse_seconds, parse_time)] == [None] * 3
    assert without_unset({"a": None, "b": [], "c": 0, "d": False}) == {"c": 0, "d": False}

"""The command that runs the campaigns for longer than the gate does."""

from pathlib import Path

import pytest

from eventjobs.tools.soak import __main__ as soak
from eventjobs.tools.soak.__main__ import Report, main
from eventjobs.tools.soak.model_check.transitions import Bounds


def test_a_campaign_is_told_of_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "WORLDS", [Bounds()])
    assert main(["model", "--rounds", "2"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("model: all ")


def test_campaigns_take_turns_until_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def breaks(data: Path, seed: int) -> Report:
        data.mkdir()
        return Report(f"seed {seed}", ["it is not as promised"] if seed == 6 else [])

    good = {"good": lambda data, seed: Report(f"seed {seed}", []), "breaks": breaks}
    monkeypatch.setattr(soak, "CAMPAIGNS", good)
    assert main(["--rounds", "9", "--seed", "5", "--keep", str(tmp_path / "kept")]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "see" not in line[:6]]
    assert lines == [
        "good: seed 5",
        "breaks: seed 5",
        "good: seed 6",
        "breaks: seed 6",
        "  it is not as promised",
    ]
    [broken] = (tmp_path / "kept").glob("soak-breaks-6-*")
    assert (broken / "data").is_dir()


def test_a_property_that_does_not_hold_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    (tmp_path / "conftest.py").write_text(
        "import hypothesis\nhypothesis.settings.register_profile('soak')\n"
    )
    (tmp_path / "test_it.py").write_text(
        "from hypothesis import given, strategies\n"
        "@given(strategies.integers())\n"
        "def test_small(number):\n"
        "    assert number < 1000\n"
    )
    report = soak.properties(tmp_path / "data", 1)
    assert "1 failed" in report.line
    assert "number = 1000" in "\n".join(report.faults)


def test_a_campaign_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["floods"])
    assert "no such campaign: floods" in capsys.readouterr().err

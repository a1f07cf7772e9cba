"""The search for changes that no test finds."""

import textwrap
from pathlib import Path

import pytest

from eventjobs.tools.mutants import __main__ as mutants
from eventjobs.tools.mutants.changes import Change, changes_of

ROOT = Path(__file__).parents[2]


def changes(folder: Path, source: str) -> list[Change]:
    path = folder / "module.py"
    path.write_text(textwrap.dedent(source))
    return changes_of(folder, path)


def texts(folder: Path, source: str) -> set[str]:
    return {f"{each.before} -> {each.after}" for each in changes(folder, source)}


def test_conditions_are_turned_and_bounds_moved(tmp_path: Path) -> None:
    source = """
    def f(a, b):
        if a:
            g(a < b <= 2, min(a, b), not a, a and b, True, "text" + a, a + b)
    """
    assert texts(tmp_path, source) == {
        "a -> not (a)",
        'g(a < b <= 2, min(a, b), not a, a and b, True, "text" + a, a + b) -> pass',
        "a < b <= 2 -> (a <= b <= 2)",
        "a < b <= 2 -> (a < b < 2)",
        "2 -> 3",
        "min(a, b) -> max(a, b)",
        "not a -> (a)",
        "a and b -> (a or b)",
        "True -> False",
        "a + b -> (a - b)",
    }


def test_statements_are_left_out(tmp_path: Path) -> None:
    source = '''
    class Shop:
        limit: int = 3

        def __init__(self):
            self.open = make()

        async def sell(self, items):
            """A docstring is no behaviour."""
            self.open = items
            try:
                for item in items:
                    continue
                await self.send()
            except OSError:
                return items
            finally:
                self.close()
            log.debug("sold")
            raise Closed
    '''
    assert texts(tmp_path, source) == {
        "self.open = items -> pass",
        "continue -> break",
        "await self.send() -> pass",
        "return items -> raise",
        "return items -> return None",
        "self.close() -> pass",
        "raise Closed -> pass",
    }


def test_a_change_is_made_in_its_place(tmp_path: Path) -> None:
    source = 'def f(a):\n    "Ünïcode before it."\n    x = "ß"; return a == 1 or a == 1\n'
    (last,) = [each for each in changes(tmp_path, source) if each.after == "2"][1:]
    assert last.apply(source.encode()).decode() == source.replace("or a == 1", "or a == 2")
    assert str(last) == "module.py:3 f: 1 -> 2"


@pytest.mark.parametrize("path", mutants.PATHS)
def test_changed_modules_compile(path: str) -> None:
    """A change that is no Python would count as found."""
    for change in mutants.sample(ROOT, [path], number=40, seed=1):
        source = (ROOT / change.path).read_bytes()
        compile(change.apply(source), change.path, "exec", dont_inherit=True)


def test_what_a_test_finds_and_what_none_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = ("schemathesis", "hypothesispytest", "anyio", "asyncio")  # they start slowly
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p no:{name}" for name in plugins))
    (tmp_path / "shop.py").write_text("def price(count):\n    return max(count, 0)\n")
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_shop.py").write_text(
        "import shop\n\n\ndef test_price():\n    assert shop.price(2) == 2\n"
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    assert mutants.main(["shop.py", "--processes", "1"], root=tmp_path) == 0
    output = capsys.readouterr().out
    assert "shop.py:2 price: 0 -> 1  (1 of 1 tests)" in output
    assert "shop.py:2 price: max(count, 0) -> min(count, 0)  (" not in output
    assert output.endswith("2 of 3 caught, 66.7 %\n"), output
    mutants.main(["shop.py", "--processes", "1", "--again"], root=tmp_path)
    assert capsys.readouterr().out.endswith("0 of 1 caught, 0.0 %\n")

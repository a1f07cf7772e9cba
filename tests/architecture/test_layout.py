"""Style as a test. Each failure names the place, and what to do instead."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = [ROOT / name for name in ("eventjobs", "projections", "tools")]
FILES = sorted(
    path
    for folder in FOLDERS
    for path in folder.rglob("*")
    if path.is_file() and path.suffix != ".pyc"
)
MODULES = {path: ast.parse(path.read_text()) for path in FILES if path.suffix == ".py"}


def module_name(path: Path) -> str:
    """projections/ and tools/ are in eventjobs, by symbolic links."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith("eventjobs") else f"eventjobs.{name}"


NAMES = {module_name(path) for path in MODULES}
SHIPPED = [path for path in FILES if path.relative_to(ROOT).parts[0] != "tools"]

LINES_MAX = 400
FUNCTION_LINES_MAX = 50
TEST_LINES_MAX = 600
MODULES_AT_TOP_MAX = 14
DRAWER = re.compile(r"utils?|helpers?|common|core|base|types|models?|managers?")
#: Modules that may read the time, besides the clock: they measure, and have no events.
MEASURING = {
    "eventjobs/clock.py",
    "tools/bench/__main__.py",
    "tools/soak/__main__.py",
    "tools/check.py",
}
READS_TIME = re.compile(
    r"\b(datetime\.(now|utcnow|today)|date\.today|time\.(time|monotonic|perf_counter)(_ns)?)$"
)
SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE\s+FROM)\s")


def at(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if isinstance(node, ast.expr | ast.stmt) else ""
    return f"{path.relative_to(ROOT)}{line}"


def allow_none(places: list[str], instead: str) -> None:
    assert not places, f"{instead}:\n" + "\n".join(places)


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            yield path, node


def test_no_file_has_grown_a_second_concept() -> None:
    sources = {path: len(path.read_text().splitlines()) for path in FILES if is_text(path)}
    long = [f"{at(path)}: {lines}" for path, lines in sources.items() if lines > LINES_MAX]
    allow_none(long, f"over {LINES_MAX} lines; find the second thing in it and move that out")


def test_every_function_fits_on_a_screen() -> None:
    long = [
        f"{at(path, node)} {node.name}: {lines}"
        for path, node in nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    allow_none(long, f"over {FUNCTION_LINES_MAX} lines; branch in the parent, compute in a child")


def test_no_module_is_a_drawer_for_leftovers() -> None:
    drawers = [
        at(path) for path in MODULES if any(map(DRAWER.fullmatch, (path.stem, path.parent.name)))
    ]
    allow_none(drawers, "name it after the one thing it holds")


def test_nothing_is_left_to_do() -> None:
    marks = [
        f"{at(path)}:{number} {line.strip()}"
        for path in FILES
        if is_text(path)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"\b(FIXME|TODO|XXX)\b", line)
    ]
    allow_none(marks, "do it, or write down why it is so")


def test_every_module_says_what_it_is_for() -> None:
    silent = [at(path) for path, tree in MODULES.items() if not ast.get_docstring(tree)]
    allow_none(silent, "begin the file with one sentence in a docstring")


def test_only_the_clock_reads_the_time() -> None:
    reads = [
        at(path, node)
        for path, node in nodes()
        if at(path) not in MEASURING
        and (
            (isinstance(node, ast.Attribute) and READS_TIME.search(ast.unparse(node)))
            or (isinstance(node, ast.ImportFrom) and node.module == "time")
        )
    ]
    allow_none(reads, "take a Clock and ask it: now_us(), monotonic_s()")


def test_what_the_service_logs_goes_through_logging() -> None:
    """A program that embeds it configures logging, and not a structlog of ours."""
    lines = [
        at(path, node)
        for path, node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "structlog.get_logger"
        if path != ROOT / "eventjobs/observability/logging.py"
        and path.relative_to(ROOT).parts[0] in ("eventjobs", "projections")
    ]
    allow_none(
        lines,
        "use get_logger of observability.logging; tests have support.log_lines.capture_logs",
    )


def test_sql_is_never_assembled() -> None:
    built = [
        at(path, node)
        for path, node in nodes()
        if any(SQL.search(text) for text in texts(pieces(node)))
    ]
    allow_none(built, "make it a constant and pass values as parameters, lists through json_each")


def pieces(node: ast.AST) -> list[ast.expr]:
    """What a string is assembled from, if *node* assembles one."""
    match node:
        case ast.JoinedStr(values=values):
            return values
        case ast.BinOp(left=left, op=ast.Mod() | ast.Add(), right=right):
            return [left, right]
        case ast.Call(func=ast.Attribute(value=template, attr="format" | "replace")):
            return [template]
        case _:
            return []


def texts(expressions: list[ast.expr]) -> Iterator[str]:
    for each in expressions:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def test_no_modules_import_each_other() -> None:
    """In a circle, the content of a module depends on which of them is imported first."""
    names = {module_name(path): path for path in MODULES}
    imports = {
        name: {each for each in imports_of(MODULES[path], name) if each in names}
        for name, path in names.items()
    }
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"import only from lower floors: {' <- '.join(error.args[1])}")


def imports_of(tree: ast.Module, importer: str) -> Iterator[str]:
    """The modules that *tree* imports when it is imported, and the packages of other names."""
    for node in tree.body:
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                package = module or ""
                if level:
                    package = ".".join(filter(None, [*importer.split(".")[:-level], module]))
                members = {f"{package}.{each.name}" for each in names}
                modules = members & NAMES
                yield from modules
                if len(modules) < len(members):
                    yield package


def test_every_module_has_its_floor() -> None:
    """A module that no layer covers could import anything."""
    layers = " ".join(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"])
    floors = re.findall(r"[\w.]+", layers)
    above_all = {"eventjobs", "eventjobs.__main__"}  # the public names, and the command
    homeless = [
        name
        for name in NAMES - above_all
        if not any(f"{name}.".startswith(f"{floor}.") for floor in floors)
    ]
    allow_none(sorted(homeless), "give it a floor in pyproject.toml")


def test_the_top_of_the_package_is_small() -> None:
    modules = [at(path) for path in (ROOT / "eventjobs").glob("*.py")]
    assert len(modules) <= MODULES_AT_TOP_MAX, f"move one into a package: {modules}"


def test_no_file_of_tests_is_about_two_modules() -> None:
    long = [
        at(path)
        for path in (ROOT / "tests").rglob("*.py")
        if len(path.read_text().splitlines()) > TEST_LINES_MAX
    ]
    allow_none(long, f"over {TEST_LINES_MAX} lines; split it along the modules it tests")


def test_no_test_waits_for_time_to_pass() -> None:
    waits = [
        at(path, node)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and re.search(r"\bsleep$", ast.unparse(node.func))
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value != 0
    ]
    allow_none(waits, "wait for a fact, or move the FakeClock")


def test_the_wheel_ships_what_the_code_reads() -> None:
    """Every file beside the code is package data, and every folder of code is a package."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    data = [path for path in SHIPPED if path.suffix not in (".py", ".pyc")]
    left_out = [
        at(path) for path in data if not any(fnmatch(str(path), f"*/{p}") for p in patterns)
    ]
    allow_none(left_out, "name them under tool.setuptools.package-data")
    folders = {path.parent for path in MODULES if not (path.parent / "__init__.py").is_file()}
    allow_none([at(folder) for folder in folders], "add an __init__.py")


def test_every_module_is_imported_by_its_one_name() -> None:
    second_names = [
        at(path, node)
        for path, node in nodes()
        for module in imported_names(node)
        if module.split(".")[0] in ("projections", "tools", "tests")
    ]
    allow_none(second_names, "import it from eventjobs; what tools/ needs stands in tools/")


def imported_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
        yield node.module
    elif isinstance(node, ast.Import):
        yield from (each.name for each in node.names)


LOCAL = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|(deb|security)\.debian\.org|archive\.ubuntu\.com"
    r"|proxy\.golang\.org|(?<!\w)/(root|farm)/|/home/[a-z]|/work/(main|shared|\.)"
)


def test_nothing_names_one_machine_or_registry() -> None:
    """What is committed holds for every machine and any mirror."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    local = [
        f"{at(path)}: {match[0]}"
        for name in listed.split("\0")
        if is_text(path := ROOT / name)
        for match in LOCAL.finditer(path.read_text())
    ]
    allow_none(local, "take it out: a client's own settings name registries, arguments name paths")


def is_text(path: Path) -> bool:
    return path.is_file() and b"\0" not in path.read_bytes()[:4096]

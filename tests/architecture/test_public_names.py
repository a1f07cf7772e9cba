"""The names that programs import from eventjobs: declared, importable, documented."""

import ast
import re
from importlib import import_module
from pathlib import Path

import eventjobs

ROOT = Path(__file__).parents[2]
BODY = ast.parse((ROOT / "eventjobs/__init__.py").read_text()).body


def imports(body: list[ast.stmt]) -> dict[str, str]:
    """Names that are imported from modules of eventjobs, with the module."""
    return {
        alias.name: node.module
        for node in body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eventjobs.")
        for alias in node.names
        if node.module is not None
    }


def lazy_names() -> dict[str, str]:
    """Names that are imported at their first use, with the module: a dict of the source."""
    dicts: list[dict[str, str]] = [
        ast.literal_eval(node.value)
        for node in BODY
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    [names] = [each for each in dicts if any("." in module for module in each.values())]
    return names


def test_every_public_name_is_imported_at_once_or_at_its_first_use() -> None:
    [checked] = [imports(node.body) for node in BODY if isinstance(node, ast.If)]
    assert lazy_names() == checked, "type checkers see other names than programs get"
    assert sorted(eventjobs.__all__) == sorted([*imports(BODY), *lazy_names()])
    for name, module in {**imports(BODY), **lazy_names()}.items():
        assert getattr(eventjobs, name) is getattr(import_module(module), name)


def test_the_public_names_are_the_documented_ones() -> None:
    page = (ROOT / "docs/embedding.md").read_text()
    [section] = re.findall(r"^## Names to import\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    documented = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted([*documented, "__version__"]) == sorted(eventjobs.__all__)


def test_every_page_imports_public_names_alone() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for line in re.findall(r"^from eventjobs import (.*)$", page.read_text(), re.MULTILINE):
            assert set(line.split(", ")) <= set(eventjobs.__all__), page.name

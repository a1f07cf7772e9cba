"""What README.md and docs/ say is so: examples run as printed, the tables are complete."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.servers import Server, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"```(sh|python)\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


#: What a reader is told to set, to try on one machine what is meant for several.
ENVIRONMENT = {"EVENTJOBS_OUTBOUND_ALLOW": "127.0.0.0/8", "EVENTJOBS_WORKER_TYPES": "shout"}


class Example(NamedTuple):
    """A fenced `sh` or `python` block, and the `text` block right below it: what it prints."""

    page: Path
    line: int
    language: str
    code: str
    expected: str


def examples(page: Path) -> Iterator[Example]:
    text = page.read_text()
    for match in EXAMPLE.finditer(text):
        yield Example(page, text.count("\n", 0, match.start()) + 1, *match.groups())


EXAMPLES = [each for page in PAGES for each in examples(page)]
NAMES = [f"{each.page.relative_to(ROOT)}:{each.line}" for each in EXAMPLES]


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(scope="module")
def server(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each page has a server of its own: what one shows disturbs no other."""
    with serving(tmp_path_factory.mktemp(page.stem), "--demo", **ENVIRONMENT) as started:
        yield started


@pytest.fixture(scope="module")
def folder(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader of a page works: an example finds the files of those above it."""
    return tmp_path_factory.mktemp(f"reader of {page.stem}")


@pytest.mark.parametrize(
    ("page", "example"),
    [(each.page, each) for each in EXAMPLES],
    ids=NAMES,
    indirect=["page"],
    scope="module",
)
def test_an_example_prints_what_its_page_says(
    example: Example, server: Server, folder: Path
) -> None:
    command = ["bash", "-e"] if example.language == "sh" else [sys.executable, "-W", "error", "-"]
    code = example.code.replace("http://127.0.0.1:8080", server.url)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "EVENTJOBS_URL": server.url}
    ran = subprocess.run(
        command,
        input=code,
        text=True,
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    matches = doctest.OutputChecker().check_output(example.expected, ran.stdout, doctest.ELLIPSIS)
    assert matches, f"expected:\n{example.expected}\ngot:\n{ran.stdout}\n{ran.stderr}"


def test_there_are_examples() -> None:
    assert sum(each.page.name == "README.md" for each in EXAMPLES) >= 7


def test_every_route_is_in_the_readme() -> None:
    from eventjobs.http import ROUTES

    unsaid = {
        route.path
        for route in ROUTES
        if route.path not in README and README_SHORT.get(route.path, "?") not in README
    }
    assert not unsaid - {"/", "/dashboard.js", "/dashboard.css"}


#: Said in a row with another one.
README_SHORT = {
    "/v1/jobs/{id}/retry": "`/retry`",
    **{
        f"/v1/work/{{id}}/{{attempt}}/{name}": f"`/{name}`"
        for name in ["progress", "log", "step", "artifact", "breaker", "complete", "fail"]
    },
    "/v1/work/{id}/{attempt}/cancelled": "`/cancelled`",
    "/v1/work/{id}/{attempt}/release": "`/release`",
    "/readyz": "`/readyz`",
    "/openapi.json": "`/openapi.json`",
}


def test_every_command_is_in_the_readme() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "eventjobs", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"^\W*([a-z]+)  +[A-Z]", listed, re.MULTILINE))
    assert {"serve", "submit", "watch"} <= commands
    line = next(each for each in README.splitlines() if each.startswith("`eventjobs serve |"))
    assert commands <= set(re.findall(r"[a-z]+", line))

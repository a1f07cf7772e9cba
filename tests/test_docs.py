"""What the README says is so: its examples are run as printed, its tables are complete."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Server, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```(sh|python)\n(.*?)```\n```text\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("docs"), "--demo") as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize(("language", "code", "expected"), EXAMPLES)
def test_an_example_prints_what_the_readme_says(
    language: str, code: str, expected: str, server: Server, folder: Path
) -> None:
    command = ["bash", "-e"] if language == "sh" else [sys.executable, "-W", "error", "-"]
    code = code.replace("http://127.0.0.1:8080", server.url)
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
    matches = doctest.OutputChecker().check_output(expected, ran.stdout, doctest.ELLIPSIS)
    assert matches, f"expected:\n{expected}\ngot:\n{ran.stdout}\n{ran.stderr}"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 7


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

"""README.md and docs/: their examples run as printed, and the names they mention exist."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import eventjobs
from eventjobs.cli import app
from eventjobs.cli.setting_values import all_settings
from eventjobs.errors import EventjobsError
from eventjobs.http.problem import status_of
from eventjobs.http.routes import ROUTES
from eventjobs.settings import WITHOUT_EFFECT
from tests.conftest import CI
from tests.support.docs_reader import (
    COMMENTS,
    IN_ANOTHER_TERMINAL,
    ROOT,
    Failed,
    Reader,
    blocks,
    on_a_machine_of_its_own,
)

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in BLOCKS if block.language in COMMENTS and block.sketch is None]
#: Languages of blocks that are not run: output, drawings, bodies of HTTP, files of other programs.
SHOWN = {"text", "json", "nginx", "yaml", "ini"}


@pytest.mark.parametrize("page", sorted({block.page for block in RUN}), ids=lambda page: page.name)
def test_what_a_page_prints_is_what_happens(page: Path, tmp_path: Path) -> None:
    """A reader runs every block in turn, with a clone and this page, and nothing else."""

    def read() -> None:
        with Reader(tmp_path) as reader:
            for block in RUN:
                if block.page == page:
                    reader.read(block)

    on_a_machine_of_its_own(read)


LIES = {
    "another output": "```sh\necho one\n```\n```text\ntwo\n```\n",
    "an output that it does not show": "```sh\necho one\n```\n",
    "a warning that it does not show": "```sh\necho one >&2\n```\n",
    "a failure": "```sh\nfalse\ntrue\n```\n",
    "an environment that it does not name": "```sh\neventjobs --help > help.txt\n```\n",
    "a setting of ours": '```sh\necho "${EVENTJOBS_URL?}" > url.txt\n```\n',
    "a service that it does not name": "```sh\ncurl -sf http://127.0.0.1:8080/healthz\n```\n",
    "an error in Python": "```python\nraise SystemExit(3)\n```\n",
    "a service that does not start": (
        f"This, {IN_ANOTHER_TERMINAL}:\n\n```sh\nfalse\n```\n```text\nup\n```\n"
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_page_that_lies_is_noticed(
    lie: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTJOBS_URL", "http://127.0.0.1:1")
    page = tmp_path / "page.md"
    page.write_text(lie)

    def read() -> None:
        with Reader(tmp_path) as reader:
            for block in blocks(page):
                reader.read(block)

    with pytest.raises(Failed, match=r"^page\.md:"):
        on_a_machine_of_its_own(read)


def test_every_block_is_run_or_says_why_not() -> None:
    unknown = [str(block) for block in BLOCKS if block.language not in {*COMMENTS, *SHOWN}]
    assert not unknown, "say what it is, after its ```"
    silent = [str(block) for block in BLOCKS if block.sketch is not None and not block.sketch]
    assert not silent, "say why it is a sketch"


def test_there_are_examples() -> None:
    assert sum(block.page.name == "README.md" for block in RUN) >= 9


def test_what_make_sets_up_has_a_pip_of_its_own() -> None:
    """A reader can install packages beside eventjobs."""
    [ready] = Path(sys.prefix).glob("ready-test-*")
    if not CI and ready.stat().st_mtime < (ROOT / "Makefile").stat().st_mtime:
        pytest.skip("older than the Makefile; the next make sets it up anew")
    assert (Path(sys.prefix) / "bin" / "pip").exists()


def test_every_route_is_in_the_readme() -> None:
    unsaid = {
        route.path
        for route in ROUTES
        if route.path not in README and README_SHORT.get(route.path, "?") not in README
    }
    assert not unsaid - {"/", "/dashboard.js", "/dashboard.css"}


#: Routes that share a row with another one.
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


def root_command() -> TyperGroup:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return root


def test_every_command_is_in_the_readme() -> None:
    line = next(each for each in README.splitlines() if each.startswith("`eventjobs serve |"))
    assert set(root_command().commands) <= set(re.findall(r"[a-z][a-z-]*", line))


# --- names that pages mention


def mentions(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    """The places in pages that match *pattern*."""
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for match in re.finditer(pattern, line):
                yield f"{page.relative_to(ROOT)}:{number}: {match[0]}", match


def assert_none(pattern: str, is_wrong: Callable[[re.Match[str]], bool]) -> None:
    matches = list(mentions(pattern))
    assert matches
    assert not [where for where, match in matches if is_wrong(match)]


def test_settings_that_are_named_exist() -> None:
    settings = {name for each in all_settings(root_command(), {}) for name in each.variables}
    misspelt = {"EVENTJOBS_CONCURENCY"}  # the page about settings shows the warning about it
    settings |= {*WITHOUT_EFFECT, *misspelt}
    assert_none(r"EVENTJOBS_[A-Z0-9_]*[A-Z0-9](?!\*|_\*)", lambda match: match[0] not in settings)


def test_commands_and_their_options_exist() -> None:
    """Each `eventjobs COMMAND ...` in a sentence or a block counts, up to a | or the like."""

    def is_wrong(typed: str) -> bool:
        words = iter(typed.split())
        command: object = root_command()
        while isinstance(command, TyperGroup):
            command = command.commands.get(next(words, ""))
        if not isinstance(command, TyperCommand):
            return True
        options = {name for each in command.params for name in each.opts}
        return any(word not in {*options, "--help"} for word in words if re.match("--?[a-z]", word))

    typed = [match[1] for _, match in mentions(r"`eventjobs ([a-z][^`|<>;&]*)")]
    for block in BLOCKS:
        if block.language == "sh":
            code = block.code.replace("\\\n", " ")
            typed += re.findall(r"(?:^|\(|=\S+ +)eventjobs ([^|<>;&)]*)", code, re.MULTILINE)
    assert len(typed) > 40
    assert not list(filter(is_wrong, typed))


def test_routes_that_are_named_exist() -> None:
    def shape(path: str) -> str:
        return re.sub(r"\{\w+\}|[0-9a-f-]{36}|\$\w+|\bID\b", "{}", path)

    routes = {(each.method, shape(each.path)) for each in ROUTES}
    assert_none(
        r"`(GET|POST|PUT|DELETE) (/v1[^`?\s…]*)",
        lambda match: (
            (match[1], shape(match[2].rstrip("/"))) not in routes
            and not any(
                path.startswith(shape(match[2])) for _, path in routes if match[2][-1] == "/"
            )
        ),
    )


def codes() -> dict[str, set[int]]:
    """Every error code, with the statuses of the responses that have it."""
    statuses: dict[str, set[int]] = {}

    def add(error: type[EventjobsError]) -> None:
        statuses.setdefault(error.code, set()).add(status_of(error)[0])
        for each in error.__subclasses__():
            add(each)

    add(EventjobsError)
    return statuses


def test_codes_that_are_named_with_their_status_exist() -> None:
    statuses = codes()
    assert_none(
        r"\b([45]\d\d) `([a-z_]+)`",
        lambda match: int(match[1]) not in statuses.get(match[2], set()),
    )


def test_what_a_context_is_said_to_have_exists() -> None:
    either = {*dir(eventjobs.Context), *dir(eventjobs.ThreadContext)}
    assert_none(r"\bctx\.(\w+)", lambda match: match[1] not in either)

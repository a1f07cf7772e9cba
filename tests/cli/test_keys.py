"""`eventjobs keys`: create, list, revoke, over HTTP and in the directory of a stopped service."""

import re
from pathlib import Path

import pytest

from tests.support.cli import Tool
from tests.support.servers import serving

KEY = r"ej_key_([0-9A-Za-z]{22})_[0-9A-Za-z]{49}"


def rows(text: str) -> dict[str, list[str]]:
    """The lines of a table, by their first cell."""
    return {first: rest for first, *rest in (line.split("\t") for line in text.splitlines())}


def create(tool: Tool, *arguments: object) -> tuple[str, str, str]:
    """The text and the id of a new key, and what stderr says about it."""
    run = tool.run("keys", "create", *arguments)
    assert run.exit_code == 0, run.stderr
    key = re.fullmatch(KEY + "\n", run.stdout)
    assert key is not None, "nothing but the key is on stdout"
    return run.stdout.strip(), key[1], run.stderr


@pytest.fixture(params=["over HTTP", "in a directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The options for a service that runs, or for the directory of one that does not."""
    return [] if request.param == "over HTTP" else ["--data", str(tmp_path / "data")]


def test_a_key_is_created_listed_and_revoked(tool: Tool, place: list[str]) -> None:
    text, key_id, notes = create(tool, "deploy", *place)
    assert notes.splitlines() == [
        f"{key_id}: owner deploy; jobs:control, jobs:read, jobs:submit",
        "Store it now, it is not shown again. Commands and workers take it from EVENTJOBS_TOKEN.",
    ]
    options = ("--owner", "ann", "--scope", "worker:csv", "--scope", "admin", "--expires", "90d")
    [other] = tool.json("keys", "create", "other", *options, "--json", *place)
    assert re.fullmatch(KEY, other["key"])
    listed = rows(tool.ok("keys", "list", *place))
    user = "jobs:control,jobs:read,jobs:submit"
    assert listed[key_id] == ["deploy", "deploy", user, "-", "-"]
    expires = other["expires_at"][:19] + "Z"
    assert listed[other["key_id"]] == ["other", "ann", "admin,worker:csv", expires, "-"]
    as_json = tool.ok("keys", "list", "--json", *place)
    assert key_id in as_json
    assert text not in as_json
    assert "digest" not in as_json
    for each in (key_id, other["key_id"], key_id):
        assert tool.ok("keys", "revoke", each, *place) == f"{each}  revoked\n"
    assert not {key_id, other["key_id"]} & set(rows(tool.ok("keys", "list", *place)))


@pytest.mark.parametrize(
    ("arguments", "status", "beginning"),
    [
        (["create", "x", "--scope", "all"], None, "error: invalid_input: "),
        (["create", "x", "--owner", "anonymous"], None, "error: invalid_input: "),
        (["create", "x", "--expires", "2020-01-01"], None, "error: invalid_input: "),
        (["create", "x", "--expires", "tomorrow"], 2, "error: usage: "),
        (["create", "x", "--expires", "99999999999d"], 2, "error: usage: "),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tool: Tool, place: list[str], arguments: list[str], status: int | None, beginning: str
) -> None:
    run = tool.run("keys", *arguments, *place)
    # The service refuses what is wrong with 1; here a wrong value is wrong usage.
    assert (run.exit_code, run.stdout) == (status or (2 if place else 1), "")
    assert run.stderr.startswith(beginning)
    assert run.stderr.count("\n") == 1


def test_a_key_that_is_not_there_and_a_directory_without_a_log(tool: Tool, tmp_path: Path) -> None:
    assert tool.run("keys", "revoke", "x").stderr.startswith("error: key_not_found: ")
    missing = tmp_path / "missing"
    for command in (["list"], ["revoke", "x"]):
        run = tool.run("keys", *command, "--data", missing)
        assert run.exit_code == 1
        assert run.stderr == f"error: log_missing: there is no log in {missing}\n"
    assert not missing.exists()


def test_the_first_admin_makes_the_other_keys(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tool = Tool("", tmp_path)
    admin, _, _ = create(tool, "root", "--scope", "admin", "--data", data)
    environment = {"PYTHONPATH": str(folder), "EVENTJOBS_AUTH": "required"}
    with serving(tmp_path, "--app", "shop", **environment) as server:
        tool = Tool(server.url, tmp_path)
        refused = tool.run("keys", "list")
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error: unauthenticated: ")
        assert "EVENTJOBS_TOKEN" in refused.stderr
        locked = tool.run("keys", "list", "--data", data)
        assert locked.exit_code == 1
        assert locked.stderr.startswith("error: data_directory_locked: ")
        assert "over HTTP" in locked.stderr

        tool.environment["EVENTJOBS_TOKEN"] = admin
        text, key_id, _ = create(tool, "ann")
        assert rows(tool.ok("keys", "list"))[key_id][0] == "ann"
        shown = tool.ok("config")
        assert admin not in shown
        assert rows(shown)["token"][:3] == ["********", "-", "EVENTJOBS_TOKEN"]

        tool.environment["EVENTJOBS_TOKEN"] = text
        assert tool.run("submit", "echo", "1", "--wait").exit_code == 0
        assert tool.run("keys", "list").stderr.startswith("error: forbidden: ")
        tool.environment["EVENTJOBS_TOKEN"] = admin
        tool.ok("keys", "revoke", key_id)
        tool.environment["EVENTJOBS_TOKEN"] = text
        assert tool.run("list").stderr.startswith("error: invalid_credential: ")

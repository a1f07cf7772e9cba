"""`eventjobs config`: every setting, its value and its source; and the page about them."""

from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from eventjobs.cli import app
from eventjobs.cli.setting_values import all_settings
from eventjobs.demo.settings import DemoSettings
from eventjobs.settings import WITHOUT_EFFECT, Settings
from tests.support.cli import Tool

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool("http://127.0.0.1:1", tmp_path)


def config(tool: Tool, *arguments: str) -> dict[str, Any]:
    return {each["name"]: each for each in tool.json("config", "--json", *arguments)}


def test_config_tells_where_each_value_came_from(tool: Tool) -> None:
    tool.environment |= {"JOB_TIMEOUT_SECONDS": "600", "EVENTJOBS_PORT": "1"}
    settings = config(tool, "--port", "9000")
    values = {name: (each["value"], each["source"]) for name, each in settings.items()}
    assert values["port"] == (9000, "--port")
    assert values["timeout_s"] == (600, "JOB_TIMEOUT_SECONDS")
    assert values["host"] == ("127.0.0.1", "default")
    assert values["url"] == ("http://127.0.0.1:1", "EVENTJOBS_URL")
    assert settings["timeout_s"]["variables"] == ["EVENTJOBS_TIMEOUT_S", "JOB_TIMEOUT_SECONDS"]
    assert settings["timeout_s"]["default"] is None
    assert {*Settings.model_fields, *DemoSettings.model_fields} < set(settings)
    assert all(each["description"] for each in settings.values())


def test_config_is_lines_that_a_script_can_cut(tool: Tool) -> None:
    lines = tool.ok("config").splitlines()
    name, value, default, source, description = lines[1].split("\t")
    assert (name, value, default, source) == ("host", "127.0.0.1", "127.0.0.1", "default")
    assert description == Settings.model_fields["host"].description


def test_config_says_what_is_set_and_does_nothing(tool: Tool) -> None:
    tool.environment |= {"DATABASE_URL": "mongodb://me:pw@db", "EVENTJOBS_CONCURENCY": "3"}
    run = tool.run("config")
    assert run.exit_code == 0
    assert "note: DATABASE_URL is accepted and changes nothing: there is no database" in run.stderr
    assert "note: EVENTJOBS_CONCURENCY is set, and there is no such setting" in run.stderr
    assert "pw" not in run.output


def test_a_secret_is_masked(tool: Tool) -> None:
    assert config(tool)["openrouter_api_key"]["value"] is None
    tool.environment["OPENROUTER_API_KEY"] = "sk-or-hunter2"
    setting = config(tool)["openrouter_api_key"]
    assert (setting["value"], setting["source"]) == ("********", "OPENROUTER_API_KEY")
    assert "hunter2" not in tool.run("config").output


def test_the_secret_of_tokens_is_masked_and_checked(tool: Tool) -> None:
    tool.environment["EVENTJOBS_JWT_SECRET"] = "hunter2" * 5
    assert config(tool)["jwt_secret"]["value"] == "********"
    tool.environment["EVENTJOBS_JWT_SECRET"] = "hunter2"
    run = tool.run("config")
    assert run.exit_code == 2
    assert "jwt_secret: Value error, a secret has at least 32 bytes" in run.stderr
    assert "hunter2" not in run.output


def test_a_password_in_an_address_is_masked(tool: Tool) -> None:
    tool.environment["EVENTJOBS_URL"] = "http://me:hunter2@127.0.0.1:1"
    assert config(tool)["url"]["value"] == "http://********@127.0.0.1:1"


def test_a_wrong_value_is_told_with_the_variable_it_came_from(tool: Tool) -> None:
    tool.environment["JOB_TIMEOUT_SECONDS"] = "ten"
    run = tool.run("config")
    assert run.exit_code == 2
    assert run.stderr.startswith("error: settings: timeout_s: Input should be a valid number")
    assert "(JOB_TIMEOUT_SECONDS)" in run.stderr


def test_a_wrong_setting_of_the_demo_stops_the_start(tool: Tool) -> None:
    tool.environment["LLM_RETRY_ATTEMPTS"] = "0"
    run = tool.spawn("serve", "--demo")  # else it configures the logging of the tests
    assert run.returncode == 2
    assert run.stderr.startswith("error: settings: llm_retry_attempts: ")


def table() -> str:
    """The settings as docs/settings.md shows them."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    settings = all_settings(root, {})
    lines = []
    group = None
    for each in settings:
        if each.group != group:
            group = each.group
            lines += ["", f"### Of the {group}", "", "| variable | default | |", "|---|---|---|"]
        names = ", ".join(f"`{name}`" for name in each.variables)
        default = "" if each.default in (None, "") else f"`{each.default}`"
        lines.append(f"| {names} | {default} | {each.description.rstrip('.')} |")
    return "\n".join(lines)


def test_the_page_has_every_setting_with_its_default_and_all_its_names() -> None:
    assert table() in DOCS.read_text(), f"put this into {DOCS.name}:\n{table()}"


def test_the_page_says_what_has_no_effect() -> None:
    text = DOCS.read_text()
    for name, why in WITHOUT_EFFECT.items():
        assert f"| `{name}` | {why} |" in text

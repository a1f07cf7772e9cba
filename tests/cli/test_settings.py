"""Settings: what a variable does, which one wins, and that all of it can be looked up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from eventjobs.cli import app
from eventjobs.cli.setting_values import all_settings
from eventjobs.demo.settings import DemoSettings
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler
from eventjobs.settings import WITHOUT_EFFECT, Settings, variable_in_effect
from tests.conftest import Connect, Serve
from tests.support.cli import Tool
from tests.support.clock import SECOND, FakeClock
from tests.support.waiting import job_when

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


@handler("forever")
async def forever(ctx: Context, payload: Any) -> None:
    await asyncio.Event().wait()


@handler("own-limit", timeout_s=7)
async def own_limit(ctx: Context, payload: Any) -> None:
    pass


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool("http://127.0.0.1:1", tmp_path)


def shown(tool: Tool, *arguments: str) -> dict[str, Any]:
    return {each["name"]: each for each in tool.json("config", "--json", *arguments)}


# --- which one wins


def test_a_setting_has_the_name_it_has_elsewhere_and_ours_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().timeout_s is None
    monkeypatch.setenv("JOB_TIMEOUT_SECONDS", "600")
    assert Settings().timeout_s == 600
    assert variable_in_effect(Settings, "timeout_s") == "JOB_TIMEOUT_SECONDS"
    monkeypatch.setenv("EVENTJOBS_TIMEOUT_S", "30")
    assert Settings().timeout_s == 30
    assert variable_in_effect(Settings, "timeout_s") == "EVENTJOBS_TIMEOUT_S"
    assert Settings(timeout_s=1).timeout_s == 1


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_TIMEOUT_SECONDS", "")
    monkeypatch.setenv("EVENTJOBS_PORT", "")
    assert (Settings().timeout_s, Settings().port) == (None, 8080)
    assert variable_in_effect(Settings, "port") is None


# --- eventjobs config


def test_config_tells_where_each_value_came_from(tool: Tool) -> None:
    tool.environment |= {"JOB_TIMEOUT_SECONDS": "600", "EVENTJOBS_PORT": "1"}
    told = shown(tool, "--port", "9000")
    named = {name: (told[name]["value"], told[name]["source"]) for name in told}
    assert named["port"] == (9000, "--port")
    assert named["timeout_s"] == (600, "JOB_TIMEOUT_SECONDS")
    assert named["host"] == ("127.0.0.1", "default")
    assert named["url"] == ("http://127.0.0.1:1", "EVENTJOBS_URL")
    assert told["timeout_s"]["variables"] == ["EVENTJOBS_TIMEOUT_S", "JOB_TIMEOUT_SECONDS"]
    assert told["timeout_s"]["default"] is None
    assert {*Settings.model_fields, *DemoSettings.model_fields} < set(told)
    assert all(each["description"] for each in told.values())


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
    assert shown(tool)["openrouter_api_key"]["value"] is None
    tool.environment["OPENROUTER_API_KEY"] = "sk-or-hunter2"
    told = shown(tool)["openrouter_api_key"]
    assert (told["value"], told["source"]) == ("********", "OPENROUTER_API_KEY")
    assert "hunter2" not in tool.run("config").output


def test_a_password_in_an_address_is_masked(tool: Tool) -> None:
    tool.environment["EVENTJOBS_URL"] = "http://me:hunter2@127.0.0.1:1"
    assert shown(tool)["url"]["value"] == "http://********@127.0.0.1:1"


def test_a_wrong_value_is_told_with_the_variable_it_came_from(tool: Tool) -> None:
    tool.environment["JOB_TIMEOUT_SECONDS"] = "ten"
    run = tool.run("config")
    assert run.exit_code == 2
    assert run.stderr.startswith("error: settings: timeout_s: Input should be a valid number")
    assert "(JOB_TIMEOUT_SECONDS)" in run.stderr


def test_a_wrong_setting_of_the_demo_stops_the_start(tool: Tool) -> None:
    tool.environment["LLM_RETRY_ATTEMPTS"] = "0"
    run = tool.spawn("serve", "--demo")  # it would set up the logging of this process, too
    assert run.returncode == 2
    assert run.stderr.startswith("error: settings: llm_retry_attempts: ")


# --- what they do


async def test_the_limit_of_jobs_that_have_none_of_their_own(serve: Serve) -> None:
    service = await serve(forever, own_limit, concurrency=0, timeout_s=600)
    jobs = [
        await service.submit("forever"),
        await service.submit("own-limit"),
        await service.submit("forever", timeout_s=3.0),
    ]
    assert [job.spec.timeout_s for job in jobs] == [600, 7, 3]


async def test_what_is_not_set_does_not_limit(serve: Serve) -> None:
    service = await serve(forever, concurrency=0)
    assert (await service.submit("forever")).spec.timeout_s is None


async def test_a_job_ends_at_the_limit_of_the_settings(client: Connect, clock: FakeClock) -> None:
    asked = await client(forever, clock=clock, timeout_s=10)
    job_id = (await asked.submit("forever", max_attempts=1))["job_id"]
    await job_when(asked.service, job_id, lambda job: job.status == "running")
    await clock.advance(10)
    job = await asked.service.wait(job_id)
    assert job.finished_us is not None
    assert job.started_us is not None
    assert job.finished_us - job.started_us == 10 * SECOND
    assert (job.status, job.error and job.error["code"]) == ("failed", "timeout")


# --- the page about them


def table() -> str:
    """The settings as docs/settings.md shows them."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    found = all_settings(root, {})
    lines = []
    group = None
    for each in found:
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

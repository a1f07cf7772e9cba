"""`eventjobs submit`: what it sends, waits for and prints."""

import re
from pathlib import Path

import pytest

from tests.support.cli import Tool


def test_a_submission_prints_the_id_and_can_be_waited_for(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", '{"a": 1}').strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", job_id)
    [job] = tool.json("submit", "echo", '{"a": 1}', "--wait", "--json", "--tag", "x", "--tag", "y")
    assert (job["status"], job["result"], job["tags"]) == ("completed", {"a": 1}, ["x", "y"])
    lines = tool.ok("submit", "echo", '"b"', "--wait").splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36}", lines[0])
    assert "status       completed" in lines
    assert 'result       "b"' in lines


@pytest.mark.parametrize("how", [["--wait", "--max-wait", "0.1"], ["--watch"]])
def test_waiting_has_an_end_when_one_is_set_and_the_job_goes_on(
    tool: Tool, tmp_path: Path, how: list[str]
) -> None:
    if "--watch" in how:
        tool.environment["CLIENT_MAX_WAIT_SECONDS"] = "0.1"
    flag = tmp_path / "flag"
    run = tool.run("submit", "until", f'"{flag}"', *how)
    assert (run.exit_code, run.stderr) == (
        4,
        "error: max_wait: not ended within 0.1 s; it goes on\n",
    )
    flag.touch()
    job_id = run.stdout.split()[0]
    assert "100%" in tool.ok("watch", job_id, "--max-wait", "60")


def test_the_exit_code_tells_that_a_job_failed(tool: Tool) -> None:
    run = tool.run("submit", "fail", "--wait")
    assert run.exit_code == 1
    assert "error        broken: it does not work" in run.stdout.splitlines()


def test_a_payload_comes_from_a_file_or_from_stdin(tool: Tool) -> None:
    (tool.folder / "payload.json").write_text('{"from": "file"}')
    [job] = tool.json("submit", "echo", "@payload.json", "--json")
    assert job["payload"] == {"from": "file"}
    [job] = tool.json("submit", "echo", "-", "--json", stdin='{"from": "stdin"}')
    assert job["payload"] == {"from": "stdin"}


def test_one_key_is_one_job(tool: Tool) -> None:
    first, again = (tool.ok("submit", "echo", "1", "--key", "k 1") for _ in range(2))
    assert first == again
    run = tool.run("submit", "echo", "2", "--key", "k 1")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: idempotency_key_reused: ")


def test_a_job_can_be_for_later(tool: Tool) -> None:
    [job] = tool.json("submit", "echo", "--delay", "2h", "--priority", "7", "--json")
    assert (job["status"], job["priority"]) == ("queued", 7)
    assert job["run_at"] > job["created_at"]
    [job] = tool.json("submit", "echo", "--run-at", "2090-01-31T12:00:00+02:00", "--json")
    assert job["run_at"].startswith("2090-01-31T10:00:00")


def test_submitting_and_watching_is_one_command(tool: Tool) -> None:
    snapshots = tool.json("submit", "echo", "5", "--watch", "--json")
    assert snapshots[-1]["result"] == 5
    versions = [job["version"] for job in snapshots]
    assert versions == sorted(set(versions))

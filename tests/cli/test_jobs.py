"""Commands about jobs: list, show, logs, cancel, retry, delete, download."""

from pathlib import Path

from tests.support.cli import Tool


def test_files_go_in_with_a_job_and_come_out_again(tool: Tool) -> None:
    (tool.folder / "in.bin").write_bytes(bytes(range(256)) * 10_000)
    job_id = tool.ok("submit", "copy", "--artifact", "data=in.bin", "--wait").split()[0]
    line = tool.ok("download", job_id, "copy.bin")
    assert line == "copy.bin: 2560000 bytes\n"
    tool.ok("download", job_id, "data", "-o", "again.bin")
    for name in ("copy.bin", "again.bin"):
        assert (tool.folder / name).read_bytes() == (tool.folder / "in.bin").read_bytes()
    run = tool.run("download", job_id, "nothing")
    assert run.exit_code == 1
    assert run.stderr.startswith("error: artifact_not_found: ")


def test_jobs_are_listed_as_values_or_as_json(tool: Tool) -> None:
    ids = [tool.ok("submit", "echo", "--tag", "l", "--wait").split()[0] for _ in range(3)]
    table = [line.split("\t") for line in tool.ok("list", "--tag", "l").splitlines()]
    assert [row[0] for row in table] == ids[::-1]
    assert {tuple(row[2:]) for row in table} == {
        ("echo", "100%", "completed, \ufffd[31mred\ufffd next")
    }
    listed = tool.json("list", "--tag", "l", "--order", "oldest", "--limit", "2", "--json")
    assert [job["job_id"] for job in listed] == ids[:2]
    everything = tool.json("list", "--limit", "1", "--all", "--tag", "l", "--json")
    assert len(everything) == 3
    assert tool.ok("list", "--status", "failed", "--tag", "l") == ""


def test_a_job_is_shown_with_its_history_and_its_facts(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", "7", "--wait").split()[0]
    assert "result       7" in tool.ok("show", job_id).splitlines()
    assert "\x1b" not in tool.ok("show", job_id)
    assert tool.json("show", job_id, "--json")[0]["result"] == 7
    history = tool.ok("show", job_id, "--history").splitlines()
    assert history[0].endswith("submitted as echo")
    assert history[-1].startswith("attempt 1 completed after ")
    facts = tool.json("show", job_id, "--events")
    assert [fact["version"] for fact in facts] == list(range(1, len(facts) + 1))
    assert facts[-1]["type"] == "JobCompleted"


def test_where_a_handler_failed_is_printed(tool: Tool) -> None:
    submitted = tool.run("submit", "until", "7", "--max-attempts", "1", "--wait")
    job_id = submitted.stdout.split()[0]
    at = ["    Traceback (most recent call last):", "    TypeError: "]
    for command in (("show",), ("show", "--history"), ("why",), ("logs",)):
        lines = tool.ok(command[0], job_id, *command[1:]).splitlines()
        first = lines.index(at[0])
        assert "in until" in lines[first + 1], "the first frame is the handler's"
        assert any(line.startswith(at[1]) for line in lines[first:])
    assert "Traceback" not in str(tool.json("logs", job_id, "--json"))
    [explanation] = tool.json("why", job_id, "--json")
    assert explanation["reasons"][0]["trace"].startswith("Traceback (most recent call last):\n")


def test_a_job_goes_on_from_a_step_and_its_log_and_attempts_are_shown(
    tool: Tool, tmp_path: Path
) -> None:
    job_id = tool.run("submit", "stepwise", f'"{tmp_path}/file"', "--wait").stdout.split()[0]
    assert "artifact     error.json" in tool.ok("show", job_id)
    assert "unknown_step" in tool.run("retry", job_id, "--from-step", "z").stderr
    assert "invalid_input" in tool.run("retry", job_id, "--from-step", "a", "--restart").stderr
    (tmp_path / "file").touch()
    assert tool.ok("retry", job_id, "--from-step", "a").startswith(job_id)
    tool.ok("watch", job_id)
    lines = tool.ok("logs", job_id).splitlines()
    assert [line.split(None, 2)[1:] for line in lines] == [
        ["info", 'begun\ufffd[31m  {"n":1}'],
        ["info", 'logged  {"logger":"shop"}'],
    ] * 2
    assert tool.json("logs", job_id, "--json")[0]["data"]["fields"] == {"n": 1}
    assert len(tool.ok("logs", job_id, "--follow").splitlines()) == len(lines)
    one, two = tool.ok("show", job_id, "--receipt").splitlines()
    assert one.startswith("attempt 1  worker-")
    assert one.endswith("failed: no_file")
    assert two.endswith("completed")
    assert tool.json("show", job_id, "--receipt", "--json")[0]["overlaps"] is False
    assert tool.run("show", job_id, "--receipt", "--history").exit_code == 2


def test_what_is_refused_for_one_job_is_done_for_the_others(tool: Tool) -> None:
    ids = [tool.ok("submit", "echo", "--delay", "1h").strip() for _ in range(2)]
    run = tool.run("cancel", ids[0], "x", ids[1], "--reason", "enough")
    assert run.exit_code == 1
    assert run.stdout == "".join(f"{job_id}  cancelled\n" for job_id in ids)
    assert run.stderr.startswith("error: job_not_found: x: ")
    assert "cancelled: enough" in tool.ok("show", ids[0], "--history")
    assert tool.json("retry", ids[0], "--json")[0]["status"] == "queued"
    tool.ok("watch", ids[0])
    assert tool.ok("delete", *ids) == "".join(f"{job_id}  deleted\n" for job_id in ids)
    assert tool.run("show", ids[0]).stderr.startswith("error: job_gone: ")

"""The command line as it is used, beside a real service."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.cli import APP, Tool
from tests.support.servers import Server, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a module of handlers in it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "shop.py").write_text(APP)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--app", "shop", PYTHONPATH=str(folder)) as server:
        yield server


@pytest.fixture
def tool(server: Server, tmp_path: Path) -> Tool:
    return Tool(server.url, tmp_path)


# --- submit


def test_a_submission_prints_the_id_and_can_be_waited_for(tool: Tool) -> None:
    job_id = tool.ok("submit", "echo", '{"a": 1}').strip()
    assert re.fullmatch(r"[0-9a-f-]{36}", job_id)
    [job] = tool.json("submit", "echo", '{"a": 1}', "--wait", "--json", "--tag", "x", "--tag", "y")
    assert (job["status"], job["result"], job["tags"]) == ("completed", {"a": 1}, ["x", "y"])
    told = tool.ok("submit", "echo", '"b"', "--wait").splitlines()
    assert re.fullmatch(r"[0-9a-f-]{36}", told[0])
    assert "status       completed" in told
    assert 'result       "b"' in told


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


def test_files_go_in_with_a_job_and_come_out_again(tool: Tool) -> None:
    (tool.folder / "in.bin").write_bytes(bytes(range(256)) * 10_000)
    job_id = tool.ok("submit", "copy", "--artifact", "data=in.bin", "--wait").split()[0]
    told = tool.ok("download", job_id, "copy.bin")
    assert told == "copy.bin: 2560000 bytes\n"
    tool.ok("download", job_id, "data", "-o", "again.bin")
    for name in ("copy.bin", "again.bin"):
        assert (tool.folder / name).read_bytes() == (tool.folder / "in.bin").read_bytes()
    run = tool.run("download", job_id, "nothing")
    assert run.exit_code == 1
    assert run.stderr.startswith("error: artifact_not_found: ")


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


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["submit", "nothing"], 1, "error: unknown_type: no handler for type 'nothing'"),
        (["submit", "echo", "{"], 2, "error: usage: PAYLOAD is not JSON"),
        (["submit", "echo", "@nowhere"], 2, "error: file: "),
        (["submit", "echo", "--artifact", "nowhere"], 2, "error: file: "),
        (["submit", "echo", "--run-at", "soon"], 2, "error: usage: 'soon' is not a time"),
        (["submit", "echo", "--delay", "soon"], 2, "error: usage: 'soon' is not a delay"),
        (["submit", "echo", "--delay", "1", "--key", "k"], 2, "error: usage: --delay counts"),
        (["submit", "echo", "--priority", "9999"], 1, "error: invalid_input: "),
        (["watch", "x", "--tag", "y"], 2, "error: usage: give ids or filters"),
        (["show", "x"], 1, "error: job_not_found: "),
        (["cancel", "x"], 1, "error: job_not_found: x: "),
        (["list", "--url", "nowhere"], 2, "error: invalid_input: nowhere is not an address"),
        (["list", "--url", "http://127.0.0.1:1"], 3, "error: unreachable: http://127.0.0.1:1 "),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    tool: Tool, arguments: list[str], status: int, told: str
) -> None:
    run = tool.run(*arguments)
    assert (run.exit_code, run.stdout) == (status, "")
    assert run.stderr.startswith(told)
    assert run.stderr.count("\n") == 1


# --- pause, resume


def test_a_type_is_paused_and_resumed(tool: Tool) -> None:
    told = tool.ok("pause", "type", "echo", "--reason", "not now")
    assert re.fullmatch(
        r"type echo is paused since [0-9T:-]+Z: not now; \d+ waiting, \d+ running\n", told
    )
    job_id = tool.ok("submit", "echo", "--queue", "slow", "--concurrency-key", "k").strip()
    [job] = tool.json("list", "--queue", "slow", "--json")
    assert (job["job_id"], job["status"], job["concurrency_key"]) == (job_id, "queued", "k")
    assert tool.ok("why", job_id).startswith("queued  paused_type  type echo is paused by http ")
    [told] = tool.json("why", job_id, "--json")
    assert [each["code"] for each in told["reasons"]] == ["paused_type"]
    [told] = tool.json("resume", "type", "echo", "--json")
    assert told["paused"] is None
    assert tool.ok("resume", "queue", "slow").startswith("queue slow is not paused; ")
    tool.ok("watch", job_id)


def test_what_cannot_be_paused_is_told(tool: Tool) -> None:
    result = tool.run("pause", "type", "nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unknown_type: ")
    assert tool.run("pause", "job", "x").exit_code == 2


# --- lists


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
    [told] = tool.json("why", job_id, "--json")
    assert told["reasons"][0]["trace"].startswith("Traceback (most recent call last):\n")


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


# --- watch


def test_watching_tells_each_stage_in_a_line_and_ends_with_the_jobs(tool: Tool) -> None:
    ids = [tool.ok("submit", type, "--tag", "w").strip() for type in ("echo", "fail")]
    run = tool.run("watch", *ids)
    assert run.exit_code == 1
    assert f"{ids[0]}  echo  100%  completed, \ufffd[31mred\ufffd next" in run.stdout.splitlines()
    assert f"{ids[1]}  fail  0%  failed, broken: it does not work" in run.stdout.splitlines()
    assert run.stdout.splitlines()[-1] == "1 completed, 1 failed"
    assert tool.run("watch", "--tag", "w").stdout == "1 completed, 1 failed\n"
    assert tool.run("watch", "--tag", "w", "--type", "echo").exit_code == 0
    assert tool.run("watch", "--tag", "none").stdout == "no job matches\n"


def test_watching_a_selection_ends_when_all_of_it_has_ended(tool: Tool) -> None:
    flag = tool.folder / "flag"
    job_id = tool.ok("submit", "until", f'"{flag}"', "--tag", "s").strip()
    with tool.start("watch", "--tag", "s", "--json") as watching:
        assert watching.stdout is not None
        first = orjson.loads(watching.stdout.readline())
        assert (first["job_id"], first["status"]) == (job_id, "running")
        flag.touch()
        last = [orjson.loads(line) for line in watching.stdout][-1]
    assert (last["status"], watching.returncode) == ("completed", 0)


def test_watching_for_ever_shows_also_what_comes_later(tool: Tool) -> None:
    before = tool.ok("submit", "echo", "--tag", "f", "--delay", "1h").strip()
    with tool.start("watch", "--tag", "f", "--forever", "--json") as watching:
        assert watching.stdout is not None
        assert orjson.loads(watching.stdout.readline())["job_id"] == before
        later = tool.ok("submit", "echo", "--tag", "f").strip()
        told = next(
            job for line in watching.stdout if (job := orjson.loads(line))["job_id"] == later
        )
        assert told["tags"] == ["f"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130


def test_submitting_and_watching_is_one_command(tool: Tool) -> None:
    snapshots = tool.json("submit", "echo", "5", "--watch", "--json")
    assert snapshots[-1]["result"] == 5
    versions = [job["version"] for job in snapshots]
    assert versions == sorted(set(versions))


def test_interrupting_is_no_error_message(tool: Tool) -> None:
    flag = tool.folder / "flag"
    job_id = tool.ok("submit", "until", f'"{flag}"').strip()
    with tool.start("watch", job_id) as watching:
        assert watching.stdout is not None
        assert job_id in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        assert watching.stderr is not None
        assert watching.stderr.read() == ""
    flag.touch()


def test_a_terminal_gets_live_bars(tool: Tool) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    flag = tool.folder / "flag"
    job_id = tool.ok("submit", "until", f'"{flag}"').strip()
    environment = os.environ | tool.environment | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        tool.command("watch", job_id), env=environment, cwd=tool.folder, stdout=theirs
    )
    os.close(theirs)
    seen = read_until(ours, "waiting")
    assert f"until {job_id[-12:]}" in seen
    assert "25%" in seen
    assert "\x1b[" in seen
    flag.touch()
    assert f"{job_id}  until  100%  completed" in read_until(ours, "completed")
    assert process.wait(10) == 0
    os.close(ours)


def read_until(descriptor: int, text: str) -> str:
    seen = ""
    while text not in seen:
        assert select.select([descriptor], [], [], 20)[0], f"no {text!r} in {seen!r}"
        seen += os.read(descriptor, 65_536).decode()
    return seen


def test_a_reader_that_has_had_enough_ends_the_command(tool: Tool) -> None:
    tool.ok("submit", "echo", "1", "--wait")
    for command in ("list", "list --json", "watch --type echo"):
        line = f"{' '.join(tool.command())} {command} | true; exit ${{PIPESTATUS[0]}}"
        environment = os.environ | tool.environment
        bash = ["timeout", "30", "bash", "-c", line]
        ran = subprocess.run(bash, env=environment, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (141, "")

"""`eventjobs watch`: lines, JSON and bars, until the jobs have ended."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios

import orjson

from tests.support.cli import Tool


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
        job = next(
            job for line in watching.stdout if (job := orjson.loads(line))["job_id"] == later
        )
        assert job["tags"] == ["f"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130


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

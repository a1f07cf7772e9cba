"""`eventjobs serve` as a process: real signals, real crashes, and one line for each error."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import orjson
import pytest

from tests.support.cli import Tool
from tests.support.servers import Server, serving, start


def test_the_address_is_the_only_line_on_stdout(folder: Path, tmp_path: Path) -> None:
    server = start(tmp_path / "data", "--app", "shop:HANDLERS", PYTHONPATH=str(folder))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    with server.process.stdout as out:
        assert out.read() == ""
    assert server.process.wait(20) == 0
    lines = [orjson.loads(line) for line in (tmp_path / "data.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["serving", "stopping", "stopped"]
    assert lines[0]["types"] == ["copy", "echo", "fail", "until"]


def test_handlers_are_found_in_the_folder_one_is_in(folder: Path, tmp_path: Path) -> None:
    tool = Tool("", folder)
    with tool.start("serve", "--app", "shop:echo", "--port", "0", "--data", tmp_path) as serving:
        assert serving.stdout is not None
        tool = Tool(serving.stdout.readline().strip(), tmp_path)
        assert tool.json("submit", "echo", "3", "--wait", "--json")[0]["result"] == 3
        assert tool.run("submit", "fail").exit_code == 1
        serving.terminate()
        assert serving.wait(20) == 0


@pytest.mark.parametrize("format", ["auto", "console"])
def test_the_log_has_the_format_of_the_setting(folder: Path, tmp_path: Path, format: str) -> None:
    with serving(tmp_path, EVENTJOBS_LOG_FORMAT=format):
        pass
    first = (tmp_path / "data.log").read_text().splitlines()[0]
    assert "serving" in first
    assert first.startswith("{") is (format == "auto")


@pytest.mark.parametrize(
    ("arguments", "beginning"),
    [
        (["--host", "0.0.0.0"], "error: invalid_input: "),
        (["--port", "99999"], "error: settings: port: "),
        (["--app", "nowhere"], "error: invalid_input: nowhere: No module named"),
        (["--app", "json:nothing"], "error: invalid_input: json:nothing: "),
        (["--app", "json"], "error: invalid_input: json has no handlers"),
        (["--app", "shop", "--app", "shop:echo"], "error: invalid_input: two handlers for 'echo'"),
    ],
)
def test_a_service_that_cannot_start_says_why_in_a_line(
    folder: Path, arguments: list[str], beginning: str
) -> None:
    run = Tool("", folder).spawn("serve", *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(beginning)
    assert run.stderr.count("\n") == 1
    assert not (folder / "eventjobs-data").exists()


def test_a_second_service_on_a_directory_is_refused(server: Server, tool: Tool) -> None:
    run = tool.spawn("serve", "--data", server.data, "--port", "0")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: data_directory_locked: process ")
    assert run.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_told(tool: Tool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = tool.spawn("serve", "--data", "data", "--port", port)
    assert (run.returncode, run.stdout) == (1, "")
    assert (
        run.stderr
        == f"error: address_in_use: another program listens on port {port} of 127.0.0.1\n"
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("PRAGMA user_version = 99", "database_too_new"),
        ("PRAGMA application_id = 1", "not_an_eventjobs_database"),
    ],
)
def test_a_log_that_is_not_ours_is_left_alone(tool: Tool, change: str, code: str) -> None:
    data = tool.folder / "data"
    data.mkdir()
    with closing(sqlite3.connect(data / "log.db")) as connection:
        connection.executescript(f"CREATE TABLE somebodys (a); {change}")
    before = (data / "log.db").read_bytes()
    if code == "database_too_new":
        with closing(sqlite3.connect(data / "log.db")) as connection:
            connection.execute("PRAGMA application_id = 0x656A6F62")
        before = (data / "log.db").read_bytes()
    run = tool.spawn("serve", "--data", data, "--port", "0")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"error: {code}: ")
    assert run.stderr.count("\n") == 1
    assert (data / "log.db").read_bytes() == before


def test_settings_come_from_the_environment(tool: Tool) -> None:
    tool.environment["EVENTJOBS_PORT"] = "-1"
    run = tool.spawn("serve")
    assert run.returncode == 2
    assert run.stderr.startswith("error: settings: port: ")


def test_a_signal_lets_a_running_job_finish(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--app", "shop", PYTHONPATH=str(folder)) as server:
        job_id, flag = running(server, tmp_path)
        server.process.send_signal(signal.SIGTERM)
        wait_for_line(tmp_path / "data.log", "draining")
        flag.touch()
        assert server.process.wait(20) == 0
    assert facts(server)[-1] == ("JobCompleted", job_id)


def test_a_second_signal_gives_running_jobs_back_at_once(folder: Path, tmp_path: Path) -> None:
    drain = {"EVENTJOBS_DRAIN_S": "3600"}
    with serving(tmp_path, "--app", "shop", PYTHONPATH=str(folder), **drain) as server:
        job_id, _ = running(server, tmp_path)
        server.process.send_signal(signal.SIGTERM)
        wait_for_line(tmp_path / "data.log", "draining")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert facts(server)[-1] == ("AttemptReleased", job_id)


def test_what_is_asked_before_a_shutdown_is_answered_by_it(folder: Path, tmp_path: Path) -> None:
    """The heads are read before the signal, and the bodies come after it. No response is cut off,
    and the log has exactly the jobs that were answered with 202.
    """
    request = (
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    )
    bodies = [b'{"type":"echo","payload":%d}' % number for number in range(30)]
    with serving(tmp_path, "--app", "shop", PYTHONPATH=str(folder)) as server:
        address = "127.0.0.1", int(server.url.rpartition(":")[2])
        connections = [socket.create_connection(address) for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            connection.sendall(request % len(body))
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        wait_for_line(tmp_path / "data.log", "stopping")
        answered = []
        for connection, body in zip(connections, bodies, strict=True):
            with connection, connection.makefile("rb") as answer:
                connection.sendall(body)
                head, _, rest = answer.read().partition(b"\r\n\r\n")
            assert b"\r\nConnection: close\r\n" in head
            if head.startswith(b"HTTP/1.1 202 "):
                answered.append(orjson.loads(rest)["job_id"])
            else:  # the service stopped before it read the body
                assert orjson.loads(rest)["code"] == "not_ready"
        assert server.process.wait(20) == 0
    submitted = [job_id for type, job_id in facts(server) if type == "JobSubmitted"]
    assert sorted(submitted) == sorted(answered)


def test_watching_goes_on_through_a_crash_of_the_service(folder: Path, tmp_path: Path) -> None:
    """The service is killed, and started again on the same port."""
    server = start(tmp_path / "data", "--app", "shop", PYTHONPATH=str(folder))
    job_id, flag = running(server, tmp_path)
    with Tool(server.url, tmp_path).start("watch", job_id, "--json") as watching:
        assert watching.stdout is not None
        assert orjson.loads(watching.stdout.readline())["attempt"] == 1
        server.process.kill()
        server.process.wait(10)
        assert server.process.stdout is not None
        server.process.stdout.close()
        port = int(server.url.rpartition(":")[2])
        with serving(tmp_path, "--app", "shop", "--port", str(port), PYTHONPATH=str(folder)):
            flag.touch()
            snapshots = [orjson.loads(line) for line in watching.stdout]
        assert watching.wait(10) == 0
        assert watching.stderr is not None
        assert "the connection is lost; trying again in" in watching.stderr.read()
    assert (snapshots[-1]["status"], snapshots[-1]["attempt"]) == ("completed", 2)


def running(server: Server, folder: Path) -> tuple[str, Path]:
    """The id of a job that runs until a file exists, and the path of the file."""
    tool, flag = Tool(server.url, folder), folder / "flag"
    job_id = tool.ok("submit", "until", f'"{flag}"').strip()
    with tool.start("watch", job_id, "--json") as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            if orjson.loads(line)["stage"] == "waiting":
                break
        watching.kill()
    return job_id, flag


def wait_for_line(log: Path, event: str) -> None:
    with subprocess.Popen(["tail", "-n", "+1", "-f", log], stdout=subprocess.PIPE) as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            if orjson.loads(line)["event"] == event:
                break
        tail.kill()


def facts(server: Server) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(server.data / "log.db")) as connection:
        return connection.execute("SELECT type, job_id FROM events ORDER BY position").fetchall()


def test_a_service_listens_on_several_addresses(tmp_path: Path) -> None:
    with serving(tmp_path, "--listen", "127.0.0.1:0,[::1]:0") as server:
        assert server.process.stdout is not None
        urls = [server.url, *(server.process.stdout.readline().strip() for _ in range(2))]
        assert [url.rpartition(":")[0] for url in urls] == [
            "http://127.0.0.1",
            "http://127.0.0.1",
            "http://[::1]",
        ]
        for url in urls:
            with urlopen(f"{url}/healthz") as answer:
                assert answer.status == 200


@pytest.mark.parametrize(
    ("listen", "error"),
    [
        ("0.0.0.0:0", "error: invalid_input: without authentication"),
        ("5328", "error: settings: listen: Value error, '5328' is no address like"),
        ("127.0.0.1:99999", "error: settings: listen: Value error, '127.0.0.1:99999' is no"),
    ],
)
def test_every_address_has_to_be_one_and_loopback(tool: Tool, listen: str, error: str) -> None:
    run = tool.spawn("serve", "--data", "data", "--port", "0", "--listen", listen)
    assert (run.returncode != 0, run.stdout) == (True, "")
    assert run.stderr.startswith(error)


def test_a_further_port_that_is_taken_is_named(tool: Tool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = tool.spawn("serve", "--data", "data", "--port", "0", "--listen", f"127.0.0.1:{port}")
    assert (run.returncode, run.stdout) == (1, "")
    assert "another program listens on port" in run.stderr
    assert f"port {port} of 127.0.0.1" in run.stderr


def test_a_shutdown_has_the_lines_of_a_dialect(folder: Path, tmp_path: Path) -> None:
    environment = {"EVENTJOBS_DIALECT_LOGS": "004", "PYTHONPATH": str(folder)}
    with serving(tmp_path, "--app", "shop:HANDLERS", **environment) as server:
        environment = {**os.environ, **environment, "EVENTJOBS_URL": server.url}
        command = [sys.executable, "-m", "eventjobs", "worker", "--app", "shop:HANDLERS"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, env=environment, stdout=pipe, stderr=pipe, text=True
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline()  # its name
            worker.send_signal(signal.SIGINT)
            assert worker.stderr is not None
            of_worker = worker.stderr.read()
    of_service = (tmp_path / "data.log").read_text()
    for log, number in ((of_service, 15), (of_worker, 2)):
        events = [orjson.loads(line)["event"] for line in log.splitlines()]
        assert [each for each in events if each[0].isupper()] == [
            f"Received signal {number}. Shutting down gracefully...",
            "Worker shutdown complete.",
        ]

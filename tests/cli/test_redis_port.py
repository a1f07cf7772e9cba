"""The port for redis-cli of `eventjobs serve`."""

import signal
import socket
from pathlib import Path

import orjson

from tests.support.cli import Tool
from tests.support.servers import start


def test_serve_opens_the_port_and_closes_it(tmp_path: Path) -> None:
    server = start(tmp_path / "data", EVENTJOBS_REDIS_PORT="0")
    lines = [orjson.loads(line) for line in (tmp_path / "data.log").read_text().splitlines()]
    [line] = [each for each in lines if each["event"] == "serving redis-cli"]
    with socket.create_connection((line["host"], line["port"]), timeout=20) as connection:
        connection.sendall(b"PING\r\nLLEN data_jobs\r\n")
        with connection.makefile("rb") as replies:
            assert [replies.readline() for _ in range(2)] == [b"+PONG\r\n", b":0\r\n"]
            server.process.send_signal(signal.SIGTERM)
            assert replies.read() == b""
    assert server.process.wait(20) == 0
    assert server.process.stdout is not None
    server.process.stdout.close()


def test_a_taken_port_stops_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        tool = Tool("", tmp_path)
        tool.environment["EVENTJOBS_REDIS_PORT"] = str(port)
        run = tool.spawn("serve", "--port", "0", "--data", tmp_path / "data")
    assert run.returncode == 1
    assert f"another program listens on port {port} of 127.0.0.1" in run.stderr

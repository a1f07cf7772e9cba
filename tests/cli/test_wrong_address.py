"""What answers is not eventjobs, or refuses for good: one line says so, and the exit code."""

import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventjobs.client import ApiError, ConnectionLost, Unreachable, WrongAddress
from eventjobs.worker.outage import LOG_INTERVAL_S, Outage
from tests.support.cli import Tool
from tests.support.clock import FakeClock
from tests.support.log_lines import capture_logs

CERTIFICATE = Path(__file__).parent / "localhost.pem"
ID = "00000000-0000-4000-8000-000000000000"
APP = """
from eventjobs import handler

@handler("shout")
def shout(context, payload):
    return payload.upper()
"""


class Answer(NamedTuple):
    status: int
    kind: str = "text/html"
    body: bytes = b"<html>welcome</html>"
    headers: dict[str, str] = {}  # noqa: RUF012


@contextmanager
def answering(answer: Answer, *, tls: bool = False) -> Iterator[str]:
    """The address of a server that always says the same."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer.status)
            told = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
            for name, value in {**told, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # that a handshake fails is what is wanted

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            return (
                context.wrap_socket(connection, server_side=True) if tls else connection,
                address,
            )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with running(Server(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def speaking_otherwise() -> Iterator[str]:
    """The address of a server that does not speak HTTP."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"-ERR unknown command\r\n")

    with running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


JSON = "application/json"
#: What is at the address, the exit code of a command, and what its line has.
THERE = {
    "a page": (Answer(200), 3, "wrong_address: what answers at {url}, with text/html, is not"),
    "another service's JSON": (
        Answer(200, JSON, b'{"hello": 1}'),
        3,
        "wrong_address: what answers",
    ),
    "a list": (Answer(200, JSON, b"[1]"), 3, "wrong_address: what answers at {url}, with "),
    "nothing": (Answer(200, JSON, b""), 3, "wrong_address: what answers at {url}"),
    "a redirect": (
        Answer(308, headers={"Location": "https://jobs.example/"}),
        3,
        "wrong_address: {url} sends us to https://jobs.example/",
    ),
    "no such page": (Answer(404), 1, "http_404: {url} answered 404 Not Found, not as eventjobs"),
    "another version": (Answer(426), 1, "http_426: {url} answered 426 Upgrade Required"),
    "a login": (Answer(401), 1, "http_401: {url} answered 401 Unauthorized, not as eventjobs"),
    "a proxy without us": (Answer(502), 1, "http_502: {url} answered 502 Bad Gateway"),
    "a problem that is a list": (Answer(404, JSON, b"[]"), 1, "http_404: "),
}
COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["submit", "noop"],
    ["show", ID],
    ["why", ID],
    ["logs", ID],
    ["types"],
    ["schedules"],
    ["webhooks", "list"],
]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    (tmp_path / "shop.py").write_text(APP)
    return Tool("", tmp_path)


def line_of(tool: Tool, url: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the one line of a command that fails."""
    tool.environment["EVENTJOBS_URL"] = url
    run = tool.run(*arguments)
    assert run.stdout == ""
    assert run.stderr.startswith("error: "), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    return run.exit_code, run.stderr.removeprefix("error: ")


@pytest.mark.parametrize("there", THERE)
def test_a_command_says_that_it_is_not_eventjobs(tool: Tool, there: str) -> None:
    answer, status, told = THERE[there]
    with answering(answer) as url:
        for command in COMMANDS:
            code, line = line_of(tool, url, *command)
            assert (code, line.startswith(told.format(url=url))) == (status, True), line
        code, line = line_of(tool, url, "watch", ID)
        assert code in {1, 3}


def test_a_command_says_which_way_it_is_to_be_spoken_to(tool: Tool) -> None:
    with answering(Answer(200), tls=True) as url:
        code, line = line_of(tool, url, "list")
        other = url.replace("http:", "https:")
        assert (code, line.startswith(f"wrong_address: {url} speaks TLS")) == (3, True), line
        assert other in line
        code, line = line_of(tool, other, "list")  # nobody vouches for its certificate
        assert (code, line.startswith(f"wrong_address: {other} cannot be")) == (3, True), line
    with answering(Answer(200)) as url:
        other = url.replace("http:", "https:")
        code, line = line_of(tool, other, "list")
        assert (code, line.startswith(f"wrong_address: {other} cannot be")) == (3, True), line
    with speaking_otherwise() as url:
        code, line = line_of(tool, url, "list")
        assert (code, "does not speak HTTP" in line) == (3, True), line


def test_without_a_service_the_line_says_what_to_do(tool: Tool) -> None:
    code, line = line_of(tool, "http://127.0.0.1:1", "list")
    assert code == 3
    assert line.startswith("unreachable: http://127.0.0.1:1 cannot be reached: Connection refused")
    assert "`eventjobs serve`" in line
    assert "EVENTJOBS_URL" in line


# --- a worker


def refusal(status: int, code: str, detail: str) -> Answer:
    told = {"status": status, "code": code, "detail": detail}
    return Answer(status, "application/problem+json", json.dumps(told).encode())


REFUSALS = {
    "a page": (Answer(200), "wrong_address: what answers at {url}, with text/html, is not"),
    "another host": (
        refusal(421, "misdirected", "Loopback names only."),
        "misdirected: {url} refuses this worker: Loopback names only.",
    ),
    "no such type": (
        refusal(422, "unknown_type", "no handler for type 'shout'"),
        "unknown_type: {url} refuses this worker: no handler for type 'shout'; serve its handler",
    ),
}


@pytest.mark.parametrize("there", REFUSALS)
def test_a_worker_that_is_refused_says_so_and_ends_with_2(tool: Tool, there: str) -> None:
    answer, told = REFUSALS[there]
    with answering(answer) as url:
        ran = tool.spawn("worker", "--app", "shop", "--url", url, "--log-level", "error")
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"error: {told.format(url=url)}"), ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


def problem(status: int, code: str) -> ApiError:
    return ApiError(status, code, "so it is")


async def is_final(error: ApiError | Unreachable, *, known: bool) -> bool:
    trouble = Outage(FakeClock())
    final = trouble.is_final(error, confirmed=known)
    assert trouble.refused.done() is final
    return final


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 421, 422, 426, 501])
async def test_what_asking_again_does_not_mend_is_final(status: int) -> None:
    for known in (False, True):
        assert await is_final(problem(status, "some_code"), known=known)
    assert await is_final(problem(status, f"http_{status}"), known=False)
    # Something in front of a service that was there before: it may come back.
    assert not await is_final(problem(status, f"http_{status}"), known=True)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507])
async def test_what_passes_is_waited_for(status: int) -> None:
    for known in (False, True):
        assert not await is_final(problem(status, "overloaded"), known=known)
        assert not await is_final(problem(status, f"http_{status}"), known=known)


async def test_a_service_that_is_not_there_is_waited_for() -> None:
    for known in (False, True):
        assert not await is_final(Unreachable("no"), known=known)
        assert not await is_final(ConnectionLost("no"), known=known)
    assert await is_final(WrongAddress("no"), known=False)
    assert not await is_final(WrongAddress("no"), known=True)


async def test_trouble_is_told_once_and_then_seldom() -> None:
    clock = FakeClock()
    trouble = Outage(clock)
    with capture_logs() as lines:
        for _ in range(4 * round(LOG_INTERVAL_S)):
            trouble.log(Unreachable("no"))
            await clock.advance(0.5)
        trouble.end()
        trouble.log(Unreachable("no"))
    told = [line["for_s"] for line in lines if line["log_level"] == "warning"]
    assert told == [0, LOG_INTERVAL_S, 0]

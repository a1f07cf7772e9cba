"""One fresh server with all dialects, for the snippets of all texts."""

import json
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.seed_texts import snippets
from tests.support.servers import Server, start

#: The ports of the texts. Where one of them is taken, the snippets get the server's own address.
PORTS = (8000, 5328)
ENDED = {"completed", "failed", "cancelled"}
SALES = "day,region,amount\n" + "".join(
    f"2025-01-{day:02},{region},{day * 10 + len(region)}\n"
    for day in range(1, 29)
    for region in ("north", "south", "east")
)


def printed_settings() -> dict[str, str]:
    """The variables that the texts print, with their values."""
    blocks = snippets()
    text = blocks["002.1"].code + blocks["004.8"].code
    return dict(re.findall(r"^([A-Z_]+)=(\S+)", text, re.MULTILINE))


def are_free(ports: tuple[int, ...]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def start_in(folder: Path, settings: Mapping[str, str], *arguments: str, port: int = 0) -> Server:
    """A server with all dialects that works in *folder* and reaches no other machine."""
    (folder / "dev-samples").mkdir(exist_ok=True)
    (folder / "dev-samples" / "sales_demo.csv").write_text(SALES)
    (folder / "jobs").mkdir(exist_ok=True)
    environment = {
        "LLM_BASE_URL": "http://127.0.0.1:1/",
        "EVENTJOBS_CORS_ORIGINS": "http://app.example",
        "EVENTJOBS_DIALECT_LOGS": "all",
        "EVENTJOBS_DRAIN_S": "0",
        "EVENTJOBS_REDIS_PORT": "0",
        **settings,
    }
    under = ("env", "-C", str(folder))
    return start(folder / "data", "--demo", *arguments, port=port, under=under, **environment)


def stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert server.process.stdout is not None
    server.process.stdout.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("seeds")
    settings = printed_settings()
    server = None
    if are_free(PORTS):
        with suppress(AssertionError):  # another program has taken a port in between
            server = start_in(folder, settings, "--listen", f"127.0.0.1:{PORTS[1]}", port=PORTS[0])
    server = server or start_in(folder, settings)
    yield server
    stop(server)


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Message


def call(method: str, url: str, body: Any = None, headers: Mapping[str, str] = {}) -> Answer:
    """The response to a request, with its JSON."""
    data = None if body is None else json.dumps(body).encode()
    sent = {**headers, "Content-Type": "application/json"} if data else dict(headers)
    try:
        with urlopen(Request(url, data, sent, method=method), timeout=30) as reply:
            return Answer(reply.status, json.loads(reply.read() or "null"), reply.headers)
    except HTTPError as error:
        with error:
            return Answer(error.code, json.loads(error.read() or "null"), error.headers)


def submit(server: Server, type: str, payload: Any = None, **fields: Any) -> str:
    job = {"type": type, "payload": payload, **fields}
    return str(call("POST", f"{server.url}/v1/jobs", job).body["job_id"])


def wait(server: Server, job_id: str) -> Any:
    """The job, once it has ended."""
    url = f"{server.url}/v1/jobs/{job_id}"
    tag = ""
    while True:
        reply = call("GET", url, headers={"Prefer": "wait=10", "If-None-Match": tag})
        if reply.status == 200 and reply.body["status"] in ENDED:
            return reply.body
        tag = reply.headers["ETag"]

"""The memory of a stream that waits, in bytes of the process."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.servers import Server, serving

CLIENTS = 2_000
#: Twice what was measured, and half of what a connection of aiohttp takes.
EACH_BYTES_MAX = 5_000
REQUEST = b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    limits = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CLIENTS:
        pytest.skip("the system permits too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CLIENTS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def open_streams(server: Server, count: int, opened: ExitStack) -> None:
    """Open streams until *opened* closes, each once the one before has begun."""
    address = urlsplit(server.url)
    for _ in range(count):
        connection = socket.create_connection((address.hostname, address.port), 20)
        opened.enter_context(closing(connection))
        connection.sendall(REQUEST)
        seen = b""
        while b"retry: 2000" not in seen:
            part = connection.recv(4096)
            assert part, f"no stream, but {seen!r}"
            seen += part


def resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.usefixtures("_many_descriptors")
def test_a_stream_that_waits_takes_few_kilobytes(tmp_path: Path) -> None:
    with serving(tmp_path) as server, ExitStack() as opened:
        open_streams(server, CLIENTS // 4, opened)  # what is allocated once
        before = resident_bytes(server)
        open_streams(server, CLIENTS, opened)
        each = (resident_bytes(server) - before) / CLIENTS
        assert each < EACH_BYTES_MAX

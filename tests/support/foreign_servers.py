"""Servers on loopback that are not eventjobs."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

CERTIFICATE = Path(__file__).parent / "localhost.pem"


class Reply(NamedTuple):
    status: int
    kind: str = "text/html"
    body: bytes = b"<html>welcome</html>"
    headers: dict[str, str] = {}  # noqa: RUF012


@contextmanager
def answering(
    response: Reply, *, tls: bool = False, seen: list[str | None] | None = None
) -> Iterator[str]:
    """The address of a server that always sends *response*. The Authorization of each request is
    added to *seen*.
    """

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            if seen is not None:
                seen.append(self.headers.get("Authorization"))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(response.status)
            headers = {"Content-Type": response.kind, "Content-Length": str(len(response.body))}
            for name, value in {**headers, **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a failed handshake is part of the test

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
def not_speaking_http() -> Iterator[str]:
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

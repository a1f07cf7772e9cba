"""The service behind a real nginx with TLS, configured as in docs/deploy.md."""

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession, TCPConnector

from tests.conftest import CI, Connect
from tests.support.docs_reader import ROOT, blocks
from tests.support.foreign_servers import CERTIFICATE
from tests.support.http_client import Client
from tests.support.http_jobs import HANDLERS
from tests.support.keys import bearer, make_key
from tests.support.log_lines import capture_logs

NAME = "jobs.example.com"
#: The address of the client, which differs from that of nginx.
CLIENT = "127.0.0.2"
SURROUNDINGS = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


@pytest.fixture(scope="session")
def nginx() -> str:
    """The path of nginx. Without it a test is skipped: its package starts a server on port 80
    where systemd runs, so that `make programs` does not install it there.
    """
    if path := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        return path
    if CI and not Path("/run/systemd/system").exists():
        pytest.fail("nginx is missing")
    pytest.skip("nginx is missing; apt-get install nginx-light")


@contextmanager
def proxying(nginx: str, folder: Path, service_port: int) -> Iterator[int]:
    """nginx in front of the service, with the configuration of the page; yields its port."""
    [server] = [each.code for each in blocks(ROOT / "docs/deploy.md") if each.language == "nginx"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for old, new in (
            (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
            (r"/etc/ssl/jobs\.example\.com\.pem", str(CERTIFICATE)),
            (r"http://127\.0\.0\.1:8080", f"http://127.0.0.1:{service_port}"),
        ):
            server, count = re.subn(old, new, server)
            assert count
        configuration = folder / "nginx.conf"
        user = "" if os.getuid() else "user root;"  # its files are in the folder of the test
        configuration.write_text(SURROUNDINGS.format(folder=folder, user=user, server=server))
        # nginx takes the open socket, so clients need not wait until it listens.
        process = subprocess.Popen(
            [nginx, "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(configuration)],
            pass_fds=[listener.fileno()],
            env=os.environ | {"NGINX": f"{listener.fileno()};"},
        )
    try:
        yield port
    finally:
        process.terminate()
        assert process.wait(20) == 0, (folder / "error.log").read_text()


@asynccontextmanager
async def behind_nginx(nginx: str, folder: Path, api: Client) -> AsyncIterator[Client]:
    """A client of the same service through nginx, under the name of the service."""
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    trusted.check_hostname = False  # the certificate is for localhost
    connector = TCPConnector(ssl=trusted, local_addr=(CLIENT, 0))
    with proxying(nginx, folder, api.listening.port) as port:
        async with ClientSession(
            f"https://127.0.0.1:{port}",
            connector=connector,
            headers={"Host": f"{NAME}:{port}"},
            auto_decompress=False,
        ) as session:
            yield Client(api.service, api.listening, session)


async def test_the_service_behind_nginx(client: Connect, nginx: str, tmp_path: Path) -> None:
    api = await client(*HANDLERS, auth="required", allowed_hosts=NAME, trusted_proxies="127.0.0.1")
    key = await make_key(api.service)
    async with behind_nginx(nginx, tmp_path, api) as proxied:
        assert (await proxied.get("/readyz")).json["ready"]
        assert (await proxied.get("/v1/jobs")).code == "unauthenticated"

        # the address of the client, which cannot name another one
        spoofed = {
            "X-Forwarded-For": "192.0.2.9",
            "X-Forwarded-Host": "evil.example",
            "Forwarded": "for=192.0.2.9;host=evil.example;proto=http",
        }
        with capture_logs() as lines:
            reply = await proxied("GET", "/v1/jobs", headers={**bearer(key), **spoofed})
        assert (reply.status, [each["client"] for each in lines]) == (200, [CLIENT])
        other = await proxied("GET", "/healthz", headers={"Host": "evil.example"})
        assert other.code == "misdirected"

        # a browser: the cookie is for TLS, and pages of other sites are refused
        origin = f"https://{proxied.session.headers['Host']}"
        login = await proxied(
            "POST", "/v1/session", {"credential": key}, headers={"Origin": origin}
        )
        cookie = login.headers["Set-Cookie"]
        assert cookie.startswith("__Host-eventjobs=")
        assert "Secure" in cookie
        browser = {"Cookie": cookie.partition(";")[0]}
        cross = {**browser, "Origin": "https://evil.example"}
        assert (await proxied("POST", "/v1/jobs", {"type": "wait"}, headers=cross)).status == 403
        same = {**browser, "Origin": origin}
        job = (await proxied("POST", "/v1/jobs", {"type": "wait"}, headers=same)).json

        # a stream is live, and an upload is larger than the default of nginx
        path = f"/v1/jobs/{job['job_id']}/events"
        live = {**browser, "Accept": "text/event-stream"}
        async with proxied.session.get(path, headers=live) as stream:
            while b"AttemptStarted" not in await stream.content.readline():
                pass
            await proxied("POST", f"/v1/jobs/{job['job_id']}/cancel", headers=bearer(key))
            while b"JobCancelled" not in await stream.content.readline():
                pass
        file = BytesIO(bytes(3_000_000))
        upload = await proxied("POST", "/v1/artifacts", data=file, headers=bearer(key))
        assert (upload.status, orjson.loads(upload.body)["size"]) == (201, 3_000_000)

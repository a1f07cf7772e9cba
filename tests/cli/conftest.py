"""A service for the commands, and the command line to call it with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import APP, Tool
from tests.support.servers import Server, serving


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of handlers, shop.py."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "shop.py").write_text(APP)
    return folder


@pytest.fixture(scope="package")
def server(folder: Path) -> Iterator[Server]:
    allow = {"EVENTJOBS_OUTBOUND_ALLOW": "127.0.0.0/8"}
    with serving(folder, "--app", "shop", PYTHONPATH=str(folder), **allow) as server:
        yield server


@pytest.fixture
def tool(server: Server, tmp_path: Path) -> Tool:
    return Tool(server.url, tmp_path)

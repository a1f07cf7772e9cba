"""The service that waits for jobs takes little memory besides its libraries."""

import resource
import subprocess
import sys
from pathlib import Path

from tests.support.servers import serving

#: What the service cannot do without.
LIBRARIES = "aiohttp.web, aiosqlite, orjson, pydantic_settings, structlog, typer, uvloop"
#: Of the service alone: 17 MiB, half of which is its code.
MAX_BYTES = 21 * 2**20


def test_the_service_at_rest_takes_little_besides_its_libraries(tmp_path: Path) -> None:
    """A library that only some features need is imported with these."""
    with serving(tmp_path, "--demo") as server:
        pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    count = f"import {LIBRARIES}; print(open('/proc/self/statm').read().split()[1])"
    command = [sys.executable, "-c", count]
    baseline = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert (pages - int(baseline)) * resource.getpagesize() < MAX_BYTES

"""What the kernel knows of a process."""

import os
import re
from contextlib import suppress
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """The resident memory."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None, "the process is a zombie"
    return int(match[1]) * 1024


def open_sockets(pid: int) -> int:
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(descriptor).startswith("socket:")  # noqa: PTH115  not a path
    return count

"""Servers without the wait: imports everything once, then forks `eventjobs serve` on demand.

    python -m eventjobs.tools.soak.crash_nursery ARGUMENT ...

Each line on stdin starts one with the given arguments, which is exactly the command but for the
start of the interpreter. It must be dead before the next line. On stdout, besides what the server
prints: `born PID`, then `left COMMAND` for each process that it left behind, and `dead EXITCODE`.
When stdin ends, the server is killed.
"""

import ctypes
import gc
import os
import select
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from eventjobs import cli, settings
from eventjobs.cli import service_process as serving
from eventjobs.observability import logging as logs

from . import crash_handlers

with suppress(ImportError):
    import_module("uvloop")

#: What the command imports only when it is run.
WARM = (logs, serving, settings, crash_handlers)
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> None:
    gc.collect()
    gc.freeze()  # else each child's first collection copies every page
    # What a server leaves behind becomes a child of this process.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    while os.read(0, 1):
        pid = os.fork()
        if pid == 0:
            sys.argv = ["eventjobs", "serve", *arguments]
            cli.main()  # exits
        tell(f"born {pid}")
        process = os.pidfd_open(pid)
        watched = select.poll()
        watched.register(process, select.POLLIN)
        watched.register(0, select.POLLHUP)
        watched.poll()
        os.close(process)
        status = ended(pid)
        for command in left_behind():
            tell(f"left {command}")
        tell(f"dead {os.waitstatus_to_exitcode(status)}")


def ended(pid: int) -> int:
    """The status with which it died; it is killed unless it is dead already."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if done == 0:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return status


def left_behind() -> list[str]:
    """The commands of the processes that outlived the server; they are killed."""
    found = []
    for child in map(int, Path("/proc/thread-self/children").read_text().split()):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            found.append(repr(command[:200])[2:-1])
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return found


def tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])

"""Starts `eventjobs serve` fast: imports everything once, then forks on demand.

    python -m eventjobs.tools.soak.kills.nursery ARGUMENT ...

Each byte on stdin forks a service with the arguments. It is the command, without the start of the
interpreter. It must be dead before the next byte. Its stdout is this one's; besides, `born PID` is
printed at the start, and at the end `left COMMAND` for each process that it left behind, and
`dead EXITCODE`. When stdin ends, the service is killed.
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

from eventjobs import cli

#: Modules that `eventjobs serve` imports late.
LATE = (
    "encodings.idna",
    "eventjobs.cli.service_process",
    "eventjobs.cli.setting_values",
    "eventjobs.demo.settings",
    "eventjobs.tools.soak.kills.handlers",
    "eventjobs.tools.soak.leases.handlers",
)

for name in LATE:
    import_module(name)
with suppress(ImportError):
    import_module("uvloop")
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> None:
    gc.collect()
    gc.freeze()  # else the first collection in each child copies every page
    # Processes that a service leaves behind become children of this process.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    while os.read(0, 1):
        pid = os.fork()
        if pid == 0:
            sys.argv = ["eventjobs", "serve", *arguments]
            cli.main()  # exits
        print_line(f"born {pid}")
        process = os.pidfd_open(pid)
        watched = select.poll()
        watched.register(process, select.POLLIN)
        watched.register(0, select.POLLHUP)
        watched.poll()
        os.close(process)
        status = reap(pid)
        for command in left_behind():
            print_line(f"left {command}")
        print_line(f"dead {os.waitstatus_to_exitcode(status)}")


def reap(pid: int) -> int:
    """The wait status of *pid*, which is killed unless it is dead already."""
    dead, status = os.waitpid(pid, os.WNOHANG)
    if dead == 0:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    return status


def left_behind() -> list[str]:
    """The commands of the processes that outlived the service; they are killed."""
    commands = []
    for child in map(int, Path("/proc/thread-self/children").read_text().split()):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
            commands.append(repr(command[:200])[2:-1])
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return commands


def print_line(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])

"""Starts the interpreter of a handler process, and kills it with all that it has started."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# The service's sys.path, so that the process can import the same modules. SIGTERM is ignored until
# the first job: a supervisor's SIGTERM to all processes would else be a failed attempt.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
sys.path[:] = sys.argv[2:]
from eventjobs.execution.processes.child import main
main(int(sys.argv[1]))
"""


async def start_interpreter(
    stdin: socket.socket, directory: Path, environment: Mapping[str, str]
) -> Process:
    """Start child.main in a session of its own, with the socket *stdin*. Raises OSError.

    Call it in the main thread: the kernel signals the end of the thread that started a process as
    the end of its parent, and only the main thread lasts as long as the service.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        str(os.getpid()),
        *map(str, sys.path),
        stdin=stdin.fileno(),
        stdout=2,
        cwd=directory,
        env=environment,
        start_new_session=True,
    )


def kill_group(pid: int) -> None:
    """Kill the process *pid* and all processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main_module() -> dict[str, Any]:
    """The source of __main__ as multiprocessing.spawn.prepare takes it."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return {"init_main_from_name": main.__spec__.name, "sys_argv": sys.argv}
    return {"init_main_from_path": str(Path(str(main.__file__)).absolute()), "sys_argv": sys.argv}

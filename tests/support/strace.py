"""strace, which makes system calls fail, or ends a process at one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def failing(strace: str, path: Path, *faults: str) -> list[str]:
    """The command of strace that injects *faults* into calls on the files of a database."""
    calls = ",".join(sorted({fault.split(":")[0] for fault in faults}))
    files = [f"--trace-path={path}{suffix}" for suffix in ("", "-wal", "-journal")]
    injected = [f"--inject={fault}" for fault in faults]
    quiet = ["--quiet=attach,exit,path-resolution", f"--output={path.with_name('strace')}"]
    return [strace, "--follow-forks", *quiet, f"--trace={calls}", *files, *injected]


@contextmanager
def attach(command: list[str], pid: int) -> Iterator[None]:
    command = [each for each in command if not each.startswith("--quiet")]  # its message is awaited
    with subprocess.Popen(
        [*command, f"--attach={pid}"], stderr=subprocess.PIPE, text=True
    ) as tracer:
        try:
            assert tracer.stderr is not None
            while "attached" not in (line := tracer.stderr.readline()):
                assert line, "strace could not attach"
            yield
        finally:
            tracer.terminate()
            try:
                tracer.wait(2)
            except subprocess.TimeoutExpired:
                # strace can miss the end of a thread that its SIGKILL ended, and wait forever.
                tracer.kill()

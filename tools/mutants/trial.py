"""A copy of the tree with one change in it, and the tests that may find the change."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Self

from . import fork_server
from .changes import Change

#: A trial may take so many times as long as its tests usually do, and so many seconds more.
PATIENCE = 5
PATIENCE_S = 60
#: Seconds after which a test counts as failed: many a change makes tests wait for ever.
TEST_TIMEOUT_S = 15
#: Nothing of these is committed, or runs.
LEFT_OUT = shutil.ignore_patterns(
    ".venv", ".git", "build", "dist", "*.egg-info", ".hypothesis", ".*_cache", "eventjobs-data"
)
#: Without these plugins, which no single test needs, pytest starts faster.
PLUGINS = [f"-pno:{name}" for name in ("xdist", "cacheprovider", "pytest_cov", "schemathesis")]


class Outcome(StrEnum):
    """What became of a change."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    #: Its function has other free variables than before.
    NOT_TRIED = "not tried"


OUTCOMES = {
    fork_server.FAILED: Outcome.KILLED,
    fork_server.TIMED_OUT: Outcome.TIMED_OUT,
    fork_server.PASSED: Outcome.SURVIVED,
    fork_server.BROKEN: Outcome.NOT_TRIED,
}


class Tree:
    """A copy of the tree, in which one change at a time is tried."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._folder = folder.resolve()
        self._changed: Change | None = None
        shutil.copytree(root, folder, symlinks=True, ignore=LEFT_OUT)
        self._start()

    def _start(self) -> None:
        """Start pytest in the tree, and wait until it has collected all tests."""
        self._socket, theirs = socket.socketpair()
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder),
            # A changed module must leave no code behind.
            "PYTHONDONTWRITEBYTECODE": "1",
            fork_server.SOCKET: str(theirs.fileno()),
        }
        command = [sys.executable, "-m", "pytest", "-q", f"-p{fork_server.__name__}", *PLUGINS]
        with theirs, (self._folder / "trial.log").open("w") as output:
            self._process = subprocess.Popen(
                [*command, f"--timeout={TEST_TIMEOUT_S}"],
                cwd=self._folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        self._lines = self._socket.makefile()
        if self._lines.readline() != "ready\n":
            raise RuntimeError(f"the tests are not collected: see {self._folder / 'trial.log'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait()

    @contextmanager
    def apply(self, change: Change) -> Iterator[None]:
        """In the block the tests run with *change*, also in processes that they start."""
        path = self._folder / change.path
        source = path.read_bytes()
        times = path.stat()
        path.write_bytes(change.apply(source))
        # Python compares the seconds of a file with those of its compiled code.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 10**10))
        self._changed = change
        try:
            yield
        finally:
            self._changed = None
            path.write_bytes(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def run(self, tests: Mapping[str, float]) -> Outcome:
        """Run *tests*, which have the seconds that each usually takes, until one fails."""
        change = self._changed
        request = {
            "tests": list(tests),
            "timeout_s": PATIENCE * sum(tests.values()) + PATIENCE_S,
            "path": None if change is None else str(self._folder / change.path),
            "line": None if change is None else change.line,
        }
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        if not (line := self._lines.readline()):
            raise RuntimeError(f"the tests cannot be run: see {self._folder / 'trial.log'}")
        return OUTCOMES[line.strip()]

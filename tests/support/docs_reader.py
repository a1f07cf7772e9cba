"""Runs the examples of a page as a reader would: in order, in a fresh checkout.

- A `sh` block is run in one shell, block after block; `set -e` ends it at the first failure.
- A `python` block whose first line names it (`# jobs.py`) is saved for the blocks below; every
  other one is run in the same shell, and so is a `js` block.
- A block whose paragraph has IN_ANOTHER_TERMINAL gets a shell of its own, and is left running.
- The `text` block right below is its output on stdout, and then on stderr; without one there must
  be no output.
- A block that begins with SKETCH, and a reason, is not run.
"""

import ctypes
import doctest
import fcntl
import os
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

ROOT = Path(__file__).parents[2]
IN_ANOTHER_TERMINAL = "in a terminal of its own"
SKETCH = "A sketch: "
PORT = 8080
#: A block ends within this time; usually it takes a second.
LIMIT_S = 60

CHECKOUT = ["Makefile", "pyproject.toml", "README.md", "docs", "eventjobs", "projections", "tools"]
COMMENTS = {"sh": "# ", "python": "# ", "js": "// "}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?:#|//).*?\b(\w+\.(?:py|mjs))\b")

T = TypeVar("T")


class Block(NamedTuple):
    """A fenced block of *page*; *paragraph* stands above, *expected* is the output below."""

    page: Path
    line: int
    language: str
    code: str
    paragraph: str
    expected: str | None

    @property
    def sketch(self) -> str | None:
        """The reason why it is not run; None when it is."""
        begin = COMMENTS.get(self.language, "") + SKETCH
        first = self.code.partition("\n")[0]
        return first.removeprefix(begin) if first.startswith(begin) else None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page; an output is a part of the block above it."""
    text = page.read_text()
    blocks: list[Block] = []
    end = 0
    for fence in _FENCE.finditer(text):
        between = text[end : fence.start()]
        language, code = fence.groups()
        if language == "text" and blocks and between == "\n" and blocks[-1].expected is None:
            blocks[-1] = blocks[-1]._replace(expected=code)
        else:
            line = text.count("\n", 0, fence.start()) + 1
            paragraph = " ".join(between.strip().rpartition("\n\n")[2].split())
            blocks.append(Block(page, line, language, code, paragraph, None))
        end = fence.end()
    return blocks


class Failed(AssertionError):
    """An example has another result than the page shows."""


class Reader:
    """Reads one page in *folder*; to be used as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._checkout = folder / "eventjobs"
        self._notes = folder / "notes"
        self._notes.mkdir()
        _check_out(self._checkout)
        self._count = 0
        self._others: list[subprocess.Popen[bytes]] = []
        self._shell = self._start(["bash", "--noprofile", "--norc"], stderr=subprocess.DEVNULL)
        self._type("set -e")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        """Press Ctrl-C in every terminal; the last one opened is the first."""
        try:
            for each in reversed(self._others):
                with suppress(ProcessLookupError):
                    os.killpg(each.pid, signal.SIGINT)
                each.wait(LIMIT_S)
        finally:
            for each in (*self._others, self._shell):
                _end(each)

    def read(self, block: Block) -> None:
        """Run *block*. Raises Failed."""
        self._count += 1
        out, err = (self._notes / f"{self._count}.{name}" for name in ("out", "err"))
        script = self._save(block)
        if IN_ANOTHER_TERMINAL in block.paragraph:
            self._leave_running(block, script, err)
            return
        to = f"> {shlex.quote(str(out))} 2> {shlex.quote(str(err))} < /dev/null"
        self._type(f"{{ {script}\n}} {to}")
        self._type("echo done")
        done = self._until(self._shell, lambda output: output == b"done\n")
        if not done:
            raise Failed(f"{block} {self._how(self._shell)}:\n{out.read_text()}{err.read_text()}")
        _compare(block, out.read_text() + err.read_text())

    def _save(self, block: Block) -> str:
        """Save a block to a file; the command that runs it."""
        if block.language == "sh":
            file = self._notes / f"{self._count}.sh"
            file.write_text(block.code)
            return f". {shlex.quote(str(file))}"
        named = _NAME.match(block.code)
        name = named[1] if named else "example.py" if block.language == "python" else "example.mjs"
        (self._checkout / name).write_text(block.code)
        if named and block.language == "python":
            return ":"
        return f"python -W error {name}" if block.language == "python" else f"node {name}"

    def _leave_running(self, block: Block, script: str, err: Path) -> None:
        with err.open("wb") as errors:
            process = self._start(["bash", "-c", script], stderr=errors)
        self._others.append(process)
        expected = block.expected
        if expected is None:
            return
        last = b""

        def is_expected(output: bytes) -> bool:
            nonlocal last
            last = output
            return _matches(expected, output.decode())

        if not self._until(process, is_expected):
            raise Failed(f"{block} {self._how(process)}:\n{last.decode()}{err.read_text()}")

    def _start(self, command: list[str], stderr: int | BinaryIO) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=self._checkout,
            env=login(),
            start_new_session=True,
        )

    def _type(self, line: str) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(line.encode() + b"\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            pass  # the shell has ended, which _until notices

    @staticmethod
    def _until(process: subprocess.Popen[bytes], is_expected: Callable[[bytes], bool]) -> bool:
        """Whether *process* prints the expected output before it ends, and in time."""
        assert process.stdout is not None
        output, limit_s = b"", time.monotonic() + LIMIT_S
        while not is_expected(output):
            left_s = max(0.0, limit_s - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], left_s)
            more = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not more:
                return False
            output += more
        return True

    @staticmethod
    def _how(process: subprocess.Popen[bytes]) -> str:
        try:
            return f"failed with exit code {process.wait(1)}"
        except subprocess.TimeoutExpired:
            return f"has not ended within {LIMIT_S} s"


def login() -> dict[str, str]:
    """The environment of a reader's shell, without that of the tests."""
    ours = str(Path(sys.prefix) / "bin")
    path = [each for each in os.environ["PATH"].split(os.pathsep) if each != ours]
    return {"PATH": os.pathsep.join(path), "HOME": os.environ.get("HOME", "/")}


def _check_out(folder: Path) -> None:
    """Make a clone in *folder*, with the .venv of the tests as that of `make run`."""
    venv = folder / ".venv"
    venv.mkdir(parents=True)
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    for each in Path(sys.prefix).iterdir():
        (venv / each.name).symlink_to(each)
    python = ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(python, env=login(), capture_output=True, text=True, check=True).stdout
    ready = venv / f"ready-run-{version.strip()}"
    ready.unlink(missing_ok=True)
    ready.touch()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for each in (process.stdin, process.stdout):
        if each is not None:
            with suppress(BrokenPipeError):  # the shell has not read all input
                each.close()


def _matches(expected: str, output: str) -> bool:
    return doctest.OutputChecker().check_output(expected, output, doctest.ELLIPSIS)


def _compare(block: Block, out: str) -> None:
    """Raises Failed when the output is not the one below the block."""
    if not _matches(block.expected or "", out):
        raise Failed(f"{block} shows:\n{block.expected or ''}\nand the output is:\n{out}")


# --- a machine of its own


def on_a_machine_of_its_own(do: Callable[[], T]) -> T:
    """Call *do* where port 8080 is free and nothing but loopback can be reached.

    Children of a thread are in its network namespace. Without the right to make one (root, and
    a kernel that allows it) pages take turns on port 8080.
    """
    with ThreadPoolExecutor(1) as thread:
        if thread.submit(_alone).result():
            return thread.submit(do).result()
        with _turn():
            return thread.submit(do).result()


def _alone() -> bool:
    """Put this thread into a network namespace of its own, with a loopback; False if it cannot."""
    new_network = 0x40000000
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None or unshare(new_network) != 0:
        return False
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, get_flags, request))
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", flags | up))
    return True


@contextmanager
def _turn() -> Iterator[None]:
    with (Path(tempfile.gettempdir()) / "eventjobs-pages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", PORT))
            except OSError as error:
                raise Failed(f"port {PORT} is taken, and no network can be made") from error
        yield

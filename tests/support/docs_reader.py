"""A reader of a page: does what its blocks say, in a fresh checkout, with nothing else prepared.

- A `sh` block is run in one shell, block after block; `set -e` ends it at the first failure.
- A `python` block whose first line names it (`# jobs.py`) is saved for the blocks below; every
  other one is run in the same shell, and so is a `js` block.
- A block whose paragraph says IN_ANOTHER_TERMINAL gets a shell of its own, and is left running.
- The `text` block right below is what it prints on stdout, and then on stderr; without one, nothing
  is printed.
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
#: A block has done what it does within this time; usually it is a second.
LIMIT_S = 60

CHECKOUT = ["Makefile", "pyproject.toml", "README.md", "docs", "eventjobs", "projections", "tools"]
COMMENTS = {"sh": "# ", "python": "# ", "js": "// "}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"(?:#|//).*?\b(\w+\.(?:py|mjs))\b")

T = TypeVar("T")


class Block(NamedTuple):
    """A fenced block of *page*; *says* is the paragraph above, *expected* the output below."""

    page: Path
    line: int
    language: str
    code: str
    says: str
    expected: str | None

    @property
    def sketch(self) -> str | None:
        """Why it is not run."""
        begin = COMMENTS.get(self.language, "") + SKETCH
        first = self.code.partition("\n")[0]
        return first.removeprefix(begin) if first.startswith(begin) else None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All of a page; a `text` block that is the output of the one above is a part of that one."""
    text = page.read_text()
    found: list[Block] = []
    end = 0
    for fence in _FENCE.finditer(text):
        between = text[end : fence.start()]
        language, code = fence.groups()
        if language == "text" and found and between == "\n" and found[-1].expected is None:
            found[-1] = found[-1]._replace(expected=code)
        else:
            line = text.count("\n", 0, fence.start()) + 1
            says = " ".join(between.strip().rpartition("\n\n")[2].split())
            found.append(Block(page, line, language, code, says, None))
        end = fence.end()
    return found


class Failed(AssertionError):
    """A page does not do what it says."""


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
        self._tell("set -e")

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
        """Do what *block* says. Raises Failed."""
        self._count += 1
        out, err = (self._notes / f"{self._count}.{name}" for name in ("out", "err"))
        script = self._saved(block)
        if IN_ANOTHER_TERMINAL in block.says:
            self._leave_running(block, script, err)
            return
        to = f"> {shlex.quote(str(out))} 2> {shlex.quote(str(err))} < /dev/null"
        self._tell(f"{{ {script}\n}} {to}")
        self._tell("echo done")
        done = self._until(self._shell, lambda told: told == b"done\n")
        if not done:
            raise Failed(f"{block} {self._how(self._shell)}:\n{out.read_text()}{err.read_text()}")
        _compare(block, out.read_text() + err.read_text())

    def _saved(self, block: Block) -> str:
        """The command that runs a block."""
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
        said = b""

        def is_there(told: bytes) -> bool:
            nonlocal said
            said = told
            return _matches(expected, told.decode())

        if not self._until(process, is_there):
            raise Failed(f"{block} {self._how(process)}:\n{said.decode()}{err.read_text()}")

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

    def _tell(self, line: str) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(line.encode() + b"\n")
            self._shell.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and that is noticed where its answer is awaited

    @staticmethod
    def _until(process: subprocess.Popen[bytes], is_there: Callable[[bytes], bool]) -> bool:
        """Whether *process* comes to print that; not when it ends, or takes too long."""
        assert process.stdout is not None
        told, limit_s = b"", time.monotonic() + LIMIT_S
        while not is_there(told):
            left_s = max(0.0, limit_s - time.monotonic())
            ready, _, _ = select.select([process.stdout], [], [], left_s)
            more = os.read(process.stdout.fileno(), 65536) if ready else b""
            if not more:
                return False
            told += more
        return True

    @staticmethod
    def _how(process: subprocess.Popen[bytes]) -> str:
        try:
            return f"failed with exit code {process.wait(1)}"
        except subprocess.TimeoutExpired:
            return f"has not come to its end in {LIMIT_S} s"


def login() -> dict[str, str]:
    """What a reader's shell has in its environment: nothing of ours."""
    ours = str(Path(sys.prefix) / "bin")
    path = [each for each in os.environ["PATH"].split(os.pathsep) if each != ours]
    return {"PATH": os.pathsep.join(path), "HOME": os.environ.get("HOME", "/")}


def _check_out(folder: Path) -> None:
    """What a clone has, and what `make run` adds to it: .venv, which is the one of these tests."""
    venv = folder / ".venv"
    venv.mkdir(parents=True)
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    for each in Path(sys.prefix).iterdir():
        (venv / each.name).symlink_to(each)
    says = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = ["python3", "-c", says]
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
            with suppress(BrokenPipeError):  # what the shell did not read any more
                each.close()


def _matches(expected: str, told: str) -> bool:
    return doctest.OutputChecker().check_output(expected, told, doctest.ELLIPSIS)


def _compare(block: Block, out: str) -> None:
    """What comes is what is printed below the block, and nothing where nothing is."""
    if not _matches(block.expected or "", out):
        raise Failed(f"{block} says:\n{block.expected or ''}\nand this comes:\n{out}")


# --- a machine of its own


def on_a_machine_of_its_own(do: Callable[[], T]) -> T:
    """What *do* comes to, where port 8080 is free and nothing but loopback can be reached.

    Children of a thread are in its network namespace. Where none can be made (it takes root, and
    a kernel that lets it) pages take turns on the one port 8080 that there is.
    """
    with ThreadPoolExecutor(1) as thread:
        if thread.submit(_alone).result():
            return thread.submit(do).result()
        with _turn():
            return thread.submit(do).result()


def _alone() -> bool:
    """Put this thread into a network of its own, with a loopback; whether that was possible."""
    new_network = 0x40000000
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None or unshare(new_network) != 0:
        return False
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, get_flags, asked))
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

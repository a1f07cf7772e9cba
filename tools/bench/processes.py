"""The processes of the benchmark: each measures alone and prints its results as JSON lines."""

import asyncio
import gc
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import orjson

from eventjobs import gc_tuning
from eventjobs.clock import SystemClock

BENCH = "eventjobs.tools.bench"
ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 120.0

Answer = dict[str, Any]
#: Functions of child processes by name. One that returns None answers commands by itself.
Children = Mapping[str, Callable[..., Answer | None]]
Result = TypeVar("Result")

#: The monotonic clock, which is the same in every process on Linux.
now_s = SystemClock().monotonic_s


@dataclass(frozen=True)
class Size:
    """How much is measured; by time where possible, because a machine may be slow for minutes."""

    runs: int = 5
    seconds: float = 1.0
    in_flight: int = 1_000
    writers: tuple[int, ...] = (64, 256, 1000, 2000)
    plain: int = 40_000
    rebuilt: int = 60_000
    wrk_s: int = 2
    connections: int = 64
    checks: int = 20_000
    lines: int = 10_000
    watchers: int = 1_000
    paced: int = 150
    bursts: int = 100
    idle: int = 10_000
    idle_runs: int = 2
    broadcasts: int = 5
    started: int = 1_000_000
    workers: tuple[int, ...] = (1, 4)
    worked: int = 5_000
    claims: int = 1_000
    beside: tuple[int, ...] = (100_000, 1_000_000)
    waiters: int = 1_500


class Sample(NamedTuple):
    """A rate a second, and the CPU time of each in its process, over all threads."""

    rate: float
    cpu_us: float


class Stopwatch:
    """Measures the time and the CPU time of this process inside `with`."""

    def __enter__(self) -> Self:
        self._began_s, self._cpu_s = now_s(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = now_s() - self._began_s
        self._cpu_s = time.process_time() - self._cpu_s

    def sample(self, count: int) -> Answer:
        return {"rate": count / self.seconds, "cpu_us": self._cpu_s / count * 1e6}


class Died(Exception):
    """A process of the benchmark ended, or did not answer in time; the cause is on its stderr."""


class Child:
    """`python -m MODULE --child NAME`: takes commands as JSON lines until it is closed."""

    def __init__(
        self, name: str, parameters: Answer, module: str = "eventjobs.tools.bench"
    ) -> None:
        self._name = name
        command = [sys.executable, "-m", module, "--child", name]
        self._process = subprocess.Popen(
            [*command, orjson.dumps(parameters).decode()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout

    def answer(self, timeout_s: float = ANSWER_S) -> Answer:
        """Its next answer. Raises Died."""
        watchdog = Timer(timeout_s, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self._stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise Died(f"{self._name} ended with {self._process.wait()}")
        answer: Answer = orjson.loads(line)
        return answer

    def send(self, command: str, **parameters: Any) -> None:
        self._stdin.write(orjson.dumps({"command": command, **parameters}) + b"\n")
        self._stdin.flush()

    def call(self, command: str, **parameters: Any) -> Answer:
        """Send a command; its answer. Raises Died."""
        self.send(command, **parameters)
        return self.answer()

    def cpu_s(self) -> float:
        """The CPU seconds it has used."""
        return float(self.call("cpu")["seconds"])

    def close(self) -> None:
        """Kill it: its data is temporary."""
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Bench:
    """One run of the benchmark: its size, its directory, and its servers."""

    def __init__(self, size: Size, children: Children, *, alone: bool = True) -> None:
        self.size = size
        self._children = children
        self._alone = alone
        self._open = ExitStack()
        self._servers: dict[str, tuple[Child, Answer]] = {}

    def __enter__(self) -> Self:
        self.directory = Path(self._open.enter_context(TemporaryDirectory(prefix="bench-")))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def once(self, name: str, *, timeout_s: float = ANSWER_S, **parameters: Any) -> Answer:
        """The result of one measurement in a process of its own. Raises Died."""
        parameters = {"directory": str(self.directory), **parameters}
        if not self._alone:
            answer = self._children[name](**parameters)
            assert answer is not None
            return answer
        with Child(name, parameters) as child:
            return child.answer(timeout_s)

    def server(self, name: str, **parameters: Any) -> tuple[Child, Answer]:
        """A server that runs until the end, shared by equal parameters; and its address."""
        key = orjson.dumps([name, parameters]).decode()
        if key not in self._servers:
            child = self._open.enter_context(Child(name, parameters))
            self._servers[key] = child, child.answer()
        return self._servers[key]

    def service(self, concurrency: int) -> tuple[Child, Answer]:
        """The service over HTTP, shared."""
        return self.server("serve_http", **self.parameters(concurrency))

    def parameters(self, concurrency: int) -> Answer:
        return {"directory": str(self.directory), "concurrency": concurrency}

    @contextmanager
    def fresh(self, name: str, **parameters: Any) -> Iterator[tuple[Child, Answer]]:
        """A new server, and its address."""
        if not self._alone:
            yield self.server(name, **parameters)
            return
        with Child(name, parameters) as child:
            yield child, child.answer()

    def data(self) -> str:
        """A new empty directory."""
        return self._open.enter_context(TemporaryDirectory(dir=self.directory))


def say(text: str) -> None:
    """Print progress to stderr, on a terminal in one line."""
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        print(file=sys.stderr)


# --- inside a child


def act(children: Children, arguments: list[str]) -> None:
    """The main function of a child: call the function it names, and print the result."""
    _, name, parameters = arguments
    result = children[name](**orjson.loads(parameters))
    if result is not None:
        print_answer(result)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run *work* on the event loop and with the garbage collector settings of the service."""
    import uvloop

    before = gc.get_threshold()
    gc_tuning.raise_gc_thresholds()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        gc.set_threshold(*before)


def print_answer(answer: Answer) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


async def obey(ready: Answer, commands: Mapping[str, Callable[..., Awaitable[Answer]]]) -> None:
    """Print *ready*, then run commands from stdin until it ends."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print_answer(ready)
    while line := await lines.readline():
        parameters = orjson.loads(line)
        print_answer(await commands[parameters.pop("command")](**parameters))


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the most that is allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def cpu() -> Answer:
    """The CPU seconds of this process, for Child.cpu_s."""
    return {"seconds": time.process_time()}


async def rss() -> Answer:
    """The resident memory of this process."""
    gc.collect()
    return {"bytes": _resident_bytes()}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

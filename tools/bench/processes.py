"""The processes of the benchmark: each one measures alone, answers in JSON lines, and is reaped."""

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

from eventjobs import gc_tuning as garbage
from eventjobs.clock import SystemClock

BENCH = "eventjobs.tools.bench"
ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 120.0

Answer = dict[str, Any]
#: What a child process can do, by name. It answers once, or by itself as often as it is asked.
Children = Mapping[str, Callable[..., Answer | None]]
Result = TypeVar("Result")

#: On Linux the same clock in every process.
now_s = SystemClock().monotonic_s


@dataclass(frozen=True)
class Size:
    """How much of everything is measured; by time where that can be, for slow minutes' sake."""

    runs: int = 5
    seconds: float = 1.0
    in_flight: int = 1_000
    writers: tuple[int, ...] = (64, 256, 1000, 2000)
    plain: int = 40_000
    rebuilt: int = 60_000
    wrk_s: int = 2
    connections: int = 64
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


class Sample(NamedTuple):
    """How many a second, and what each cost its process, all threads together."""

    rate: float
    cpu_us: float


class Stopwatch:
    """What passes inside `with`: time, and what this process takes of the processors."""

    def __enter__(self) -> Self:
        self._began_s, self._cpu_s = now_s(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = now_s() - self._began_s
        self._cpu_s = time.process_time() - self._cpu_s

    def sample(self, count: int) -> Answer:
        return {"rate": count / self.seconds, "cpu_us": self._cpu_s / count * 1e6}


class Died(Exception):
    """A process of the benchmark ended, or did not answer in time; its stderr says why."""


class Child:
    """`python -m MODULE --child NAME`: told in JSON lines what to do, until it is closed."""

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

    def hear(self, timeout_s: float = ANSWER_S) -> Answer:
        """Its next answer. Raises Died."""
        too_late = Timer(timeout_s, self._process.kill)
        too_late.daemon = True
        too_late.start()
        try:
            line = self._stdout.readline()
        finally:
            too_late.cancel()
        if not line:
            raise Died(f"{self._name} ended with {self._process.wait()}")
        answer: Answer = orjson.loads(line)
        return answer

    def tell(self, do: str, **more: Any) -> None:
        self._stdin.write(orjson.dumps({"do": do, **more}) + b"\n")
        self._stdin.flush()

    def ask(self, do: str, **more: Any) -> Answer:
        self.tell(do, **more)
        return self.hear()

    def cpu_s(self) -> float:
        return float(self.ask("cpu")["seconds"])

    def close(self) -> None:
        """End it at once: nothing that it holds is kept."""
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
    """One run of the benchmark: its size, its directory, and the servers that are up."""

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

    def once(self, name: str, **parameters: Any) -> Answer:
        """What one measurement in a process of its own answers."""
        parameters = {"directory": str(self.directory), **parameters}
        if not self._alone:
            answer = self._children[name](**parameters)
            assert answer is not None
            return answer
        with Child(name, parameters) as child:
            return child.hear()

    def server(self, name: str, **parameters: Any) -> tuple[Child, Answer]:
        """A process that stays until the end, shared by who wants the same; and how to reach it."""
        key = orjson.dumps([name, parameters]).decode()
        if key not in self._servers:
            child = self._open.enter_context(Child(name, parameters))
            self._servers[key] = child, child.hear()
        return self._servers[key]

    def service(self, concurrency: int) -> tuple[Child, Answer]:
        """The service over HTTP, shared."""
        return self.server("served", **self.parameters(concurrency))

    def parameters(self, concurrency: int) -> Answer:
        return {"directory": str(self.directory), "concurrency": concurrency}

    @contextmanager
    def fresh(self, name: str, **parameters: Any) -> Iterator[tuple[Child, Answer]]:
        """A server that nobody has used yet; and how to reach it."""
        if not self._alone:
            yield self.server(name, **parameters)
            return
        with Child(name, parameters) as child:
            yield child, child.hear()

    def data(self) -> str:
        """A new empty directory."""
        return self._open.enter_context(TemporaryDirectory(dir=self.directory))


def say(text: str) -> None:
    """Tell somebody who waits how it is going."""
    print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        print(file=sys.stderr)


# --- inside a child


def act(children: Children, arguments: list[str]) -> None:
    """What `--child` begins: do what it names, and say what that answers, if it does."""
    _, name, parameters = arguments
    told = children[name](**orjson.loads(parameters))
    if told is not None:
        answer(told)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """*work* on the loop that the service uses, and with as little looking for garbage."""
    import uvloop

    before = gc.get_threshold()
    garbage.raise_gc_thresholds()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        gc.set_threshold(*before)


def answer(told: Answer) -> None:
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.buffer.flush()


async def obey(ready: Answer, commands: Mapping[str, Callable[..., Awaitable[Answer]]]) -> None:
    """Say *ready*, then do what is told, until the parent is gone."""
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    answer(ready)
    while line := await lines.readline():
        told = orjson.loads(line)
        answer(await commands[told.pop("do")](**told))


def raise_descriptor_limit() -> int:
    """As many open files as this process may have; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def cpu() -> Answer:
    """For Child.cpu_s: what this process has taken so far."""
    return {"seconds": time.process_time()}


async def rss() -> Answer:
    """What this process holds in memory."""
    gc.collect()
    return {"bytes": _resident_bytes()}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

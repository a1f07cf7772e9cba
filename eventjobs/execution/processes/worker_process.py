"""The service's end of one process that runs handlers; child.py is the other end.

It is a new interpreter at the other end of a socket; the service is never forked. It runs one job
at a time, and is a session of its own, so that what a handler starts ends with it.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from eventjobs.clock import Clock, Timer
from eventjobs.concurrency import forks
from eventjobs.domain import outcomes
from eventjobs.domain.codec import decode
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import Event, ProgressReported
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import CorruptLog, EventjobsError, JobError
from eventjobs.execution.processes.reaper import ProcessReaper
from eventjobs.execution.processes.wire import MESSAGE_BYTES_MAX, frame
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.breaker_state import BreakerConfig, BreakerOpen
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.registry import Handler
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe
from eventjobs.settings import working_directory

#: For a process to end by itself, once it is needed no more.
EXIT_S = 2.0
#: For the event loop to notice that a process has ended.
EXIT_CODE_S = 0.5

_SPEC = TypeAdapter(JobSpec)

# With the service's own sys.path, so that all it can import is found there, too. A SIGTERM that a
# supervisor sends to everybody must not end it while it gets ready: that would be a failed attempt.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
sys.path[:] = sys.argv[2:]
from eventjobs.execution.processes.child import main
main(int(sys.argv[1]))
"""


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class ProcessRun:
    """One job in a process. *begun* is called when one has been given it."""

    handler: Handler
    job: Job
    reporter: AttemptReporter
    on_start: Callable[[], object]
    #: Whether it may begin, for one that waits.
    turn: asyncio.Future[bool] = field(default_factory=_future)
    #: What it comes to; cancelled when its handler has stopped.
    outcome: asyncio.Future[Outcome] = field(default_factory=_future)
    process: "WorkerProcess | None" = None


@dataclass(frozen=True)
class ProcessEnvironment:
    """What all processes of a service have in common.

    *done* is called when one has done a job, with how long that took.
    """

    clock: Clock
    files: ArtifactFiles
    calls: CallPolicy
    capture_logs: str
    reaper: ProcessReaper
    on_finished: Callable[["WorkerProcess", float], object]
    #: As it was when the service started: a handler that changes it moves no process.
    directory: Path | None = field(default_factory=working_directory)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


class WorkerProcess(asyncio.Protocol):
    """The service's end of one process."""

    idle_timer: Timer
    end_task: asyncio.Task[None]
    _transport: asyncio.Transport

    def __init__(self, around: ProcessEnvironment, scratch: Path) -> None:
        self._environment = around
        #: By name, the breakers whose trial its job is making.
        self._trials: dict[str, BreakerConfig] = {}
        self._clock = around.clock
        self._scratch = scratch
        self._process: Process | None = None
        self._run: ProcessRun | None = None
        self._received = bytearray()
        self._connection_closed = _future()
        #: There is no such process any more.
        self._vanished = _future()
        self._reply_tasks: set[asyncio.Task[None]] = set()
        self._timers: list[Timer] = []
        self._is_stopping = False
        self.is_usable = True
        self.job_count = 0
        #: Since when it is at its job.
        self.busy_since_s: float | None = None

    @classmethod
    async def start(cls, around: ProcessEnvironment, scratch: Path) -> "WorkerProcess":
        """Raises OSError."""
        await asyncio.to_thread(_make_private, scratch)
        directory = around.directory
        if directory is not None and not await asyncio.to_thread(directory.is_dir):
            directory = None
        made = cls(around, scratch)
        try:
            ours, theirs = socket.socketpair()
            forks.close_in_children(ours.fileno())
            theirs.setblocking(True)  # whatever the default timeout of new sockets is by now
            with theirs:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: made, sock=ours)
                # From this thread: the kernel takes the end of the thread that made a process for
                # the end of its parent, and only this one lasts as long as the service.
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-c",
                    _PROGRAM,
                    str(os.getpid()),
                    *map(str, sys.path),
                    stdin=theirs.fileno(),
                    stdout=2,
                    cwd=directory or scratch,
                    env=around.environment | {"TMPDIR": str(scratch)},
                    start_new_session=True,
                )
            made._process = process
            await around.reaper.register(process.pid)
        except BaseException:
            if made._process is not None:
                made._kill()
                around.reaper.unregister(made._process.pid)
            if hasattr(made, "_transport"):
                made._transport.close()
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            raise
        made.end_task = asyncio.create_task(
            made._finish(process), name=f"end of process {process.pid}"
        )
        return made

    def begin(self, run: ProcessRun) -> None:
        """Do it; there must be none before."""
        self.job_count += 1
        self._run, run.process = run, self
        self.busy_since_s = self._clock.monotonic_s()
        function, calls = run.handler.function, self._environment.calls
        self._send(
            "job",
            self.job_count,
            {
                "type": run.handler.type,
                "module": function.__module__,
                "name": function.__qualname__,
                "main": _main_module() if function.__module__ == "__main__" else None,
                "job": run.job,
                "backoff": calls.backoff,
                "store_attempts": calls.store_attempts,
                "capture": self._environment.capture_logs,
            },
        )
        run.on_start()

    def stop(self, run: ProcessRun, grace_s: float) -> None:
        """Tell the handler to stop, and kill its process if it does not."""
        if self._run is not run:
            return  # it has ended, and this is at the next job by now
        self.is_usable = False
        self._is_stopping = True
        self._send("stop", self.job_count)
        self._call_later(grace_s, self._kill)

    def close(self) -> None:
        """End the process: at once when a handler is at work, else by itself, if it can."""
        self.is_usable = False
        if self._run is not None:
            self._kill()
        else:
            self._transport.close()
            self._call_later(EXIT_S, self._kill)

    def _call_later(self, delay_s: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._clock.call_later(delay_s, callback))

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:  # else its number may be another's
            _kill(process.pid)
            if not _exists(process.pid) and not self._vanished.done():
                self._vanished.set_result(None)

    def _send(self, *message: Any) -> None:
        self._transport.write(frame(*message))

    # --- what the process says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while (message := self._next_message()) is not None:
                self._handle(*orjson.loads(message))
        except (ValueError, TypeError, AttributeError, CorruptLog):
            self._transport.abort()  # somebody else writes to our socket

    def _next_message(self) -> bytes | None:
        """The next one that is whole. Raises ValueError for one that is too large."""
        if len(self._received) < 4:
            return None
        end = 4 + int.from_bytes(self._received[:4])
        if end > 4 + MESSAGE_BYTES_MAX:
            raise ValueError
        if len(self._received) < end:
            return None
        message = bytes(self._received[4:end])
        del self._received[:end]
        return message

    def connection_lost(self, error: Exception | None) -> None:
        # It ends, or it has become another program.
        self.is_usable = False
        self._call_later(EXIT_S, self._kill)
        self._connection_closed.set_result(None)

    def _handle(self, what: str, number: int, *told: Any) -> None:
        run = self._run
        if number != self.job_count or run is None:
            return  # a thread that its handler left behind tells something, too late
        match what, told:
            case "outcome", (kind, values):
                self._end_job(getattr(outcomes, kind)(**values) if kind else None)
            case "progress", event:
                run.reporter.progress(cast(ProgressReported, _decode(*event)))
            case "add", event:
                run.reporter.add(cast(Report, _decode(*event)))
            case "ask", (question, *asked):
                task = asyncio.create_task(
                    self._reply(run.reporter, question, *asked), name="answer"
                )
                self._reply_tasks.add(task)
                task.add_done_callback(self._reply_tasks.discard)

    def _end_job(self, outcome: Outcome | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        while self._trials:  # it was stopped, or died, in the middle of one
            trial = self._trials.popitem()
            self._environment.calls.breakers.leave(*trial, "unknown", trial=True)
        if outcome is None:
            run.outcome.cancel()
        else:
            run.outcome.set_result(outcome)
        began_s, self.busy_since_s = self.busy_since_s, None
        assert began_s is not None
        self._environment.on_finished(self, self._clock.monotonic_s() - began_s)

    async def _reply(self, reports: AttemptReporter, question: int, what: str, *told: Any) -> None:
        try:
            answer = ["value", await self._result(reports, what, *told)]
        except JobError as error:
            told = (error.error_code, error.message, error.retryable, error.details)
            answer = ["JobError", told]
        except EventjobsError as error:
            answer = [type(error).__name__, error.message]
        except OSError as error:
            answer = ["OSError", [error.errno, error.strerror, error.filename]]
        except Exception as error:  # noqa: BLE001 -- else the handler would wait for ever
            get_logger("eventjobs.processes").error("question not answered", exc_info=error)
            answer = ["EventjobsError", f"the service could not answer: {describe(error)}"]
        self._send("answer", question, *answer)

    async def _result(self, reports: AttemptReporter, what: str, *told: Any) -> Any:
        files, breakers = self._environment.files, self._environment.calls.breakers
        match what:
            case "now":
                return await reports.record(cast(Report, _decode(*told)))
            case "steps":
                return await reports.steps()
            case "submit":
                name, spec = told
                return await reports.submit_child(name, _SPEC.validate_python(spec))
            case "end of":
                return await reports.wait_for_job(*told)
            case "path":
                return str(await asyncio.to_thread(files.checked_path, *told))
            case "enter":
                name, limits = told[0], BreakerConfig(**told[1])
                try:
                    trial = breakers.enter(name, limits)
                except BreakerOpen as open:
                    return open.until_us, open.left_s
                if trial:
                    self._trials[name] = limits
                return trial
            case "leave":
                name, limits, result, trial = told
                if trial:
                    self._trials.pop(name, None)
                return breakers.leave(name, BreakerConfig(**limits), result, trial=trial)
            case "store":
                return await asyncio.to_thread(files.store, Path(*told))

    # --- its end

    async def _exit_code(self, process: Process) -> int | None:
        """None when a handler has waited for whatever child, and so got it in our place."""
        waiting = asyncio.create_task(process.wait(), name=f"exit of process {process.pid}")
        await asyncio.wait({waiting, self._vanished}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await asyncio.wait({waiting}, timeout=EXIT_CODE_S)  # it may just be on its way
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        return None

    async def _finish(self, process: Process) -> None:
        code = await self._exit_code(process)
        self.is_usable = False
        # What the handler has started goes too, and with it whatever holds the socket open.
        _kill(process.pid)
        self._environment.reaper.unregister(process.pid)
        self._call_later(EXIT_S, self._transport.abort)
        await self._connection_closed
        self._end_job(None if self._is_stopping else outcomes.crash_failure(code))
        for timer in self._timers:
            timer.cancel()
        for task in self._reply_tasks:
            task.cancel()
        self._transport.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


def _decode(type: str, facts: str, body: str) -> Event:
    return decode(type, facts.encode(), body.encode())


def _make_private(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(pid: int) -> None:
    """Kill the process and all it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _main_module() -> dict[str, Any]:
    """Where __main__ comes from, as multiprocessing.spawn.prepare wants it."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return {"init_main_from_name": main.__spec__.name, "sys_argv": sys.argv}
    return {"init_main_from_path": str(Path(str(main.__file__)).absolute()), "sys_argv": sys.argv}

"""The service's end of one process that runs handlers; child.py is the other end.

The process is a new interpreter at the other end of a socket; the service is never forked. It runs
one job at a time. It is a session of its own: what a handler starts is killed with it.
"""

import asyncio
import os
import shutil
import socket
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from eventjobs.clock import Clock, Timer
from eventjobs.concurrency import forks
from eventjobs.domain import outcomes
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ProgressReported
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Outcome
from eventjobs.errors import CorruptLog
from eventjobs.execution.processes.interpreter import (
    kill_group,
    main_module,
    process_exists,
    start_interpreter,
)
from eventjobs.execution.processes.reaper import ProcessReaper
from eventjobs.execution.processes.request_server import RequestServer
from eventjobs.execution.processes.wire import decode_event, frame, take_message
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.registry import Handler
from eventjobs.settings import working_directory

#: Seconds for a process to end by itself before it is killed.
EXIT_S = 2.0
#: Seconds for the event loop to get the exit code of a process that has ended.
EXIT_CODE_S = 0.5


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class ProcessRun:
    """One job that runs, or waits to run, in a process. *on_start* is called when it starts."""

    handler: Handler
    job: Job
    reporter: AttemptReporter
    on_start: Callable[[], object]
    #: For a job that waits: True when it may start, False when it is released.
    turn: asyncio.Future[bool] = field(default_factory=_future)
    #: Cancelled when the handler has stopped as requested.
    outcome: asyncio.Future[Outcome] = field(default_factory=_future)
    process: "WorkerProcess | None" = None


@dataclass(frozen=True)
class ProcessEnvironment:
    """What all processes of a pool share.

    *on_finished* is called with a process that has finished a job, and the job's seconds.
    """

    clock: Clock
    files: ArtifactFiles
    policy: CallPolicy
    capture_logs: str
    reaper: ProcessReaper
    on_finished: Callable[["WorkerProcess", float], object]
    #: As at the start of the service: a handler that changes either does not affect new processes.
    directory: Path | None = field(default_factory=working_directory)
    variables: dict[str, str] = field(default_factory=lambda: dict(os.environ))


class WorkerProcess(asyncio.Protocol):
    """The service's end of one process."""

    idle_timer: Timer
    end_task: asyncio.Task[None]
    _transport: asyncio.Transport

    def __init__(self, environment: ProcessEnvironment, scratch: Path) -> None:
        self._environment = environment
        self._clock = environment.clock
        self._scratch = scratch
        self._requests = RequestServer(environment.files, environment.policy.breakers, self._send)
        self._process: Process | None = None
        self._run: ProcessRun | None = None
        self._received = bytearray()
        self._connection_closed = _future()
        #: Done when the process no longer exists, but asyncio has not got its exit code.
        self._vanished = _future()
        self._timers: list[Timer] = []
        self._is_stopping = False
        self.is_usable = True
        self.job_count = 0
        #: When the running job started; None without one.
        self.busy_since_s: float | None = None

    @classmethod
    async def start(cls, environment: ProcessEnvironment, scratch: Path) -> "WorkerProcess":
        """Start a process whose temporary files are in *scratch*. Raises OSError."""
        await asyncio.to_thread(_make_private, scratch)
        directory = environment.directory
        if directory is None or not await asyncio.to_thread(directory.is_dir):
            directory = scratch
        worker = cls(environment, scratch)
        try:
            ours, theirs = socket.socketpair()
            forks.close_in_children(ours.fileno())
            theirs.setblocking(True)  # the program may have set another default timeout
            with theirs:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: worker, sock=ours)
                variables = environment.variables | {"TMPDIR": str(scratch)}
                process = await start_interpreter(theirs, directory, variables)
            worker._process = process
            await environment.reaper.register(process.pid)
        except BaseException:
            if worker._process is not None:
                worker._kill()
                environment.reaper.unregister(worker._process.pid)
            if hasattr(worker, "_transport"):
                worker._transport.close()
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            raise
        end = worker._finish(process)
        worker.end_task = asyncio.create_task(end, name=f"end of process {process.pid}")
        return worker

    def begin(self, run: ProcessRun) -> None:
        """Start a job. The process must have none."""
        self.job_count += 1
        self._run, run.process = run, self
        self.busy_since_s = self._clock.monotonic_s()
        function, policy = run.handler.function, self._environment.policy
        self._send(
            "job",
            self.job_count,
            {
                "type": run.handler.type,
                "module": function.__module__,
                "name": function.__qualname__,
                "main": main_module() if function.__module__ == "__main__" else None,
                "job": run.job,
                "backoff": policy.backoff,
                "store_attempts": policy.store_attempts,
                "capture": self._environment.capture_logs,
            },
        )
        run.on_start()

    def stop(self, run: ProcessRun, grace_s: float) -> None:
        """Ask the handler to stop, and kill the process after *grace_s* seconds."""
        if self._run is not run:
            return  # it has ended, and the process may run another job
        self.is_usable = False
        self._is_stopping = True
        self._send("stop", self.job_count)
        self._call_later(grace_s, self._kill)

    def close(self) -> None:
        """End the process: kill it if it runs a handler, else let it end by itself first."""
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
        if process is not None and process.returncode is None:  # else its pid may be reused
            kill_group(process.pid)
            if not process_exists(process.pid) and not self._vanished.done():
                self._vanished.set_result(None)

    def _send(self, *message: Any) -> None:
        self._transport.write(frame(*message))

    # --- messages of the process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            while (message := take_message(self._received)) is not None:
                self._handle(*message)
        except (ValueError, TypeError, AttributeError, CorruptLog):
            self._transport.abort()  # the handler has written to the socket

    def connection_lost(self, error: Exception | None) -> None:
        # The process ends, or it has replaced its program by another.
        self.is_usable = False
        self._call_later(EXIT_S, self._kill)
        self._connection_closed.set_result(None)

    def _handle(self, kind: str, number: int, *values: Any) -> None:
        run = self._run
        if number != self.job_count or run is None:
            return  # from a thread that an earlier handler left behind
        match kind, values:
            case "outcome", (name, fields):
                self._end_job(getattr(outcomes, name)(**fields) if name else None)
            case "progress", event:
                run.reporter.progress(cast(ProgressReported, decode_event(*event)))
            case "add", event:
                run.reporter.add(cast(Report, decode_event(*event)))
            case "request", (request_id, *arguments):
                self._requests.serve(run.reporter, request_id, *arguments)

    def _end_job(self, outcome: Outcome | None) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        self._requests.end_trials()
        if outcome is None:
            run.outcome.cancel()
        else:
            run.outcome.set_result(outcome)
        began_s, self.busy_since_s = self.busy_since_s, None
        assert began_s is not None
        self._environment.on_finished(self, self._clock.monotonic_s() - began_s)

    # --- its end

    async def _exit_code(self, process: Process) -> int | None:
        """The exit code; None when the handler's own wait for child processes has taken it."""
        waiting = asyncio.create_task(process.wait(), name=f"exit of process {process.pid}")
        await asyncio.wait({waiting, self._vanished}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await asyncio.wait({waiting}, timeout=EXIT_CODE_S)
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        return None

    async def _finish(self, process: Process) -> None:
        code = await self._exit_code(process)
        self.is_usable = False
        # Kills what the handler has started, too: such a process may hold the socket open.
        kill_group(process.pid)
        self._environment.reaper.unregister(process.pid)
        self._call_later(EXIT_S, self._transport.abort)
        await self._connection_closed
        self._end_job(None if self._is_stopping else outcomes.crash_failure(code))
        for timer in self._timers:
            timer.cancel()
        self._requests.close()
        self._transport.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


def _make_private(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700, exist_ok=True)
    directory.mkdir(mode=0o700)

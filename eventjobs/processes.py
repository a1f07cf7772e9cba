"""Processes that run handlers: made when there is work, used again, and stopped for good.

Each is a new interpreter (child.py) at the other end of a socket; the service is never forked. It
runs one job at a time, and is a session of its own, so that what a handler starts ends with it.
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
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson

from eventjobs import outcomes
from eventjobs.artifacts import Files
from eventjobs.breakers import BreakerOpen, Limits
from eventjobs.calling import Calls
from eventjobs.clock import Clock, Timer
from eventjobs.codec import decode
from eventjobs.errors import EventjobsError, JobError
from eventjobs.events import JobSpec, ProgressReported
from eventjobs.handlers import Handler
from eventjobs.job import Job, Report
from eventjobs.outcomes import Failed, Outcome
from eventjobs.reports import Reports

#: Of one message, and so of a result: the event loop reads it. Files are as large as they like.
MESSAGE_BYTES_MAX = 16 * 2**20
#: A process that has had nothing to do for so long is ended: it may hold a lot of memory.
IDLE_S = 60.0
#: For a process to end by itself, once it is needed no more.
LEAVE_S = 2.0

# With the service's own sys.path, so that all it can import is found there, too. A SIGTERM that a
# supervisor sends to everybody must not end it while it gets ready: that would be a failed attempt.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: None)
sys.path[:] = sys.argv[2:]
from eventjobs.child import main
main(int(sys.argv[1]))
"""


def frame(*message: Any) -> bytes:
    """A message as it goes over the socket: its length in four bytes, then JSON."""
    content = orjson.dumps(message)
    return len(content).to_bytes(4) + content


class Processes:
    """Makes as many as jobs are given at once; *limit* is for whoever gives them.

    Each is used for *jobs_max* jobs. *scratch* is for their temporary files, and theirs alone.
    """

    def __init__(
        self,
        clock: Clock,
        files: Files,
        calls: Calls,
        scratch: Path,
        *,
        limit: int,
        jobs_max: int,
        capture_logs: str = "off",
        grace_s: float,
    ) -> None:
        self._clock = clock
        self._files = files
        self._calls = calls
        self._scratch = scratch
        self.limit = limit
        self._grace_s = grace_s
        self._jobs_max = jobs_max
        self._capture_logs = capture_logs
        self._children: set[_Child] = set()
        self._idle: list[_Child] = []

    async def run(self, handler: Handler, job: Job, reports: Reports) -> Outcome:
        """Do *job* in a process; a process that dies under it is an outcome, too.

        Cancelled, it tells the handler to stop, and kills the process after the grace time. It
        returns what the handler comes to all the same, or raises CancelledError.
        """
        try:
            child = await self._free_child()
        except OSError as error:  # no memory, or too many processes or open files
            return Failed("worker_not_started", f"no process could be started: {error}")
        try:
            outcome = child.begin(
                handler, job, self._files, self._calls, reports, self._capture_logs
            )
            try:
                return await asyncio.shield(outcome)
            except asyncio.CancelledError:
                child.stop(self._grace_s)
                return await asyncio.shield(outcome)
        finally:
            self._give_back(child)

    async def close(self) -> None:
        """End all of them; return when none is left."""
        for child in self._idle:
            child.rest.cancel()
        self._idle.clear()
        for child in self._children:
            child.leave()
        if self._children:
            await asyncio.wait([child.ended for child in self._children])

    async def _free_child(self) -> "_Child":
        if self._idle:
            child = self._idle.pop()  # the newest: the others may come to the end of their rest
            child.rest.cancel()
            return child
        child = await _Child.start(self._clock, self._scratch / uuid4().hex)
        self._children.add(child)
        child.ended.add_done_callback(lambda _: self._forget(child))
        return child

    def _give_back(self, child: "_Child") -> None:
        if child.usable and child.jobs < self._jobs_max:
            child.rest = self._clock.call_later(IDLE_S, lambda: self._dismiss(child))
            self._idle.append(child)
        else:
            child.leave()

    def _dismiss(self, child: "_Child") -> None:
        self._idle.remove(child)
        child.leave()

    def _forget(self, child: "_Child") -> None:
        self._children.discard(child)
        if child in self._idle:  # somebody killed it
            child.rest.cancel()
            self._idle.remove(child)


class _Child:
    """The service's end of one process."""

    rest: Timer

    def __init__(
        self,
        clock: Clock,
        process: Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        scratch: Path,
    ) -> None:
        self._clock = clock
        self._process = process
        self._reader, self._writer = streams
        self._scratch = scratch
        self._outcome: asyncio.Future[Outcome] | None = None
        self._files: Files
        self._calls: Calls
        self._reports: Reports
        self._answering: set[asyncio.Task[None]] = set()
        self._timers: list[Timer] = []
        self._told_to_stop = False
        self.usable = True
        self.jobs = 0
        self._reading = asyncio.create_task(self._read(), name=f"process {process.pid}")
        self.ended = asyncio.create_task(self._end(), name=f"end of process {process.pid}")

    @classmethod
    async def start(cls, clock: Clock, scratch: Path) -> "_Child":
        """Raises OSError."""
        await asyncio.to_thread(scratch.mkdir, mode=0o700, parents=True)
        writer = None
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                reader, writer = await asyncio.open_connection(sock=ours)
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
                    env=os.environ | {"TMPDIR": str(scratch)},
                    start_new_session=True,
                )
        except BaseException:
            if writer is not None:
                writer.close()
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            raise
        return cls(clock, process, (reader, writer), scratch)

    def begin(
        self,
        handler: Handler,
        job: Job,
        files: Files,
        calls: Calls,
        reports: Reports,
        capture_logs: str,
    ) -> asyncio.Future[Outcome]:
        """Done with what the job comes to, and cancelled when its handler has stopped."""
        self.jobs += 1
        self._files, self._calls, self._reports = files, calls, reports
        self._outcome = asyncio.get_running_loop().create_future()
        function = handler.function
        self._send(
            "job",
            self.jobs,
            {
                "type": handler.type,
                "module": function.__module__,
                "name": function.__qualname__,
                "main": _program() if function.__module__ == "__main__" else None,
                "job": job,
                "backoff": calls.backoff,
                "store_attempts": calls.store_attempts,
                "capture": capture_logs,
            },
        )
        return self._outcome

    def stop(self, grace_s: float) -> None:
        """Tell the handler to stop, and kill its process if it does not."""
        self.usable = False
        self._told_to_stop = True
        self._send("stop", self.jobs)
        self._later(grace_s, self._kill)

    def leave(self) -> None:
        """End the process: at once when a handler is at work, else by itself, if it can."""
        self.usable = False
        if self._outcome is not None:
            self._kill()
        else:
            self._writer.close()
            self._later(LEAVE_S, self._kill)

    def _later(self, delay_s: float, callback: Callable[[], object]) -> None:
        self._timers.append(self._clock.call_later(delay_s, callback))

    def _kill(self) -> None:
        if self._process.returncode is None:  # else the number may be somebody else's by now
            _kill(self._process.pid)

    def _send(self, *message: Any) -> None:
        self._writer.write(frame(*message))

    # --- what the process says

    async def _read(self) -> None:
        try:
            while (size := await self._size()) <= MESSAGE_BYTES_MAX:
                self._hear(*orjson.loads(await self._reader.readexactly(size)))
        finally:
            # It ends, or it has become another program, or somebody else writes to our socket.
            self.usable = False
            self._later(LEAVE_S, self._kill)

    async def _size(self) -> int:
        return int.from_bytes(await self._reader.readexactly(4))

    def _hear(self, what: str, number: int, *told: Any) -> None:
        if number != self.jobs or self._outcome is None:
            return  # a thread that its handler left behind tells something, too late
        match what, told:
            case "outcome", (kind, values):
                self._settle(getattr(outcomes, kind)(**values) if kind else None)
            case "progress", event:
                self._reports.progress(cast(ProgressReported, decode(*event)))
            case "add", event:
                self._reports.add(cast(Report, decode(*event)))
            case "ask", (question, *asked):
                task = asyncio.create_task(self._answer(question, *asked), name="answer")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    def _settle(self, outcome: Outcome | None) -> None:
        future, self._outcome = self._outcome, None
        if future is None or future.done():
            return
        if outcome is None:
            future.cancel()
        else:
            future.set_result(outcome)

    async def _answer(self, question: int, what: str, *told: Any) -> None:
        try:
            answer = ["value", await self._value(what, *told)]
        except JobError as error:
            told = (error.error_code, error.message, error.retryable, error.details)
            answer = ["JobError", told]
        except EventjobsError as error:
            answer = [type(error).__name__, error.message]
        except OSError as error:
            answer = ["OSError", [error.errno, error.strerror, error.filename]]
        self._send("answer", question, *answer)

    async def _value(self, what: str, *told: Any) -> Any:
        match what:
            case "now":
                return await self._reports.now(cast(Report, decode(*told)))
            case "steps":
                return await self._reports.steps()
            case "submit":
                child_id, spec = told
                return await self._reports.submit(child_id, JobSpec(**spec))
            case "end of":
                return await self._reports.end_of(*told)
            case "path":
                return str(await asyncio.to_thread(self._files.path, *told))
            case "enter":
                name, limits = told
                try:
                    return self._calls.breakers.enter(name, Limits(**limits))
                except BreakerOpen as open:
                    return open.until_us, open.left_s
            case "leave":
                name, limits, result, trial = told
                return self._calls.breakers.leave(name, Limits(**limits), result, trial=trial)
            case "store":
                return await asyncio.to_thread(self._files.store, Path(*told))

    # --- its end

    async def _end(self) -> None:
        code = await self._process.wait()
        self.usable = False
        # What the handler has started goes too, and with it whatever holds the socket open.
        _kill(self._process.pid)
        self._later(LEAVE_S, self._reading.cancel)
        await asyncio.wait({self._reading})  # all that it has told
        if not self._reading.cancelled():
            self._reading.exception()  # that it has ended
        self._settle(None if self._told_to_stop else _crashed(code))
        for timer in self._timers:
            timer.cancel()
        for task in self._answering:
            task.cancel()
        self._writer.close()
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


def _crashed(code: int) -> Failed:
    if code >= 0:
        message = f"the process ended with exit code {code} before the handler returned"
        return Failed("worker_crashed", message, details={"exit_code": code})
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    why = " (out of memory?)" if name == "SIGKILL" else ""
    message = f"the process was killed by {name}{why}"
    return Failed("worker_crashed", message, details={"signal": name})


def _kill(pid: int) -> None:
    """Kill the process and all it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _program() -> dict[str, Any]:
    """Where __main__ comes from, as multiprocessing.spawn.prepare wants it."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return {"init_main_from_name": main.__spec__.name, "sys_argv": sys.argv}
    return {"init_main_from_path": str(Path(str(main.__file__)).absolute()), "sys_argv": sys.argv}

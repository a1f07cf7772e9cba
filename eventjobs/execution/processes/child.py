"""A process that runs handlers for a service: started by process.py, never to outlive it."""

import ctypes
import itertools
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import reduce
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from eventjobs import errors
from eventjobs.backoff import Backoff
from eventjobs.concurrency import forks
from eventjobs.domain.events import ArtifactStored
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import RESULT, Outcome, Succeeded, large_result
from eventjobs.errors import EventjobsError, InvalidInput, JobError, TooLarge
from eventjobs.execution.processes.parent import ParentProxy, ProcessContext
from eventjobs.execution.processes.process_state import restore_process_state
from eventjobs.execution.processes.wire import MESSAGE_BYTES_MAX, frame
from eventjobs.execution.results import failure, success
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.observability.log_capture import LogCapture, allow_level

_PR_SET_PDEATHSIG = 1
#: Between two signals to a handler that is to stop.
INTERRUPT_S = 0.05
_JOB = TypeAdapter(Job)


def main(service: int) -> None:
    """Run what the process *service* sends, until it closes the socket that is our stdin."""
    _die_with_parent(service)
    _prefer_oom_kill()
    connection = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # for a handler that reads stdin
    os.close(nothing)
    # In a child's child an open end would hide that this process has ended.
    forks.close_in_children(connection.fileno())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # they are real files
    ChildProcess(connection).run()


def _die_with_parent(service: int) -> None:
    """Be killed when the process *service* ends, even while no Python code is run.

    The end of the socket says the same, but only where a thread can get to hear it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != service:  # it was faster
        os._exit(1)


def _prefer_oom_kill() -> None:
    """When memory runs out, the kernel is to kill this process, and not the service."""
    adjustment = Path("/proc/self/oom_score_adj")
    with suppress(OSError):  # there is none, or it cannot be changed
        adjustment.write_text(str(min(1000, int(adjustment.read_text()) + 200)))


class ChildProcess:
    """Runs one job after the other in the main thread, while another listens to the service."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pid = os.getpid()
        self._send_lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._request_ids = itertools.count()
        self._replies: dict[int, Future[Any]] = {}
        self._number = 0  # of the job that is run; 0 when there is none
        self._context: ProcessContext | None = None
        self._stopping = False  # from then on: a process that was told to stop is not used again
        self._interrupted = threading.Event()  # the handler has been told to stop
        self._may_raise = False  # the handler has the main thread, and nothing of ours is half done

    def run(self) -> None:
        threading.Thread(target=self._listen, name="service", daemon=True).start()
        while (given := self._jobs.get()) is not None:
            signal.signal(signal.SIGTERM, self._on_sigterm)  # a handler may have changed it
            self._run_job(*given)

    # --- what the service says

    def _listen(self) -> None:
        with self._connection.makefile("rb") as file:
            while (message := _read_message(file)) is not None:
                match message:
                    case ["job", number, given]:
                        self._number = number
                        self._jobs.put((number, given))
                    case ["stop", number] if number == self._number:
                        self._stop()
                    case ["answer", question, kind, told]:
                        self._replies.pop(question).set_result((kind, told))
        if self._number:
            _kill_group()
        self._jobs.put(None)

    def _stop(self) -> None:
        self._stopping = True
        if self._context is not None:
            self._context._stopped = True
        threading.Thread(target=self._interrupt, name="rouse", daemon=True).start()

    def _interrupt(self) -> None:
        """End what the main thread waits in, a sleep, say; then `_signalled` is called there.

        Again and again: a signal that comes just before the thread begins to wait does not end it.
        """
        number = self._number
        while number and self._number == number and not self._interrupted.is_set():
            signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGTERM)
            self._interrupted.wait(INTERRUPT_S)

    def _on_sigterm(self, number: int, frame: object) -> None:
        # A SIGTERM from elsewhere changes nothing: a supervisor sends one to all processes at once,
        # and then it is for the service to say how long jobs may go on.
        if self._stopping and self._may_raise and not forks.is_forking():
            self._may_raise = False
            self._interrupted.set()
            raise Stopped

    # --- running a job

    def _run_job(self, number: int, given: dict[str, Any]) -> None:
        outcome = self._outcome(number, given)
        context, self._context = self._context, None
        self._number = 0  # before it is told: the service may answer with the next job
        try:
            self._send_outcome(number, outcome)
        except TooLarge as error:
            assert context is not None
            self._send_outcome(number, _as_artifact(context, outcome, error))

    def _send_outcome(self, number: int, outcome: Outcome | None) -> None:
        self.send("outcome", number, type(outcome).__name__ if outcome else None, outcome)

    def _outcome(self, number: int, given: dict[str, Any]) -> Outcome | None:
        """What the handler comes to; None when it has stopped."""
        try:
            try:
                self._may_raise = True
                # An empty one: what a job sets in it is not there for the next.
                result = Context().run(self._run_handler, number, given)
                return success(result, self._context and self._context.issues)
            finally:
                self._may_raise = False
        except Stopped:
            return None
        except BaseException as error:  # noqa: BLE001 -- it goes to whoever waits
            # Not isinstance: `__class__` may be a property that raises.
            meant = issubclass(type(error), JobError | InvalidInput)
            return None if self._stopping and not meant else failure(error)

    def _run_handler(self, number: int, given: dict[str, Any]) -> Any:
        handler = load_handler(given["type"], given["module"], given["name"], given["main"])
        job = _JOB.validate_python(given["job"])
        remote = ParentProxy(self, number)
        calls = CallPolicy(remote, Backoff(**given["backoff"]), given["store_attempts"])
        self._context = ProcessContext(job, remote, calls)
        if self._stopping:
            raise Stopped
        kept = restore_process_state()
        with _capture_logs(given["capture"], self._context), kept, forks.EndsIfForked():
            result = handler.function(self._context, handler.parse(job.spec.payload))
        self._context._steps.finish()
        return result

    # --- what the service is told

    def send(self, *message: Any) -> None:
        """Raises TooLarge. Waits while the service cannot take more."""
        if os.getpid() != self._pid:
            raise RuntimeError("only the process of the handler itself can tell anything")
        content = frame(*message)
        if len(content) > MESSAGE_BYTES_MAX:
            raise TooLarge(
                f"a process tells at most {MESSAGE_BYTES_MAX} bytes at once; store a file instead"
            )
        try:
            with self._without_interrupt(), self._send_lock:
                self._connection.sendall(content)
        except OSError:
            _kill_group()

    def request(self, number: int, what: str, *arguments: Any) -> Any:
        """What the service answers. Raises what it raised."""
        question = next(self._request_ids)
        answer = self._replies[question] = Future()
        self.send("ask", number, question, what, *arguments)
        match answer.result():
            case ("value", value):
                return value
            case ("OSError", arguments):
                raise OSError(*arguments)
            case ("JobError", (code, message, retryable, details)):
                raise JobError(code, message, retryable=retryable, details=details)
            case (name, message):
                raise getattr(errors, name, errors.EventjobsError)(message)

    @contextmanager
    def _without_interrupt(self) -> Iterator[None]:
        """Keep Stopped out of what must not be left half done; it comes right after."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        could, self._may_raise = self._may_raise, False
        try:
            yield
        finally:
            self._may_raise = could
        if could and self._stopping:
            self._may_raise = False
            self._interrupted.set()
            raise Stopped


def _as_artifact(context: "ProcessContext", outcome: Outcome | None, large: TooLarge) -> Outcome:
    """*outcome*, whose result is too large for a message, as the service itself would keep it."""
    if not isinstance(outcome, Succeeded):
        return failure(large)
    try:
        content = orjson.dumps(outcome.result)
        kept = context._files.store(content)
        stored = ArtifactStored(context.attempt, RESULT, *kept, "application/json")
        context._wait(context._channel.record(stored))
    except (OSError, EventjobsError, JobError) as error:
        return failure(error)
    return Succeeded(large_result(len(content)), outcome.issues)


@contextmanager
def _capture_logs(level: str, context: "ProcessContext") -> Iterator[None]:
    """What the handler logs is in its job's log. Only now: its module may have set logging up."""
    capture = LogCapture(level)
    capture.start()
    allow_level(level)
    try:
        with capture.attach(context._add_log_line):
            yield
    finally:
        capture.stop()


def load_handler(type: str, module: str, name: str, main: dict[str, Any] | None) -> Handler:
    """The handler of *type* that is called *name* in *module*. Raises whatever importing raises."""
    if main is not None:
        from multiprocessing import spawn

        spawn.prepare(main)  # runs the program once more, as `__mp_main__`; it guards itself
    found: Any = reduce(getattr, name.split("."), import_module(module))
    made = found if isinstance(found, Handler) else handler(type, process=True)(found)
    if made.type != type:
        raise LookupError(f"{module}.{name} is the handler of {made.type!r}, not of {type!r}")
    return made


def _read_message(file: BufferedReader) -> Any:
    """The next message; None at the end."""
    try:
        size = file.read(4)
        content = file.read(int.from_bytes(size)) if len(size) == 4 else b""
    except ConnectionError:
        return None
    return orjson.loads(content) if content else None


def _kill_group() -> None:
    """Neither the job goes on, nor what it has started."""
    os.killpg(0, signal.SIGKILL)

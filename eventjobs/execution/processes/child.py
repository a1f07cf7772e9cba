"""The main program of a process that runs handlers. worker_process.py starts and ends it."""

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
from eventjobs.execution.processes.wire import MESSAGE_BYTES_MAX, frame, read_message
from eventjobs.execution.results import failure, success
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.base_context import Stopped
from eventjobs.handlers.declare import handler
from eventjobs.handlers.registry import Handler
from eventjobs.observability.log_capture import LogCapture, allow_level

_PR_SET_PDEATHSIG = 1
#: Seconds between two signals to a handler that should stop.
INTERRUPT_S = 0.05
_JOB = TypeAdapter(Job)


def main(service: int) -> None:
    """Run the jobs that the process *service* sends, until it closes the socket on our stdin."""
    _die_with_parent(service)
    _prefer_oom_kill()
    connection = socket.socket(fileno=os.dup(0))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)  # for a handler that reads stdin
    os.close(empty)
    forks.close_in_children(connection.fileno())  # a forked child would keep the socket open
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr] # they are real files
    ChildProcess(connection).run()


def _die_with_parent(service: int) -> None:
    """Have the kernel kill this process when the process *service* ends.

    The end of the socket does the same, but not while C code holds the interpreter lock.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != service:  # it has ended already
        os._exit(1)


def _prefer_oom_kill() -> None:
    """When memory runs out, the kernel kills this process before the service."""
    adjustment = Path("/proc/self/oom_score_adj")
    with suppress(OSError):  # not Linux, or not permitted
        adjustment.write_text(str(min(1000, int(adjustment.read_text()) + 200)))


class ChildProcess:
    """Runs jobs one after the other in the main thread. Another thread reads the messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pid = os.getpid()
        self._send_lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self._request_ids = itertools.count()
        self._replies: dict[int, Future[Any]] = {}
        self._number = 0  # of the running job; 0 without one
        self._context: ProcessContext | None = None
        self._stopping = False  # stays True: the service uses no process again that it has stopped
        self._interrupted = threading.Event()  # Stopped has been raised in the handler
        self._may_raise = False  # whether the main thread runs the handler's own code

    def run(self) -> None:
        threading.Thread(target=self._listen, name="service", daemon=True).start()
        while (job := self._jobs.get()) is not None:
            signal.signal(signal.SIGTERM, self._on_sigterm)  # a handler may have changed it
            self._run_job(*job)

    # --- messages of the service

    def _listen(self) -> None:
        with self._connection.makefile("rb") as file:
            while (message := read_message(file)) is not None:
                match message:
                    case ["job", number, fields]:
                        self._number = number
                        self._jobs.put((number, fields))
                    case ["stop", number] if number == self._number:
                        self._stop()
                    case ["reply", request_id, kind, value]:
                        self._replies.pop(request_id).set_result((kind, value))
        if self._number:
            _kill_group()
        self._jobs.put(None)

    def _stop(self) -> None:
        self._stopping = True
        if self._context is not None:
            self._context._stopped = True
        threading.Thread(target=self._interrupt, name="rouse", daemon=True).start()

    def _interrupt(self) -> None:
        """Interrupt what the main thread waits in, such as a sleep: `_on_sigterm` is called there.

        Repeated: a signal that comes just before the thread begins to wait does not interrupt it.
        """
        number = self._number
        while number and self._number == number and not self._interrupted.is_set():
            signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGTERM)
            self._interrupted.wait(INTERRUPT_S)

    def _on_sigterm(self, number: int, frame: object) -> None:
        # A SIGTERM of another sender is ignored: a supervisor signals all processes at once, and
        # the service decides how long jobs may go on.
        if self._stopping and self._may_raise and not forks.is_forking():
            self._may_raise = False
            self._interrupted.set()
            raise Stopped

    # --- running a job

    def _run_job(self, number: int, fields: dict[str, Any]) -> None:
        outcome = self._outcome(number, fields)
        context, self._context = self._context, None
        self._number = 0  # before the outcome is sent: the service may reply with the next job
        try:
            self._send_outcome(number, outcome)
        except TooLarge as error:
            assert context is not None
            self._send_outcome(number, _as_artifact(context, outcome, error))

    def _send_outcome(self, number: int, outcome: Outcome | None) -> None:
        self.send("outcome", number, type(outcome).__name__ if outcome else None, outcome)

    def _outcome(self, number: int, fields: dict[str, Any]) -> Outcome | None:
        """The outcome of the handler; None when it has stopped as requested."""
        try:
            try:
                self._may_raise = True
                # An empty context: the next job does not see variables that this one sets.
                result = Context().run(self._run_handler, number, fields)
                return success(result, self._context and self._context.issues)
            finally:
                self._may_raise = False
        except Stopped:
            return None
        except BaseException as error:  # noqa: BLE001 -- it is the outcome
            # Not isinstance: `__class__` may be a property that raises.
            is_deliberate = issubclass(type(error), JobError | InvalidInput)
            return None if self._stopping and not is_deliberate else failure(error)

    def _run_handler(self, number: int, fields: dict[str, Any]) -> Any:
        handler = load_handler(fields["type"], fields["module"], fields["name"], fields["main"])
        job = _JOB.validate_python(fields["job"])
        service = ParentProxy(self, number)
        policy = CallPolicy(service, Backoff(**fields["backoff"]), fields["store_attempts"])
        self._context = ProcessContext(job, service, policy)
        if self._stopping:
            raise Stopped
        capture = _capture_logs(fields["capture"], self._context)
        with capture, restore_process_state(), forks.EndsIfForked():
            result = handler.function(self._context, handler.parse(job.spec.payload))
        self._context._steps.finish()
        return result

    # --- messages to the service

    def send(self, *message: Any) -> None:
        """Send a message. Blocks while the socket is full. Raises TooLarge."""
        if os.getpid() != self._pid:
            raise RuntimeError("only the process of the handler itself can use its context")
        content = frame(*message)
        if len(content) > MESSAGE_BYTES_MAX:
            raise TooLarge(
                f"a process sends at most {MESSAGE_BYTES_MAX} bytes at once; store a file instead"
            )
        try:
            with self._without_interrupt(), self._send_lock:
                self._connection.sendall(content)
        except OSError:
            _kill_group()

    def request(self, number: int, what: str, *arguments: Any) -> Any:
        """Send a request and wait for the reply. Raises what the service raised."""
        request_id = next(self._request_ids)
        reply = self._replies[request_id] = Future()
        self.send("request", number, request_id, what, *arguments)
        match reply.result():
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
        """Keep Stopped out of the body, which must not be cut off. It is raised right after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._may_raise = self._may_raise, False
        try:
            yield
        finally:
            self._may_raise = before
        if before and self._stopping:
            self._may_raise = False
            self._interrupted.set()
            raise Stopped


def _as_artifact(context: "ProcessContext", outcome: Outcome | None, large: TooLarge) -> Outcome:
    """*outcome* with its result stored as an artifact: it is too large for a message."""
    if not isinstance(outcome, Succeeded):
        return failure(large)
    try:
        content = orjson.dumps(outcome.result)
        file = context._files.store(content)
        stored = ArtifactStored(context.attempt, RESULT, *file, "application/json")
        context._wait(context._channel.record(stored))
    except (OSError, EventjobsError, JobError) as error:
        return failure(error)
    return Succeeded(large_result(len(content)), outcome.issues)


@contextmanager
def _capture_logs(level: str, context: "ProcessContext") -> Iterator[None]:
    """Copy log records to the job's log, after the handler's module has set up logging."""
    capture = LogCapture(level)
    capture.start()
    allow_level(level)
    try:
        with capture.attach(context._add_log_line):
            yield
    finally:
        capture.stop()


def load_handler(type: str, module: str, name: str, main: dict[str, Any] | None) -> Handler:
    """The handler of *type* at *name* in *module*. Raises LookupError and errors of the import."""
    if main is not None:
        from multiprocessing import spawn

        spawn.prepare(main)  # runs the program once more, as `__mp_main__`; it guards itself
    value: Any = reduce(getattr, name.split("."), import_module(module))
    loaded = value if isinstance(value, Handler) else handler(type, process=True)(value)
    if loaded.type != type:
        raise LookupError(f"{module}.{name} is the handler of {loaded.type!r}, not of {type!r}")
    return loaded


def _kill_group() -> None:
    """Kill this process and all that it has started: the service is gone."""
    os.killpg(0, signal.SIGKILL)

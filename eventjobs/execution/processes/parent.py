"""The child's side of the pipe to its service: the context of a handler in a process."""

import errno
import tempfile
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from eventjobs.clock import SystemClock
from eventjobs.domain.codec import encode
from eventjobs.domain.events import Event
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DiskFull
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.breaker_state import BreakerChange, BreakerConfig, BreakerOpen, CallResult
from eventjobs.handlers.context import T
from eventjobs.handlers.thread_context import ThreadContext


class Pipe(Protocol):
    """The child's end of the pipe to its service."""

    def send(self, *message: Any) -> None:
        """Send *message* and do not wait."""

    def request(self, number: int, what: str, *arguments: Any) -> Any:
        """Send a request of attempt *number*, return the reply. Raises what the service raised."""


class ParentProxy:
    """The service's end of an attempt, seen from here: its Reports, its Files and its Breakers."""

    def __init__(self, pipe: Pipe, number: int) -> None:
        self.clock = SystemClock()
        self._pipe = pipe
        self._number = number

    def progress(self, report: Event) -> None:
        self._pipe.send("progress", self._number, *_encode(report))

    def add(self, report: Event) -> None:
        self._pipe.send("add", self._number, *_encode(report))

    async def record(self, report: Event) -> None:
        self._pipe.request(self._number, "now", *_encode(report))

    async def steps(self) -> dict[str, Any]:
        steps: dict[str, Any] = self._pipe.request(self._number, "steps")
        return steps

    async def submit_child(self, name: str, spec: JobSpec) -> str:
        child_id: str = self._pipe.request(self._number, "submit", name, asdict(spec))
        return child_id

    async def wait_for_job(self, child_id: str) -> dict[str, Any]:
        end: dict[str, Any] = self._pipe.request(self._number, "end of", child_id)
        return end

    def checked_path(self, sha256: str, size: int) -> Path:
        return Path(self._pipe.request(self._number, "path", sha256, size))

    def store(self, content: bytes | Path) -> tuple[str, int]:
        if isinstance(content, Path):
            return self._store(content.absolute())
        try:
            with tempfile.NamedTemporaryFile() as file:
                file.write(content)
                file.flush()
                return self._store(Path(file.name))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull from error
            raise

    def enter(self, name: str, limits: BreakerConfig) -> bool:
        answer = self._pipe.request(self._number, "enter", name, limits)
        if isinstance(answer, bool):
            return answer
        raise BreakerOpen(name, *answer)

    def leave(
        self, name: str, limits: BreakerConfig, result: CallResult, *, trial: bool
    ) -> BreakerChange | None:
        told = self._pipe.request(self._number, "leave", name, limits, result, trial)
        return told and BreakerChange(**told)

    def _store(self, path: Path) -> tuple[str, int]:
        sha256, size = self._pipe.request(self._number, "store", str(path))
        return sha256, size


class ProcessContext(ThreadContext):
    """A ThreadContext whose other end is in another process."""

    def __init__(self, job: Job, remote: ParentProxy, calls: CallPolicy) -> None:
        super(ThreadContext, self).__init__(job, remote, remote, calls)  # without a loop

    def sleep(self, delay_s: float) -> None:
        threading.Event().wait(delay_s)  # Stopped is raised in here
        self.check_cancelled()

    async def _unless_stopped(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        return await coroutine  # Stopped is raised in there

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # Nothing in it is asynchronous here: it waits for the service as plain functions do.
        try:
            coroutine.send(None)
        except StopIteration as returned:
            return cast(T, returned.value)
        raise RuntimeError("it waits for an event loop, and there is none")


def _encode(event: Event) -> tuple[str, str, str]:
    type, facts, body = encode(event)
    return type, facts.decode(), body.decode()

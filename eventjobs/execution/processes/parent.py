"""The handler's side of the socket to its service: a context whose service is another process."""

import errno
import tempfile
import threading
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from eventjobs.clock import SystemClock
from eventjobs.domain.events import Event
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import DiskFull
from eventjobs.execution.processes.wire import encode_event
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.breaker_state import BreakerChange, BreakerConfig, BreakerOpen, CallResult
from eventjobs.handlers.context import T
from eventjobs.handlers.thread_context import ThreadContext


class ServiceConnection(Protocol):
    """The handler process's end of the socket to its service."""

    def send(self, *message: Any) -> None:
        """Send *message* without a reply."""

    def request(self, number: int, what: str, *arguments: Any) -> Any:
        """Send a request of job *number*, return the reply. Raises what the service raised."""


class ParentProxy:
    """Stands for the service: the AttemptChannel, the ArtifactFiles and the BreakerRegistry."""

    def __init__(self, connection: ServiceConnection, number: int) -> None:
        self.clock = SystemClock()
        self._connection = connection
        self._number = number

    def _request(self, what: str, *arguments: Any) -> Any:
        return self._connection.request(self._number, what, *arguments)

    # --- AttemptChannel

    def progress(self, report: Event) -> None:
        self._connection.send("progress", self._number, *encode_event(report))

    def add(self, report: Event) -> None:
        self._connection.send("add", self._number, *encode_event(report))

    async def record(self, report: Event) -> None:
        self._request("record", *encode_event(report))

    async def steps(self) -> dict[str, Any]:
        steps: dict[str, Any] = self._request("steps")
        return steps

    async def submit_child(self, name: str, spec: JobSpec) -> str:
        child_id: str = self._request("submit_child", name, asdict(spec))
        return child_id

    async def wait_for_job(self, child_id: str) -> dict[str, Any]:
        end: dict[str, Any] = self._request("wait_for_job", child_id)
        return end

    # --- ArtifactFiles

    def checked_path(self, sha256: str, size: int) -> Path:
        return Path(self._request("checked_path", sha256, size))

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

    def _store(self, path: Path) -> tuple[str, int]:
        sha256, size = self._request("store", str(path))
        return sha256, size

    # --- BreakerRegistry

    def enter(self, name: str, config: BreakerConfig) -> bool:
        reply = self._request("enter", name, config)
        if isinstance(reply, bool):
            return reply
        raise BreakerOpen(name, *reply)

    def leave(
        self, name: str, config: BreakerConfig, result: CallResult, *, trial: bool
    ) -> BreakerChange | None:
        change = self._request("leave", name, config, result, trial)
        return change and BreakerChange(**change)


class ProcessContext(ThreadContext):
    """A ThreadContext whose service is another process."""

    def __init__(self, job: Job, service: ParentProxy, policy: CallPolicy) -> None:
        super(ThreadContext, self).__init__(job, service, service, policy)  # without a loop

    def sleep(self, delay_s: float) -> None:
        threading.Event().wait(delay_s)  # a stop raises Stopped here
        self.check_cancelled()

    async def _unless_stopped(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        return await coroutine  # a stop raises Stopped in it

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # The methods of ParentProxy block instead of awaiting, so one step runs it to its end.
        try:
            coroutine.send(None)
        except StopIteration as returned:
            return cast(T, returned.value)
        raise RuntimeError("it waits for an event loop, and there is none")

"""What a handler may do while it runs: tell of it, keep files, and learn that it is to stop."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from eventjobs.artifacts import Files, check_name
from eventjobs.calling import AsyncCaller, Caller, Calls, ThreadCaller
from eventjobs.children import Children, outcome_of
from eventjobs.clock import sleep
from eventjobs.errors import ArtifactDamaged, InvalidInput, JobError
from eventjobs.events import (
    Artifact,
    ArtifactStored,
    BreakerChanged,
    JobSpec,
    LogWritten,
    ProgressReported,
)
from eventjobs.forks import Home
from eventjobs.job import Job
from eventjobs.plain import (
    FIELDS_BYTES_MAX,
    PROGRESS_BYTES_MAX,
    bounded_json,
    plain_json,
    plain_number,
    plain_text,
)
from eventjobs.reports import Reports
from eventjobs.retries import stored
from eventjobs.steps import Steps, step_json
from eventjobs.values import read_media_type

Answer = TypeVar("Answer")

#: Of one attempt; later ones are in its log only.
ISSUES_MAX = 100
#: How often a thread that waits looks whether it is to stop.
LOOK_S = 0.1
LEVELS = ("debug", "info", "warning", "error")


class Stopped(BaseException):
    """Raised in a thread by check_cancelled: the job was cancelled or has timed out.

    Not an Exception, so that a handler's own `except Exception` does not swallow it.
    """


class _Told(Caller):
    """What all contexts share."""

    def __init__(self, job: Job, files: Files, reports: Reports, calls: Calls) -> None:
        self._job = job
        self._files = files
        self._reports = reports
        self._steps = Steps(job, reports)
        self._children = Children(job, reports)
        self._calls = calls
        self._issues: list[dict[str, Any]] = []
        self._trials = {}
        self._stopped = False  # set from the loop, read from any thread
        self._home = Home()

    @property
    def job_id(self) -> str:
        return self._job.job_id

    @property
    def attempt(self) -> int:
        """1 for the first run of the job."""
        return self._job.attempt

    @property
    def spec(self) -> JobSpec:
        return self._job.spec

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop: cancelled, out of time, or shut down."""
        return self._stopped

    def check_cancelled(self) -> None:
        """Raise when this attempt should stop."""
        if self._stopped:
            raise Stopped

    def input(self, name: str | None = None) -> Path:
        """The local file of an artifact of this job; without a name, its first one.

        Raises JobError `artifact_missing`, and `artifact_damaged` for a file that is gone or is not
        what was stored. The file is not to be changed.
        """
        for each in self._job.artifacts:
            if name is None or each.name == name:
                try:
                    return self._path_of(each)
                except ArtifactDamaged as error:
                    raise JobError("artifact_damaged", f"{each.name}: {error}") from error
        raise JobError(
            "artifact_missing",
            f"the job has no artifact{'' if name is None else f' {plain_text(name)!r}'}",
            retryable=False,
        )

    def _path_of(self, artifact: Artifact) -> Path:
        return self._files.checked(artifact.sha256, artifact.size)

    def progress(
        self,
        done: float | None = None,
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
        data: Any = None,
    ) -> None:
        """Tell how far the whole job is, from any thread. Stored at a set rate, the last always;
        never blocks.
        """
        self._soon(self._reports.progress, self._progress(done, total, stage, message, data))

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """Add a line to the job's own log, from any thread. Never blocks."""
        self._soon(self._reports.add, self._line(message, level, fields))

    def issue(self, code: str, message: str, **details: Any) -> None:
        """Note what went wrong and was made up for: the job completes, and `issues` tells of it.

        *code* is for programs. It is a line in the job's log, too.
        """
        told = {"code": plain_text(code), "message": plain_text(message)}
        self.log(f"{told['code']}: {told['message']}", "warning", **details)
        if len(self._issues) < ISSUES_MAX:
            self._issues.append({**bounded_json(details, FIELDS_BYTES_MAX), **told})

    @property
    def issues(self) -> list[dict[str, Any]] | None:
        """What was noted so far, if anything; a copy."""
        copies: list[dict[str, Any]] | None = plain_json(self._issues or None)
        return copies

    def _progress(
        self,
        done: float | None,
        total: float | None,
        stage: str | None,
        message: str | None,
        data: Any,
    ) -> ProgressReported:
        return ProgressReported(
            self.attempt,
            plain_number(done),
            plain_number(total),
            None if stage is None else plain_text(stage)[:200],
            None if message is None else plain_text(message),
            bounded_json(data, PROGRESS_BYTES_MAX),
        )

    def _line(self, message: str, level: str, fields: dict[str, Any]) -> LogWritten:
        if level not in LEVELS:
            raise ValueError(f"level is one of {', '.join(LEVELS)}")
        told = bounded_json(fields or None, FIELDS_BYTES_MAX)
        return LogWritten(self.attempt, level, plain_text(message), told)

    def _logged(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """The same as log, from any thread."""
        self._soon(self._reports.add, self._line(message, level, fields))

    def _changed(self, change: BreakerChanged) -> None:
        self._soon(self._reports.add, change)

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        raise NotImplementedError

    def _stored(self, name: str, kept: tuple[str, int], media_type: str) -> ArtifactStored:
        return ArtifactStored(self.attempt, name, *kept, media_type)


class Context(_Told, AsyncCaller):
    """What an `async def` handler may do while it runs: on its loop, and in threads it starts, also
    on a loop of their own.
    """

    def __init__(self, job: Job, files: Files, reports: Reports, calls: Calls) -> None:
        super().__init__(job, files, reports, calls)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inputs: dict[str, Path | ArtifactDamaged] = {}

    def _check_files(self) -> None:
        """Check the job's files, which takes too long for the loop of a handler. Blocks."""
        for each in self._job.artifacts:
            try:
                self._inputs[each.sha256] = super()._path_of(each)
            except ArtifactDamaged as error:
                self._inputs[each.sha256] = error

    def _path_of(self, artifact: Artifact) -> Path:
        found = self._inputs[artifact.sha256]
        if isinstance(found, ArtifactDamaged):
            raise found
        return found

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        was: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """What *function* comes to, once: a later attempt gets the stored result instead.

        The result is what JSON makes of it. A step that had another name before says what it *was*
        called. Whatever *function* raises is raised, and not stored. Raises JobError
        `step_not_json`, StepTooLarge, TooManySteps.
        """
        called = await self._on_loop(self._steps.look(name, was))
        if not called.done:
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            kept = self._steps.keep(called, step_json(called.name, result))
            called = await self._on_loop(kept)
        return called.result

    async def submit(
        self, type: str, payload: Any = None, *, name: str | None = None, **fields: Any
    ) -> str:
        """Submit a job that is a part of this one, and is cancelled with it; its id.

        An attempt that submits it again, by the same *name* or without one in the same order,
        finds it there. *fields* are as in Service.submit, and so is what it raises.
        """
        return await self._on_loop(self._children.submit(type, payload, name, fields))

    async def result(self, job_id: str) -> Any:
        """What a job comes to, once it has ended; meanwhile children may run in place of this one.

        Raises JobError `child_failed`, `child_cancelled`, `too_many_waiting`, `artifact_damaged`.
        """
        end = await self._on_loop(self._children.end(job_id))
        if end["file"] is None:
            return outcome_of(job_id, end, self._files)
        return await asyncio.to_thread(outcome_of, job_id, end, self._files)

    async def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """Store a file of this job; the same *name* replaces it. Raises DiskFull, TooLarge.

        A write that may succeed a moment later is tried again; in the end it raises JobError
        `artifact_not_stored`.
        """
        name = _checked(name, content, media_type)
        with stored(name):
            saving = tenacity.AsyncRetrying(sleep=self.sleep, **self._saving(name))
            kept: tuple[str, int] = await saving(asyncio.to_thread, self._files.store, content)
        await self._on_loop(self._reports.now(self._stored(name, kept, media_type)))

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it on the loop; from there at once."""
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    async def _on_loop(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        """Await it on the loop of the service; from there at once."""
        if threading.get_ident() == self._thread:
            return await coroutine
        there = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return await asyncio.wrap_future(there)

    async def sleep(self, delay_s: float) -> None:
        """Wait on the clock of the service."""
        await self._on_loop(sleep(self._reports.clock, delay_s))


class ThreadContext(_Told, ThreadCaller):
    """What a plain function may do while it runs, in a thread or a process of its own."""

    def __init__(
        self,
        job: Job,
        files: Files,
        reports: Reports,
        calls: Calls,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(job, files, reports, calls)
        self._loop = loop

    def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        was: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in Context, for plain functions. Stops here when this attempt should stop."""
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"step {name!r}: in a plain handler a step is a plain function")
        self.check_cancelled()
        called = self._wait(self._steps.look(name, was))
        if not called.done:
            result = step_json(called.name, function(*args, **kwargs))
            called = self._wait(self._steps.keep(called, result))
        return called.result

    def submit(
        self, type: str, payload: Any = None, *, name: str | None = None, **fields: Any
    ) -> str:
        """As in Context, for plain functions."""
        return self._wait(self._children.submit(type, payload, name, fields))

    def result(self, job_id: str) -> Any:
        """As in Context, for plain functions. Stops here when this attempt should stop."""
        end = self._wait(self._unless_stopped(self._children.end(job_id)))
        self.check_cancelled()
        assert end is not None
        return outcome_of(job_id, end, self._files)

    async def _unless_stopped(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer | None:
        """What it comes to; None when this attempt should stop before that."""
        waiting = asyncio.ensure_future(coroutine)
        try:
            while not waiting.done() and not self._stopped:
                pause = asyncio.ensure_future(sleep(self._reports.clock, LOOK_S))
                await asyncio.wait({waiting, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
            # What it waits for may have been cancelled along with this one.
            return None if self._stopped else waiting.result()
        finally:
            waiting.cancel()

    def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """Store a file of this job; the same *name* replaces it. Raises DiskFull, TooLarge.

        A write that may succeed a moment later is tried again; in the end it raises JobError
        `artifact_not_stored`.
        """
        name = _checked(name, content, media_type)
        with stored(name):
            saving = tenacity.Retrying(sleep=self.sleep, **self._saving(name))
            kept = saving(self._files.store, content)
        self._wait(self._reports.now(self._stored(name, kept, media_type)))

    def sleep(self, delay_s: float) -> None:
        """Wait on the clock of the service; no longer than until this attempt should stop."""
        self._wait(self._slept(delay_s))
        self.check_cancelled()

    async def _slept(self, left_s: float) -> None:
        while left_s > 0 and not self._stopped:
            await sleep(self._reports.clock, min(left_s, LOOK_S))
            left_s -= LOOK_S

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        self._home.check()
        self._loop.call_soon_threadsafe(function, *arguments)

    def _wait(self, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        self._home.check()
        if asyncio._get_running_loop() is self._loop:
            coroutine.close()
            raise RuntimeError("the context of a plain handler would block the service's loop here")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _checked(name: str, content: object, media_type: str) -> str:
    """The name of a file that a handler stores. Raises InvalidInput."""
    read_media_type(media_type, "media_type")
    if not issubclass(type(content), bytes | bytearray | memoryview | Path):
        wrong = [{"field": "content", "message": "bytes, or the Path of a file"}]
        raise InvalidInput("the content of an artifact is bytes, or the Path of a file", wrong)
    return check_name(name)

"""The context of an `async def` handler: steps, child jobs, artifacts."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import tenacity

from eventjobs.clock import sleep
from eventjobs.domain.job import Job
from eventjobs.domain.spec import Artifact
from eventjobs.errors import ArtifactDamaged
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.base_context import BaseContext, check_artifact
from eventjobs.handlers.callers import AsyncCaller
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import result_of_child
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.retry import raise_if_not_stored
from eventjobs.handlers.steps import step_result

T = TypeVar("T")


class Context(BaseContext, AsyncCaller):
    """The first argument of an `async def` handler.

    Its methods may be called on the loop of the service, from threads that the handler starts, and
    on event loops in those threads.
    """

    def __init__(
        self, job: Job, files: ArtifactFiles, channel: AttemptChannel, policy: CallPolicy
    ) -> None:
        super().__init__(job, files, channel, policy)
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._inputs: dict[str, Path | ArtifactDamaged] = {}

    def _check_files(self) -> None:
        """Check the job's input files before the handler runs on the loop. Blocks."""
        for each in self._job.artifacts:
            try:
                self._inputs[each.sha256] = super()._artifact_path(each)
            except ArtifactDamaged as error:
                self._inputs[each.sha256] = error

    def _artifact_path(self, artifact: Artifact) -> Path:
        path = self._inputs[artifact.sha256]
        if isinstance(path, ArtifactDamaged):
            raise path
        return path

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        was: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call *function* once and store its result; a later attempt gets the stored result.

        The result must be JSON, and is returned as JSON: a tuple comes back as a list. *was* is the
        name that a renamed step had before. An error that *function* raises is raised and not
        stored. Raises InvalidInput, JobError `step_not_json`, StepTooLarge, TooManySteps.
        """
        call = await self._on_loop(self._steps.lookup(name, was))
        if not call.done:
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            stored = self._steps.store(call, step_result(call.name, result))
            call = await self._on_loop(stored)
        return call.result

    async def submit(
        self, type: str, payload: Any = None, *, name: str | None = None, **fields: Any
    ) -> str:
        """Submit a child job, which is cancelled along with this job; its id.

        A later attempt that submits the same *name* gets the id of the existing child. Unnamed
        children are matched by the order of submission. *fields* and errors are those of
        Service.submit.
        """
        return await self._on_loop(self._children.submit(type, payload, name, fields))

    async def result(self, job_id: str) -> Any:
        """Wait until a job has ended and return its result. Child jobs may take this job's slot.

        Raises JobNotFound, and JobError `child_failed`, `child_cancelled`, `too_many_waiting`,
        `artifact_damaged`.
        """
        end = await self._on_loop(self._children.wait_until_ended(job_id))
        if end["file"] is None:
            return result_of_child(job_id, end, self._files)
        return await asyncio.to_thread(result_of_child, job_id, end, self._files)

    async def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """Store a file of this job; it replaces an earlier one of the same *name*.

        A write that fails with a transient error is retried. Raises InvalidInput, DiskFull,
        TooLarge, and JobError `artifact_not_stored` after the last try.
        """
        name = check_artifact(name, content, media_type)
        with raise_if_not_stored(name):
            retrying = tenacity.AsyncRetrying(sleep=self.sleep, **self._store_options(name))
            stored: tuple[str, int] = await retrying(asyncio.to_thread, self._files.store, content)
        await self._on_loop(self._channel.record(self._artifact_event(name, stored, media_type)))

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call *function* on the service's loop: at once from the loop itself."""
        if threading.get_ident() == self._thread_id:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    async def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await *coroutine* on the service's loop: directly from the loop itself."""
        if threading.get_ident() == self._thread_id:
            return await coroutine
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return await asyncio.wrap_future(future)

    async def sleep(self, delay_s: float) -> None:
        """Wait for *delay_s* seconds on the service's clock."""
        await self._on_loop(sleep(self._channel.clock, delay_s))

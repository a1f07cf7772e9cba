"""What a handler may do while it runs: tell of it, keep files, and learn that it is to stop."""

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
from eventjobs.handlers.base_context import BaseContext, _checked
from eventjobs.handlers.caller import CallPolicy
from eventjobs.handlers.calling import AsyncCaller
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import outcome_of
from eventjobs.handlers.files import Files
from eventjobs.handlers.retry import raise_if_not_stored
from eventjobs.handlers.steps import step_json

Answer = TypeVar("Answer")


class Context(BaseContext, AsyncCaller):
    """What an `async def` handler may do while it runs: on its loop, and in threads it starts, also
    on a loop of their own.
    """

    def __init__(self, job: Job, files: Files, reports: AttemptChannel, calls: CallPolicy) -> None:
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
        called = await self._on_loop(self._steps.lookup(name, was))
        if not called.done:
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            kept = self._steps.store(called, step_json(called.name, result))
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
        with raise_if_not_stored(name):
            saving = tenacity.AsyncRetrying(sleep=self.sleep, **self._saving(name))
            kept: tuple[str, int] = await saving(asyncio.to_thread, self._files.store, content)
        await self._on_loop(self._reports.record(self._stored(name, kept, media_type)))

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

"""The context of a handler that runs in a thread."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import tenacity

from eventjobs.clock import sleep
from eventjobs.domain.job import Job
from eventjobs.handlers.base_context import BaseContext, _checked
from eventjobs.handlers.caller import CallPolicy
from eventjobs.handlers.calling import ThreadCaller
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import outcome_of
from eventjobs.handlers.context import Answer
from eventjobs.handlers.files import Files
from eventjobs.handlers.retry import raise_if_not_stored
from eventjobs.handlers.steps import step_json

#: How often a thread that waits looks whether it is to stop.
LOOK_S = 0.1


class ThreadContext(BaseContext, ThreadCaller):
    """What a plain function may do while it runs, in a thread or a process of its own."""

    def __init__(
        self,
        job: Job,
        files: Files,
        reports: AttemptChannel,
        calls: CallPolicy,
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
        called = self._wait(self._steps.lookup(name, was))
        if not called.done:
            result = step_json(called.name, function(*args, **kwargs))
            called = self._wait(self._steps.store(called, result))
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
        with raise_if_not_stored(name):
            saving = tenacity.Retrying(sleep=self.sleep, **self._saving(name))
            kept = saving(self._files.store, content)
        self._wait(self._reports.record(self._stored(name, kept, media_type)))

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

"""The context of a plain function, which runs in a thread or a process of its own."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import tenacity

from eventjobs.clock import sleep
from eventjobs.domain.job import Job
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.base_context import BaseContext, check_artifact
from eventjobs.handlers.callers import ThreadCaller
from eventjobs.handlers.channel import AttemptChannel
from eventjobs.handlers.children import result_of_child
from eventjobs.handlers.context import T
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.retry import raise_if_not_stored
from eventjobs.handlers.steps import step_result

#: Pause between two checks of a waiting thread whether its attempt should stop.
STOP_POLL_S = 0.1


class ThreadContext(BaseContext, ThreadCaller):
    """The first argument of a plain handler function. Its methods block."""

    def __init__(
        self,
        job: Job,
        files: ArtifactFiles,
        channel: AttemptChannel,
        policy: CallPolicy,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(job, files, channel, policy)
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
        """As in Context, for plain functions. Raises Stopped when this attempt should stop."""
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"step {name!r}: in a plain handler a step is a plain function")
        self.check_cancelled()
        call = self._wait(self._steps.lookup(name, was))
        if not call.done:
            result = step_result(call.name, function(*args, **kwargs))
            call = self._wait(self._steps.store(call, result))
        return call.result

    def submit(
        self, type: str, payload: Any = None, *, name: str | None = None, **fields: Any
    ) -> str:
        """As in Context, for plain functions."""
        return self._wait(self._children.submit(type, payload, name, fields))

    def result(self, job_id: str) -> Any:
        """As in Context, for plain functions. Raises Stopped when this attempt should stop."""
        end = self._wait(self._unless_stopped(self._children.wait_until_ended(job_id)))
        self.check_cancelled()
        assert end is not None
        return result_of_child(job_id, end, self._files)

    async def _unless_stopped(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """The result of *coroutine*, or None when this attempt should stop first."""
        waiting = asyncio.ensure_future(coroutine)
        try:
            while not waiting.done() and not self._stopped:
                pause = asyncio.ensure_future(sleep(self._channel.clock, STOP_POLL_S))
                await asyncio.wait({waiting, pause}, return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
            # The job that it waits for may have been cancelled along with this one.
            return None if self._stopped else waiting.result()
        finally:
            waiting.cancel()

    def artifact(
        self, name: str, content: bytes | Path, media_type: str = "application/octet-stream"
    ) -> None:
        """As in Context, for plain functions."""
        name = check_artifact(name, content, media_type)
        with raise_if_not_stored(name):
            retrying = tenacity.Retrying(sleep=self.sleep, **self._store_options(name))
            stored = retrying(self._files.store, content)
        self._wait(self._channel.record(self._artifact_event(name, stored, media_type)))

    def sleep(self, delay_s: float) -> None:
        """Wait on the service's clock. Raises Stopped as soon as this attempt should stop."""
        self._wait(self._sleep_or_stop(delay_s))
        self.check_cancelled()

    async def _sleep_or_stop(self, left_s: float) -> None:
        while left_s > 0 and not self._stopped:
            await sleep(self._channel.clock, min(left_s, STOP_POLL_S))
            left_s -= STOP_POLL_S

    def _call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        self._process.check()
        self._loop.call_soon_threadsafe(function, *arguments)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._process.check()
        if asyncio._get_running_loop() is self._loop:
            coroutine.close()
            raise RuntimeError("the context of a plain handler would block the service's loop here")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

"""Serves the requests of a handler in a process: steps, child jobs, files, breakers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from eventjobs.domain.decisions import Report
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import EventjobsError, JobError
from eventjobs.execution.processes.wire import decode_event
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.handlers.breaker_state import BreakerConfig, BreakerOpen, BreakerRegistry
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe

_SPEC = TypeAdapter(JobSpec)


class RequestServer:
    """Serves the requests of one process. *send* sends it a message."""

    def __init__(
        self, files: ArtifactFiles, breakers: BreakerRegistry, send: Callable[..., object]
    ) -> None:
        self._files = files
        self._breakers = breakers
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        #: By breaker name, the trial calls that the running job is making.
        self._trials: dict[str, BreakerConfig] = {}

    def serve(self, reporter: AttemptReporter, request_id: int, what: str, *arguments: Any) -> None:
        """Reply to a request in a task of its own."""
        reply = self._reply(reporter, request_id, what, *arguments)
        task = asyncio.create_task(reply, name="reply")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end_trials(self) -> None:
        """The job has ended: its unfinished trials have no result."""
        while self._trials:
            trial = self._trials.popitem()
            self._breakers.leave(*trial, "unknown", trial=True)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _reply(
        self, reporter: AttemptReporter, request_id: int, what: str, *arguments: Any
    ) -> None:
        try:
            reply = ["value", await self._result(reporter, what, *arguments)]
        except JobError as error:
            fields = (error.error_code, error.message, error.retryable, error.details)
            reply = ["JobError", fields]
        except EventjobsError as error:
            reply = [type(error).__name__, error.message]
        except OSError as error:
            reply = ["OSError", [error.errno, error.strerror, error.filename]]
        except Exception as error:  # noqa: BLE001 -- else the handler would wait for ever
            get_logger("eventjobs.processes").error("request not answered", exc_info=error)
            reply = ["EventjobsError", f"the service could not answer: {describe(error)}"]
        self._send("reply", request_id, *reply)

    async def _result(self, reporter: AttemptReporter, what: str, *arguments: Any) -> Any:
        match what:
            case "record":
                return await reporter.record(cast(Report, decode_event(*arguments)))
            case "steps":
                return await reporter.steps()
            case "submit_child":
                name, spec = arguments
                return await reporter.submit_child(name, _SPEC.validate_python(spec))
            case "wait_for_job":
                return await reporter.wait_for_job(*arguments)
            case "checked_path":
                return str(await asyncio.to_thread(self._files.checked_path, *arguments))
            case "store":
                return await asyncio.to_thread(self._files.store, Path(*arguments))
            case "enter":
                return self._enter(*arguments)
            case "leave":
                return self._leave(*arguments)

    def _enter(self, name: str, values: dict[str, Any]) -> Any:
        """Whether the call is a trial; (until_us, left_s) when the breaker is open."""
        config = BreakerConfig(**values)
        try:
            trial = self._breakers.enter(name, config)
        except BreakerOpen as open:
            return open.until_us, open.left_s
        if trial:
            self._trials[name] = config
        return trial

    def _leave(self, name: str, values: dict[str, Any], result: Any, trial: bool) -> Any:
        if trial:
            self._trials.pop(name, None)
        return self._breakers.leave(name, BreakerConfig(**values), result, trial=trial)

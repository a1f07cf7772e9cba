"""Calls completion hooks: the handlers of the jobs that run them, and the runner of these."""

import asyncio
import inspect
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from yarl import URL

from eventjobs.auth.master_key import MasterKey
from eventjobs.commands.jobs import Jobs
from eventjobs.concurrency.threads import run_in_new_thread
from eventjobs.domain.ids import hook_id
from eventjobs.domain.job import Job
from eventjobs.domain.mask import Mask
from eventjobs.domain.timestamps import rfc3339
from eventjobs.errors import InvalidInput, JobError, OutboundFailed, OutboundRefused
from eventjobs.execution.runner import Runner
from eventjobs.execution.source import JobSource
from eventjobs.handlers.context import Context
from eventjobs.handlers.declare import handler, remote
from eventjobs.handlers.hooks import CompletedJob, CompletionHook, HookRecord, build_hook
from eventjobs.handlers.registry import Handler, HandlerRegistry
from eventjobs.outbound.client import OutboundClient
from eventjobs.outbound.dispatch_response import result_of
from eventjobs.outbound.signing import signature
from eventjobs.settings import Settings

#: Hooks that run at once.
HOOKS_MAX = 32


def with_settings(
    handlers: HandlerRegistry, settings: Settings, outbound: OutboundClient
) -> HandlerRegistry:
    """*handlers* with the remote types and the hooks of the settings. Raises InvalidInput for a
    hook of a type without a handler, or at an address that is not allowed.
    """
    registry = handlers.with_defaults(map(remote, settings.worker_types))
    try:
        registry = registry.with_hooks(map(build_hook, settings.completion_hooks))
    except ValueError as error:
        raise InvalidInput(str(error)) from error
    for each in registry.hooks:
        try:
            registry.get(each.type)
            if each.url is not None:
                outbound.policy.check(each.url)
        except (InvalidInput, OutboundRefused) as error:
            message = f"completion hook {each.name!r} of {each.type!r}: {error.message}"
            raise InvalidInput(message) from error
    return registry


class HookCaller:
    """Runs the jobs of *hooks*, with a *runner* of their own: they and other jobs do not delay
    each other.
    """

    def __init__(
        self,
        jobs: Jobs,
        source: JobSource,
        outbound: OutboundClient,
        keys: MasterKey,
        hooks: Iterable[CompletionHook],
        settings: Settings,
    ) -> None:
        self._jobs = jobs
        self._outbound = outbound
        self._keys = keys
        self.runner = Runner(
            source,
            HandlerRegistry(map(self._handler, hooks)),
            concurrency=HOOKS_MAX,
            threads=0,
            grace_s=settings.grace_s,
            progress_interval_s=settings.progress_interval_s,
            capture_logs=settings.capture_logs,
        )

    def _handler(self, hook: CompletionHook) -> Handler:
        async def run(context: Context, payload: Any) -> dict[str, Any]:
            returned = await self._call(hook, context, payload["job"])
            try:
                return HookRecord.read(returned).model_dump()
            except InvalidInput as error:
                raise JobError("bad_hook_result", error.message, retryable=False) from error

        return handler(hook.job_type)(run)

    async def _call(self, hook: CompletionHook, context: Context, job_id: str) -> Any:
        """What *hook* returns for the completed job. Raises JobError and what the hook raises."""
        job = await self._jobs.current(job_id)
        if job is None or job.finished_us is None:
            raise JobError("erased", f"there is no completed job {job_id}", retryable=False)
        completed = _completed_job(job, await context.result(job_id))
        if hook.function is None:
            return await self._post(hook, job, completed)
        if inspect.iscoroutinefunction(hook.function):
            return await hook.function(completed)
        return await run_in_new_thread(partial(hook.function, completed), f"hook {hook.name}")

    async def _post(self, hook: CompletionHook, job: Job, completed: CompletedJob) -> Any:
        assert hook.url is not None
        mask = None if hook.unmasked else Mask.of(job.spec)
        body = await asyncio.to_thread(_request_body, hook, completed, mask)
        message_id = hook_id(job.job_id, hook.name)
        secret = self._keys.signing_secret("dispatch", hook.job_type)
        signed = signature(secret, message_id, body, self._jobs.clock.now_us())
        headers = {"Content-Type": "application/json", "Idempotency-Key": message_id, **signed}
        try:
            response = await self._outbound.post(hook.url, body, headers, timeout_s=hook.timeout_s)
        except OutboundRefused as error:
            raise JobError(error.code, error.message, retryable=False) from error
        except OutboundFailed as error:
            raise JobError(error.code, error.message) from error
        return result_of(response)


def _completed_job(job: Job, result: Any) -> CompletedJob:
    spec = job.spec
    completed_at = datetime.fromtimestamp((job.finished_us or 0) / 1e6, UTC)
    return CompletedJob(
        job.job_id,
        spec.type,
        spec.owner,
        spec.payload,
        result,
        job.artifacts,
        spec.tags,
        completed_at,
    )


def _request_body(hook: CompletionHook, completed: CompletedJob, mask: Mask | None) -> bytes:
    """The request as JSON. It may be large."""
    at = rfc3339(int(completed.completed_at.timestamp() * 1_000_000))
    artifacts = [
        asdict(each) | {"url": f"/v1/jobs/{completed.job_id}/artifacts/{URL.build(path=each.name)}"}
        for each in completed.artifacts
    ]
    fields = vars(completed) | {"artifacts": artifacts, "tags": list(completed.tags)}
    fields |= {"completed_at": at, "hook": hook.name}
    return orjson.dumps(fields if mask is None else mask.fields(fields))

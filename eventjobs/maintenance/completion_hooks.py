"""Completion hooks: a job is submitted for each hook of a completed job, and its end recorded.

The views show at any time which hooks these are. So none is forgotten when the service stops, and
the ids of the hooks' jobs follow from the completed jobs: each is submitted once.
"""

import asyncio
from contextlib import suppress

from eventjobs.clock import timeout
from eventjobs.commands.jobs import Jobs
from eventjobs.domain.events import HOOK_TYPES, HookCompleted, HookFailed
from eventjobs.domain.hook_results import hook_type
from eventjobs.domain.job import Job, Status
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import JobExists, JobGone
from eventjobs.handlers.hooks import ATTEMPTS
from eventjobs.handlers.registry import HandlerRegistry
from eventjobs.observability.logging import get_logger
from eventjobs.projections import JobChange, Views
from eventjobs.projections.hooks import PendingHook
from eventjobs.supervision import AGAIN_S, Isolation

#: The actor of hooks' submissions and ends in the log.
ACTOR = "hooks"
#: Hooks handled at a time.
PAGE = 200


class CompletionHooks:
    """Submits the jobs of *handlers*' hooks, and records their ends. To be created before any job
    runs.

    A hook that is no longer declared gets its job, too, which waits until the hook is declared
    again or the job is cancelled.
    """

    def __init__(self, jobs: Jobs, views: Views, handlers: HandlerRegistry) -> None:
        self._jobs = jobs
        self._views = views
        self._hooks = {each.job_type: each for each in handlers.hooks}
        self._wake = asyncio.Event()
        self._isolation = Isolation(jobs.clock, "eventjobs.hooks", "completion hook")
        self._log = get_logger("eventjobs.hooks")
        views.listen(self._on_changes)

    async def run(self) -> None:
        """Handle hooks until cancelled."""
        while True:
            self._wake.clear()
            await self._views.wait_for_position(self._jobs.log.head)
            # Hooks that cannot be handled now must not take the places of others.
            pending = await self._views.pending_hooks(PAGE + len(self._isolation))
            ready = [each for each in pending if self._isolation.may_run(each.hook_id)]
            if not ready:
                with suppress(TimeoutError):
                    async with timeout(self._jobs.clock, AGAIN_S if pending else None):
                        await self._wake.wait()
                continue
            await asyncio.gather(*map(self._handle, ready))

    async def _handle(self, hook: PendingHook) -> None:
        work = self._record_end(hook) if hook.ended else self._submit(hook)
        await self._isolation.attempt(hook.hook_id, work, job_id=hook.job_id, hook=hook.name)

    async def _submit(self, hook: PendingHook) -> None:
        job = await self._jobs.load(hook.job_id)
        assert job is not None, "the views have a job that the log has not"
        type = hook_type(job.spec.type, hook.name)
        declared = self._hooks.get(type)
        spec = JobSpec(
            type,
            {"job": hook.job_id, "hook": hook.name},
            tags=(f"hook:{hook.name}",),
            owner=job.spec.owner,
            max_attempts=ATTEMPTS if declared is None else declared.max_attempts,
            timeout_s=None if declared is None else declared.timeout_s,
            retry_delay_s=None if declared is None else declared.retry_delay_s,
            sensitive=job.spec.sensitive,
        )
        # It exists with other options if they were changed at a restart.
        with suppress(JobExists, JobGone):
            await self._jobs.submit(spec, actor=ACTOR, job_id=hook.hook_id)

    async def _record_end(self, hook: PendingHook) -> None:
        job = await self._jobs.load_even_parked(hook.hook_id)
        if job is None or job.finished:
            event = _end_of(hook.name, job)
            if isinstance(event, HookFailed):
                self._log.error(
                    "completion hook failed",
                    hook=hook.name,
                    job_id=hook.job_id,
                    hook_job=hook.hook_id,
                    code=event.code,
                )
            await self._jobs.end_hook(hook.job_id, event, actor=ACTOR)

    def _on_changes(self, changes: list[JobChange]) -> None:
        for change in changes:
            spec = change.after.spec
            if spec.hooks or spec.type.startswith(HOOK_TYPES):
                self._wake.set()
                return


def _end_of(name: str, job: Job | None) -> HookCompleted | HookFailed:
    """The end of the hook *name*, whose *job* has ended; None: it cannot be read."""
    if job is None or job.parked is not None:
        return HookFailed(name, "job_unreadable")
    if job.status == Status.COMPLETED:
        result = job.result
        return HookCompleted(name, result["id"], result["url"])
    error = job.error if job.status == Status.FAILED else None
    if error is None:
        return HookFailed(name, str(job.status))
    return HookFailed(name, error["code"], error["message"])

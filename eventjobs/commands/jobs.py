"""The commands on jobs. Each loads a job, decides, appends one event, and repeats on Conflict."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from eventjobs.clock import Clock, SystemClock
from eventjobs.commands.command_queue import CommandQueue, CommandResult, Decide
from eventjobs.commands.job_cache import JobCache
from eventjobs.domain import decisions
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import (
    AttemptFailed,
    AttemptHandedOver,
    Event,
    HookCompleted,
    HookFailed,
    JobImported,
    JobSubmitted,
    StepCompleted,
)
from eventjobs.domain.ids import (
    child_id,
    id_of_key,
    legacy_child_id,
    legacy_id_of_key,
    new_id,
    parse_id,
)
from eventjobs.domain.job import Job
from eventjobs.domain.json_fields import fragment_of
from eventjobs.domain.spec import JSON, JobSpec
from eventjobs.domain.validation import Reason, read_name, read_reason, validate
from eventjobs.errors import (
    Conflict,
    EventjobsError,
    IdempotencyKeyReused,
    JobExists,
    JobNotFound,
    LogError,
    StepTooLarge,
)
from eventjobs.log import EventLog, NewEvent


class CommandReason(BaseModel):
    """The reason for a command, which the job's history shows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Reason | None = None


class RetryOptions(CommandReason):
    """How a job runs again. By default its completed steps are not repeated."""

    from_step: str | None = Field(
        None, max_length=300, description="repeat this completed step, and those after it"
    )
    restart: bool = Field(False, description="repeat all steps")

    @model_validator(mode="after")
    def _one_way(self) -> "RetryOptions":
        if self.from_step is not None and self.restart:
            raise ValueError("give from_step or restart, not both")
        return self


class Jobs:
    """The write side of jobs. Each command returns the job as it is after the command.

    The views follow the log by themselves: wait for `job.position` before reading them.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock | None = None,
        *,
        step_bytes_max: int = 262_144,
        log_lines_max: int = decisions.LINES_MAX,
    ) -> None:
        self.log = log
        self.clock = clock or SystemClock()
        self._step_bytes_max = step_bytes_max
        self._log_lines_max = log_lines_max
        self._cache = JobCache(log)
        self._commands = CommandQueue(self._cache, self.clock)

    async def submit(
        self, spec: JobSpec, *, actor: str, job_id: str | None = None, key: bool = False
    ) -> CommandResult:
        """Submit *spec* as *job_id*, or under a new id. The same submission again changes nothing.

        Raises JobExists, JobGone, or IdempotencyKeyReused when *job_id* is that of a *key*.
        """
        # Ids are hardly ever taken, so this appends without reading, and reads after a Conflict.
        try:
            return await self._append_first(
                job_id or new_id(self.clock.now_us()), JobSubmitted(spec), actor
            )
        except Conflict:
            assert job_id is not None, "two new ids were equal"
        return await self._submit_taken(spec, job_id, key, actor)

    async def _submit_taken(
        self, spec: JobSpec, job_id: str, key: bool, actor: str
    ) -> CommandResult:
        """As *submit*, where there is an event with this id already."""
        await self._require_stream_of_job(job_id)
        try:
            return await self._commands.execute(job_id, partial(decisions.submit, spec=spec), actor)
        except JobExists as error:
            if key:
                raise IdempotencyKeyReused from error
            raise

    async def submit_many(
        self, new_jobs: Sequence[tuple[JobSpec, str, bool]], *, actor: str
    ) -> list[CommandResult | EventjobsError]:
        """Submit these (specification, job id, whether it is that of a key) in one commit; the
        outcome of each, as *submit* returns or raises it.
        """
        events = [NewEvent(job_id, 0, JobSubmitted(spec), actor) for spec, job_id, _ in new_jobs]
        try:
            appended = await self._cache.append_many([None] * len(events), events)
        except LogError as error:
            return [error] * len(events)
        taken = [
            self._try_taken(*new, actor)
            for outcome, new in zip(appended, new_jobs, strict=True)
            if isinstance(outcome, Conflict)
        ]
        others = iter(await asyncio.gather(*taken))
        return [
            CommandResult(outcome, True) if isinstance(outcome, Job) else next(others)
            for outcome in appended
        ]

    async def _try_taken(
        self, spec: JobSpec, job_id: str, key: bool, actor: str
    ) -> CommandResult | EventjobsError:
        try:
            return await self._submit_taken(spec, job_id, key, actor)
        except EventjobsError as error:
            return error

    async def import_state(
        self,
        job_id: str,
        imported: JobImported,
        *,
        newest: bool = True,
        revive: bool = False,
        actor: str,
    ) -> CommandResult:
        """Record the state of a job in another store; its recorded state again changes nothing.

        A state that is not the *newest* is part of the job's old history. With *revive* a hidden
        job is shown again in any case. Raises JobExists for a job submitted to this service.
        """
        if self._cache.get(job_id) is None:
            with suppress(Conflict):  # most are new, as in *submit*
                return await self._append_first(job_id, imported, actor)
            await self._require_stream_of_job(job_id)
        decide = partial(decisions.import_job, imported=imported, newest=newest, revive=revive)
        return await self._commands.execute(job_id, decide, actor)

    async def delete_import(self, job_id: str, *, actor: str) -> CommandResult:
        """Hide an imported job in any state. Raises WrongState for another job."""
        return await self._commands.execute(job_id, decisions.delete_import, actor)

    async def _change(self, job_id: str, decide: Decide, actor: str) -> Job:
        return (await self._commands.execute(job_id, decide, actor)).job

    async def _append_first(self, job_id: str, event: Event, actor: str) -> CommandResult:
        return CommandResult(await self._cache.append(None, job_id, event, actor), True)

    async def _require_stream_of_job(self, job_id: str) -> None:
        if await self.load(job_id) is None:
            raise JobExists("this id belongs to a webhook, a pause or an API key")

    async def start(
        self, job_id: str, *, worker: str, lease_s: float | None = None, now_us: int | None = None
    ) -> Job:
        """Claim a job that is due at *now_us*, by default now. Raises WrongState when it is not due
        or not queued.
        """
        now_us = self.clock.now_us() if now_us is None else now_us
        decide = partial(decisions.start, now_us=now_us, worker=worker, lease_s=lease_s)
        return await self._change(job_id, decide, worker)

    async def hand_over(self, job_id: str, handed: AttemptHandedOver, *, actor: str) -> Job:
        return await self._change(job_id, partial(decisions.hand_over, handed=handed), actor)

    async def report(self, job_id: str, event: Report, *, actor: str) -> Job:
        """Record a report of a running attempt. Raises StaleAttempt, StepTooLarge, TooManySteps."""
        if isinstance(event, StepCompleted):
            self._check_step_size(event)
        decide = partial(decisions.report, event=event, lines_max=self._log_lines_max)
        return await self._change(job_id, decide, actor)

    def _check_step_size(self, step: StepCompleted) -> None:
        size = len(orjson.dumps(fragment_of(step, "result")))
        if size > self._step_bytes_max:
            raise StepTooLarge.of(step.name, size, self._step_bytes_max)

    async def complete(
        self, job_id: str, attempt: int, result: JSON, issues: JSON = None, *, actor: str
    ) -> Job:
        decide = partial(decisions.complete, attempt=attempt, result=result, issues=issues)
        return await self._change(job_id, decide, actor)

    async def fail(self, job_id: str, failed: AttemptFailed, *, actor: str) -> Job:
        return await self._change(job_id, partial(decisions.fail, failed=failed), actor)

    async def release(self, job_id: str, attempt: int, reason: str, *, actor: str) -> Job:
        decide = partial(decisions.release, attempt=attempt, reason=reason)
        return await self._change(job_id, decide, actor)

    async def cancel_attempt(self, job_id: str, attempt: int, *, actor: str) -> Job:
        return await self._change(job_id, partial(decisions.cancel_attempt, attempt=attempt), actor)

    async def cancel(
        self, job_id: str, reason: str | None = None, *, actor: str, guard: "Guard | None" = None
    ) -> CommandResult:
        """Cancel a job; a running one is asked to stop. Raises WrongState, and as *guard* does."""
        job_id, reason = parse_id(job_id), read_reason(reason, "reason")
        decide = partial(decisions.cancel, reason=reason)
        return await self._commands.execute(job_id, _with_guard(decide, guard), actor)

    async def retry(
        self,
        job_id: str,
        reason: str | None = None,
        *,
        from_step: str | None = None,
        restart: bool | None = None,
        actor: str,
        guard: "Guard | None" = None,
    ) -> CommandResult:
        """Queue it again. Raises WrongState, UnknownStep, and what *guard* raises."""
        job_id = parse_id(job_id)
        fields = {"reason": reason, "from_step": from_step, "restart": restart}
        present = {name: each for name, each in fields.items() if each is not None}
        options = validate(RetryOptions, present, "retry")
        decide = partial(decisions.retry, **vars(options))
        return await self._commands.execute(job_id, _with_guard(decide, guard), actor)

    async def refuse(self, job_id: str, attempt: int, report: str, *, actor: str) -> CommandResult:
        """Record, once, that a *report* of *attempt* came too late."""
        return await self._commands.execute(
            job_id, partial(decisions.refuse, attempt=attempt, report=report), actor
        )

    async def expire(
        self, job_id: str, reason: str, *, actor: str, guard: "Guard | None" = None
    ) -> CommandResult:
        job_id, reason = parse_id(job_id), read_name(reason, "reason")
        decide = partial(decisions.expire, reason=reason)
        return await self._commands.execute(job_id, _with_guard(decide, guard), actor)

    async def end_hook(
        self, job_id: str, event: HookCompleted | HookFailed, *, actor: str
    ) -> CommandResult:
        """Record the end of a completion hook. After the first record nothing changes."""
        return await self._commands.execute(job_id, partial(decisions.end_hook, event=event), actor)

    async def child_id(self, parent: Job, name: str) -> str:
        """The id of the child *name*: its legacy id if an earlier version submitted the child."""
        reserved_after = self.log.reserved_after
        if parent.born <= reserved_after:
            legacy_id = legacy_child_id(parent.job_id, name)
            child = await self.load(legacy_id)
            is_child = child is not None and child.spec.parent == parent.job_id
            if child is not None and is_child and child.born <= reserved_after:
                return legacy_id
        return child_id(parent.job_id, name)

    async def id_of_key(self, key: str, owner: str | None) -> str:
        """The job id of an idempotency key of *owner*: its legacy id if an earlier version
        submitted the job.
        """
        if reserved_after := self.log.reserved_after:
            legacy_id = legacy_id_of_key(key, owner or "")
            job = await self.load_even_parked(legacy_id)
            if job is not None and job.spec.owner == owner and job.born <= reserved_after:
                return legacy_id
        return id_of_key(key, owner or "")

    async def load(self, job_id: str) -> Job | None:
        """The job, possibly a cached one that lags behind the log. Raises JobUnreadable."""
        return await self._cache.load(job_id)

    async def load_even_parked(self, job_id: str) -> Job | None:
        """As *load*, but a parked job is returned. None also for a job whose first event is
        unreadable.
        """
        return await self._cache.load_even_parked(job_id)

    async def current(self, job_id: str) -> Job | None:
        """The job with all events that are in the log now. Raises JobUnreadable."""
        return await self._cache.catch_up(job_id, await self.load(job_id))

    async def wait_until_finished(self, job_id: str, *, hooks: bool = False) -> Job:
        """The job, once it has ended, with *hooks* once its completion hooks have, too. Raises
        JobNotFound, JobUnreadable.
        """
        while True:
            head = self.log.head
            job = await self.current(job_id)
            if job is None:
                raise JobNotFound(f"there is no job {job_id}")
            if job.is_over or (job.finished and not hooks):
                return job
            await self.log.wait(head, job_id)


#: Raises a Rejected when a command must not be done on the job. If the job was stale, it is read
#: again and checked again.
Guard = Callable[[Job], None]


def _with_guard(decide: Decide, guard: Guard | None) -> Decide:
    """*decide* after *guard*, which is called for visible jobs only."""
    if guard is None:
        return decide

    def check_and_decide(job: Job | None) -> Event | None:
        if job is not None and job.expired_us is None:
            guard(job)
        return decide(job)

    return check_and_decide

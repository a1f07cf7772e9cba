"""Commands on one job run one at a time and in order; those that come together share a commit."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, NamedTuple

from eventjobs.clock import Clock
from eventjobs.commands.job_cache import JobCache
from eventjobs.domain.events import Event
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, JobNotFound, Rejected
from eventjobs.log import NewEvent

#: Conflicts of one command before it raises Conflict.
CONFLICTS_MAX = 10
#: Most commands whose events are appended together. Each event may have 256 KiB and more.
TOGETHER_MAX = 256

#: A decision on the job as it is: the event to append, None for none, or a Rejected.
Decide = Callable[[Job | None], Event | None]


class CommandResult(NamedTuple):
    """The job after a command, and whether the command changed it."""

    job: Job
    changed: bool


@dataclass(slots=True, eq=False)
class _Command:
    """A command that waits for its turn."""

    decide: Decide
    actor: str
    result: asyncio.Future[CommandResult]

    def complete(self, result: CommandResult) -> None:
        if not self.result.done():  # its caller may have been cancelled
            self.result.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class _Decided(NamedTuple):
    """A command, the job that its event follows as JobCache.append_many has it, and the event."""

    command: _Command
    job: Job | None
    event: NewEvent


class CommandQueue:
    """Without it a handler that reports constantly would win every conflict, and a cancel would
    never succeed.

    Commands on several jobs that come in one iteration of the loop are appended together. Commands
    that come during an append of their job are appended together in the next one, each decided on
    the job as the one before leaves it (flat combining).
    """

    def __init__(self, jobs: JobCache, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        #: By job with a command that waits or runs: the commands that wait.
        self._waiting: dict[str, deque[_Command]] = {}
        #: Jobs whose commands run next, and how many of them at most. While there are any, a task
        #: is about to begin that takes them.
        self._ready: deque[tuple[str, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, job_id: str, decide: Decide, actor: str) -> CommandResult:
        """Decide and append. Raises what *decide* and EventLog.append raise, JobNotFound, and
        Conflict after too many of them.
        """
        result: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        command = _Command(decide, actor, result)
        waiting = self._waiting.get(job_id)
        if waiting is not None:
            waiting.append(command)
        else:
            self._waiting[job_id] = deque((command,))
            self._make_ready(job_id, 1)  # it shows whether the cached job is stale
        return await result

    def _make_ready(self, job_id: str, count: int) -> None:
        if not self._ready:
            self._start(self._run_ready())
        self._ready.append((job_id, count))

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        # Its context is empty, because it runs commands of several callers.
        task = asyncio.create_task(run, name="commands", context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_ready(self) -> None:
        """Run commands of the jobs that are ready: together, or each alone that has to read."""
        together: list[_Decided] = []
        while self._ready and len(together) < TOGETHER_MAX:
            job_id, count = self._ready.popleft()
            if decided := self._decide(job_id, min(count, TOGETHER_MAX - len(together))):
                together += decided
            else:
                self._start(self._run_alone(job_id, [self._waiting[job_id].popleft()]))
        if self._ready:
            self._start(self._run_ready())
        if together:
            await self._append(together)

    def _decide(self, job_id: str, count: int) -> list[_Decided]:
        """Take up to *count* commands of the job, before the first one that adds no event.

        That one is decided again in its turn, on a job that is durable.
        """
        decided: list[_Decided] = []
        waiting, job = self._waiting[job_id], self._jobs.get(job_id)
        while job is not None and waiting and len(decided) < count:
            command = waiting[0]
            if command.result.done():
                break
            try:
                event = command.decide(job)
            except Exception:  # noqa: BLE001  raised when it is decided again
                break
            if event is None:
                break
            new = NewEvent(job_id, job.version, event, command.actor)
            decided.append(_Decided(waiting.popleft(), None if decided else job, new))
            if waiting:
                job = evolve(job, self._provisional(new))
        return decided

    def _provisional(self, new: NewEvent) -> Recorded:
        """*new* as it will be recorded, as far as decisions depend on it."""
        at_us = self._clock.now_us()
        return Recorded(0, new.job_id, new.version + 1, at_us, new.actor, new.event, "", b"", b"")

    async def _append(self, together: Sequence[_Decided]) -> None:
        outcomes: Sequence[Job | BaseException]
        try:
            outcomes = await self._jobs.append_many(
                [each.job for each in together], [each.event for each in together]
            )
        except (TypeError, ValueError) as error:  # one of them cannot be stored
            outcomes = [Conflict(str(error))] * len(together)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  raised in the callers
            outcomes = [error] * len(together)
        alone: dict[str, list[_Command]] = {}
        for (command, _, new), outcome in zip(together, outcomes, strict=True):
            if isinstance(outcome, Job):
                command.complete(CommandResult(outcome, True))
            elif isinstance(outcome, Conflict):  # the cached job was stale
                alone.setdefault(new.job_id, []).append(command)
            else:
                command.fail(outcome)
        for job_id in dict.fromkeys(each.event.job_id for each in together):
            if job_id in alone:
                self._start(self._run_alone(job_id, alone[job_id]))
            else:
                self._end(job_id)

    async def _run_alone(self, job_id: str, commands: Sequence[_Command]) -> None:
        for command in commands:
            if command.result.done():
                continue
            try:
                result = await self._execute(job_id, command.decide, command.actor)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  as in _append
                command.fail(error)
            else:
                command.complete(result)
        self._end(job_id)

    def _end(self, job_id: str) -> None:
        """The commands of the job that ran have ended: run those that wait."""
        if self._waiting[job_id]:
            self._make_ready(job_id, TOGETHER_MAX)
        else:
            del self._waiting[job_id]

    async def _execute(self, job_id: str, decide: Decide, actor: str) -> CommandResult:
        job = self._jobs.get(job_id) or await self._jobs.load(job_id)
        for _ in range(CONFLICTS_MAX):
            try:
                event = decide(job)
            except Rejected:
                decided_on, job = job, await self._jobs.catch_up(job_id, job)
                if job is decided_on:
                    raise
                continue  # the cached job was stale
            if event is None:
                if job is None:
                    raise JobNotFound
                return CommandResult(job, False)
            try:
                return CommandResult(await self._jobs.append(job, job_id, event, actor), True)
            except Conflict:
                job = await self._jobs.catch_up(job_id, job)
        raise Conflict(f"job {job_id} changed {CONFLICTS_MAX} times during this command")

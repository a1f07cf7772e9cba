"""Commands on one job run one at a time and in order; those that wait are decided together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from eventjobs.clock import Clock
from eventjobs.commands.job_cache import JobCache
from eventjobs.domain.events import Event
from eventjobs.domain.job import Job, evolve
from eventjobs.domain.recorded import Recorded
from eventjobs.errors import Conflict, JobNotFound, LogError, Rejected
from eventjobs.log import NewEvent

#: Conflicts of one command before it raises Conflict.
CONFLICTS_MAX = 10
#: Commands on one job whose events are appended together.
TOGETHER_MAX = 256

#: A decision on the job as it is: the event to append, None for none, or a Rejected.
Decide = Callable[[Job | None], Event | None]


class CommandResult(NamedTuple):
    """The job after a command, and whether the command changed it."""

    job: Job
    changed: bool


@dataclass(slots=True, eq=False)
class _Waiting:
    """A command that waits for its turn."""

    decide: Decide
    actor: str
    result: asyncio.Future[CommandResult]

    def fail(self, error: BaseException) -> None:
        if not self.result.done():  # its caller may have been cancelled
            self.result.set_exception(error)


class CommandQueue:
    """Without it a handler that reports constantly would win every conflict, and a cancel would
    never succeed.

    A command alone costs no task. Commands that arrive during a commit are appended in the next
    one, each decided on the job as the one before leaves it (flat combining).
    """

    def __init__(self, jobs: JobCache, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        #: By job with a command that runs: the commands after it.
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, job_id: str, decide: Decide, actor: str) -> CommandResult:
        """Decide and append. Raises what *decide* and EventLog.append raise, JobNotFound, and
        Conflict after too many of them.
        """
        waiting = self._waiting.get(job_id)
        if waiting is not None:
            result: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
            waiting.append(_Waiting(decide, actor, result))
            return await result
        self._waiting[job_id] = waiting = deque()
        try:
            return await self._execute(job_id, decide, actor)
        finally:
            if waiting:
                # Its context is empty, because it runs commands of several callers.
                run = self._run_waiting(job_id, waiting)
                task = asyncio.create_task(run, name="waiting commands", context=Context())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                del self._waiting[job_id]

    async def _run_waiting(self, job_id: str, waiting: deque[_Waiting]) -> None:
        try:
            while waiting:
                job, events = await self._decide_first(job_id, waiting)
                commands = list(islice(waiting, max(1, len(events))))
                if len(events) > 1:
                    await self._append_together(job, commands, events)
                else:
                    await self._run_alone(job_id, commands[0])
                for _ in commands:
                    waiting.popleft()
        finally:
            for command in waiting:  # none, unless the loop closes
                command.result.cancel()
            del self._waiting[job_id]

    async def _decide_first(
        self, job_id: str, waiting: Sequence[_Waiting]
    ) -> tuple[Job | None, list[NewEvent]]:
        """The job, and the events of the first commands up to one that adds none.

        That one is decided again in its turn, on a job that is durable.
        """
        events: list[NewEvent] = []
        try:
            present = job = self._jobs.get(job_id) or await self._jobs.load(job_id)
        except Exception:  # noqa: BLE001  the first command raises it
            return None, events
        for command in islice(waiting, TOGETHER_MAX):
            if command.result.done():
                break
            try:
                event = command.decide(job)
            except Exception:  # noqa: BLE001  as above
                break
            if event is None:
                break
            new = NewEvent(job_id, job.version if job else 0, event, command.actor)
            events.append(new)
            job = evolve(job, self._provisional(new))
        return present, events

    def _provisional(self, new: NewEvent) -> Recorded:
        """*new* as it will be recorded, as far as decisions depend on it."""
        at_us = self._clock.now_us()
        return Recorded(0, new.job_id, new.version + 1, at_us, new.actor, new.event, "", b"", b"")

    async def _append_together(
        self, job: Job | None, commands: Sequence[_Waiting], events: Sequence[NewEvent]
    ) -> None:
        try:
            outcomes = await self._jobs.append_many([job, *[None] * (len(events) - 1)], events)
        except LogError as error:
            for command in commands:
                command.fail(error)
        except (TypeError, ValueError):  # one of them cannot be stored
            for command, event in zip(commands, events, strict=True):
                await self._run_alone(event.job_id, command)
        else:
            for command, event, outcome in zip(commands, events, outcomes, strict=True):
                if isinstance(outcome, Conflict):  # the cached job was stale
                    await self._run_alone(event.job_id, command)
                elif not command.result.done():
                    command.result.set_result(CommandResult(outcome, True))

    async def _run_alone(self, job_id: str, command: _Waiting) -> None:
        if command.result.done():
            return
        try:
            result = await self._execute(job_id, command.decide, command.actor)
        except Exception as error:  # noqa: BLE001  raised in the caller
            command.fail(error)
        else:
            if not command.result.done():
                command.result.set_result(result)

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

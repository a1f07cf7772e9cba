"""Processes that run handlers: made when there is work, used again, and stopped for good."""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from eventjobs.clock import Clock
from eventjobs.domain.job import Job
from eventjobs.domain.outcomes import Failed, Outcome, Released
from eventjobs.execution.processes.reaper import ProcessReaper
from eventjobs.execution.processes.worker_process import (
    ProcessEnvironment,
    ProcessRun,
    WorkerProcess,
)
from eventjobs.execution.reporter import AttemptReporter
from eventjobs.handlers.caller import CallPolicy
from eventjobs.handlers.files import Files
from eventjobs.handlers.registry import Handler

#: A process that has had nothing to do for so long is ended: it may hold a lot of memory.
IDLE_S = 60.0
#: As many jobs may wait for a process here as are done in that time, judging by those before.
AHEAD_S = 0.02
AHEAD_MAX = 16
#: A job that has waited for so long, behind one that takes longer, is for somebody else.
WAIT_S = 0.1
#: How much of the time that a job took is remembered at the next: it takes a few short ones.
MEMORY = 0.8


class ProcessPool:
    """Makes as many as jobs are given at once; *limit* is for whoever gives them.

    A few more may be given *ahead* while jobs are short, so that the next is here when one ends.
    Each process is used for *jobs_max* jobs. *scratch* is for their temporary files alone.
    """

    def __init__(
        self,
        clock: Clock,
        files: Files,
        calls: CallPolicy,
        scratch: Path,
        *,
        limit: int,
        jobs_max: int,
        capture_logs: str = "off",
        grace_s: float,
    ) -> None:
        self._clock = clock
        self._guardian = ProcessReaper()
        self._around = ProcessEnvironment(
            clock, files, calls, capture_logs, self._guardian, self._done
        )
        self._scratch = scratch
        self.limit = limit
        self._grace_s = grace_s
        self._jobs_max = jobs_max
        self._processes: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        #: Jobs that have a process, or get one just now; and those that wait.
        self._at_work = 0
        self._waiting: deque[ProcessRun] = deque()
        #: How long a job has a process, if it takes long. Unknown at first.
        self._long_s: float | None = None

    @property
    def prefetch(self) -> int:
        """How many more than *limit* may be given now."""
        if self._long_s is None:
            return 0
        since_s = self._clock.monotonic_s() - AHEAD_S
        soon = sum(
            each.busy_since_s is not None and each.busy_since_s >= since_s
            for each in self._processes
        )
        return soon * min(AHEAD_MAX, int(AHEAD_S / max(self._long_s, 1e-6)))

    async def run(
        self,
        handler: Handler,
        job: Job,
        reports: AttemptReporter,
        begun: Callable[[], object],
        *,
        ahead: bool = False,
    ) -> Outcome:
        """Do *job* in a process; a process that dies under it is an outcome, too.

        One that is *ahead* may wait for another to end, and is given back when that takes too long.
        Cancelled, it tells the handler to stop, and kills the process after the grace time. It
        returns what the handler comes to all the same, or raises CancelledError.
        """
        run = ProcessRun(handler, job, reports, begun)
        if ahead and self._at_work >= self.limit:
            if not await self._turn(run):
                return Released("no process was free as soon as expected")
        else:
            self._at_work += 1
        if run.process is None:
            try:
                process = await self._free_process()
            except BaseException as error:
                self._next(None)
                if isinstance(error, OSError):  # no memory, or too many processes or open files
                    return Failed("worker_not_started", f"no process could be started: {error}")
                raise
            process.begin(run)
        try:
            return await asyncio.shield(run.outcome)
        except asyncio.CancelledError:
            assert run.process is not None
            run.process.stop(run, self._grace_s)
            return await asyncio.shield(run.outcome)

    async def _turn(self, run: ProcessRun) -> bool:
        """Wait until a process has been given *run*, or one may be made for it; False: too late."""
        self._waiting.append(run)
        timer = self._clock.call_later(WAIT_S, lambda: self._send_away(run))
        try:
            return await run.turn
        except asyncio.CancelledError:
            if run.process is None:
                self._send_away(run)
                if not run.turn.cancelled() and run.turn.result():
                    self._next(None)
                raise
            run.process.stop(run, self._grace_s)
            return True
        finally:
            timer.cancel()

    def _send_away(self, run: ProcessRun) -> None:
        if run in self._waiting:
            self._waiting.remove(run)
            if not run.turn.done():
                run.turn.set_result(False)

    def release(self) -> None:
        """Give back what waits."""
        for run in list(self._waiting):
            self._send_away(run)

    async def close(self) -> None:
        """End all of them; return when none is left."""
        self.release()
        for process in self._idle:
            process.rest.cancel()
        self._idle.clear()
        for process in self._processes:
            process.leave()
        if self._processes:
            await asyncio.wait([process.ended for process in self._processes])
        await self._guardian.close()

    async def _free_process(self) -> WorkerProcess:
        """Raises OSError."""
        if self._idle:
            process = self._idle.pop()  # the newest: the others may come to the end of their rest
            process.rest.cancel()
            return process
        process = await WorkerProcess.start(self._around, self._scratch / uuid4().hex)
        self._processes.add(process)
        process.ended.add_done_callback(lambda _: self._forget(process))
        return process

    def _done(self, process: WorkerProcess, took_s: float) -> None:
        if process.jobs > 1:  # else it was busy with importing
            self._long_s = max(took_s, MEMORY * (self._long_s or 0.0))
        if not process.usable or process.jobs >= self._jobs_max:
            process.leave()
            self._next(None)
        elif not self._next(process):
            process.rest = self._clock.call_later(IDLE_S, lambda: self._dismiss(process))
            self._idle.append(process)

    def _next(self, process: WorkerProcess | None) -> bool:
        """One has ended: the next that waits may begin, in its *process*. Whether that has one."""
        self._at_work -= 1
        while self._waiting and self._at_work < self.limit:
            run = self._waiting.popleft()
            if run.turn.done():
                continue  # it is being cancelled
            self._at_work += 1
            if process is not None:
                process.begin(run)
            run.turn.set_result(True)
            return process is not None
        return False

    def _dismiss(self, process: WorkerProcess) -> None:
        self._idle.remove(process)
        process.leave()

    def _forget(self, process: WorkerProcess) -> None:
        self._processes.discard(process)
        if process in self._idle:  # somebody killed it
            process.rest.cancel()
            self._idle.remove(process)

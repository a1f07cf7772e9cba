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
from eventjobs.handlers.base_caller import CallPolicy
from eventjobs.handlers.files import ArtifactFiles
from eventjobs.handlers.registry import Handler

#: A process that has had nothing to do for so long is ended: it may hold a lot of memory.
IDLE_S = 60.0
#: As many jobs may wait for a process here as are done in that time, judging by those before.
PREFETCH_S = 0.02
PREFETCH_MAX = 16
#: A job that has waited for so long, behind one that takes longer, is for somebody else.
WAIT_S = 0.1
#: How much of the time that a job took is remembered at the next: it takes a few short ones.
JOB_TIME_DECAY = 0.8


class ProcessPool:
    """Makes as many as jobs are given at once; *limit* is for whoever gives them.

    A few more may be given *ahead* while jobs are short, so that the next is here when one ends.
    Each process is used for *jobs_max* jobs. *scratch* is for their temporary files alone.
    """

    def __init__(
        self,
        clock: Clock,
        files: ArtifactFiles,
        calls: CallPolicy,
        scratch: Path,
        *,
        limit: int,
        jobs_max: int,
        capture_logs: str = "off",
        grace_s: float,
    ) -> None:
        self._clock = clock
        self._reaper = ProcessReaper()
        self._environment = ProcessEnvironment(
            clock, files, calls, capture_logs, self._reaper, self._finish_job
        )
        self._scratch = scratch
        self.limit = limit
        self._grace_s = grace_s
        self._jobs_max = jobs_max
        self._processes: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        #: Jobs that have a process, or get one just now; and those that wait.
        self._active = 0
        self._waiting: deque[ProcessRun] = deque()
        #: How long a job has a process, if it takes long. Unknown at first.
        self._job_s: float | None = None

    @property
    def prefetch(self) -> int:
        """How many more than *limit* may be given now."""
        if self._job_s is None:
            return 0
        since_s = self._clock.monotonic_s() - PREFETCH_S
        soon = sum(
            each.busy_since_s is not None and each.busy_since_s >= since_s
            for each in self._processes
        )
        return soon * min(PREFETCH_MAX, int(PREFETCH_S / max(self._job_s, 1e-6)))

    async def run(
        self,
        handler: Handler,
        job: Job,
        reports: AttemptReporter,
        begun: Callable[[], object],
        *,
        is_prefetched: bool = False,
    ) -> Outcome:
        """Do *job* in a process; a process that dies under it is an outcome, too.

        One that is *ahead* may wait for another to end, and is given back when that takes too long.
        Cancelled, it tells the handler to stop, and kills the process after the grace time. It
        returns what the handler comes to all the same, or raises CancelledError.
        """
        run = ProcessRun(handler, job, reports, begun)
        if is_prefetched and self._active >= self.limit:
            if not await self._wait_for_turn(run):
                return Released("no process was free as soon as expected")
        else:
            self._active += 1
        if run.process is None:
            try:
                process = await self._free_process()
            except BaseException as error:
                self._start_next(None)
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

    async def _wait_for_turn(self, run: ProcessRun) -> bool:
        """Wait until a process has been given *run*, or one may be made for it; False: too late."""
        self._waiting.append(run)
        timer = self._clock.call_later(WAIT_S, lambda: self._give_back(run))
        try:
            return await run.turn
        except asyncio.CancelledError:
            if run.process is None:
                self._give_back(run)
                if not run.turn.cancelled() and run.turn.result():
                    self._start_next(None)
                raise
            run.process.stop(run, self._grace_s)
            return True
        finally:
            timer.cancel()

    def _give_back(self, run: ProcessRun) -> None:
        if run in self._waiting:
            self._waiting.remove(run)
            if not run.turn.done():
                run.turn.set_result(False)

    def release(self) -> None:
        """Give back what waits."""
        for run in list(self._waiting):
            self._give_back(run)

    async def close(self) -> None:
        """End all of them; return when none is left."""
        self.release()
        for process in self._idle:
            process.idle_timer.cancel()
        self._idle.clear()
        for process in self._processes:
            process.close()
        if self._processes:
            await asyncio.wait([process.end_task for process in self._processes])
        await self._reaper.close()

    async def _free_process(self) -> WorkerProcess:
        """Raises OSError."""
        if self._idle:
            process = self._idle.pop()  # the newest: the others may come to the end of their rest
            process.idle_timer.cancel()
            return process
        process = await WorkerProcess.start(self._environment, self._scratch / uuid4().hex)
        self._processes.add(process)
        process.end_task.add_done_callback(lambda _: self._discard(process))
        return process

    def _finish_job(self, process: WorkerProcess, took_s: float) -> None:
        if process.job_count > 1:  # else it was busy with importing
            self._job_s = max(took_s, JOB_TIME_DECAY * (self._job_s or 0.0))
        if not process.is_usable or process.job_count >= self._jobs_max:
            process.close()
            self._start_next(None)
        elif not self._start_next(process):
            process.idle_timer = self._clock.call_later(IDLE_S, lambda: self._end_idle(process))
            self._idle.append(process)

    def _start_next(self, process: WorkerProcess | None) -> bool:
        """One has ended: the next that waits may begin, in its *process*. Whether that has one."""
        self._active -= 1
        while self._waiting and self._active < self.limit:
            run = self._waiting.popleft()
            if run.turn.done():
                continue  # it is being cancelled
            self._active += 1
            if process is not None:
                process.begin(run)
            run.turn.set_result(True)
            return process is not None
        return False

    def _end_idle(self, process: WorkerProcess) -> None:
        self._idle.remove(process)
        process.close()

    def _discard(self, process: WorkerProcess) -> None:
        self._processes.discard(process)
        if process in self._idle:  # somebody killed it
            process.idle_timer.cancel()
            self._idle.remove(process)

"""A pool of processes that run handlers: started on demand, reused, closed when idle."""

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

#: Seconds after which an idle process is closed: it may hold a lot of memory.
IDLE_S = 60.0
#: As many jobs are prefetched as processes finish in this time, by the duration of recent jobs.
PREFETCH_S = 0.02
PREFETCH_MAX = 16
#: Seconds after which a prefetched job without a process is released.
WAIT_S = 0.1
#: Decay of the longest job duration per job: after a long job, prefetch waits for a few short.
JOB_TIME_DECAY = 0.8


class ProcessPool:
    """Runs each job in a process of its own, and starts as many processes as there are jobs.

    The caller keeps to *limit* jobs, and may add *prefetch* jobs while jobs are short: the next job
    is then here when one ends. A process runs at most *jobs_max* jobs. The directory *scratch*
    holds the temporary files of the processes.
    """

    def __init__(
        self,
        clock: Clock,
        files: ArtifactFiles,
        policy: CallPolicy,
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
            clock, files, policy, capture_logs, self._reaper, self._finish_job
        )
        self._scratch = scratch
        self.limit = limit
        self._grace_s = grace_s
        self._jobs_max = jobs_max
        self._processes: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        #: The number of jobs that have a process or start one, and the prefetched jobs.
        self._active = 0
        self._waiting: deque[ProcessRun] = deque()
        #: Seconds that a job has a process, a decaying maximum; None until known.
        self._job_s: float | None = None

    @property
    def prefetch(self) -> int:
        """How many jobs may be added to *limit* now."""
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
        reporter: AttemptReporter,
        on_start: Callable[[], object],
        *,
        is_prefetched: bool = False,
    ) -> Outcome:
        """Run *job* in a process and return its outcome. A process that dies is a Failed one.

        A job that *is_prefetched* may wait for another job to end, and is released if that takes
        too long. When this call is cancelled, it asks the handler to stop, kills the process after
        the grace time, and then returns the handler's outcome or raises CancelledError.
        """
        run = ProcessRun(handler, job, reporter, on_start)
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
        """Wait until *run* has a process or may start one; False when it waited too long."""
        self._waiting.append(run)
        timer = self._clock.call_later(WAIT_S, lambda: self._release(run))
        try:
            return await run.turn
        except asyncio.CancelledError:
            if run.process is None:
                self._release(run)
                if not run.turn.cancelled() and run.turn.result():
                    self._start_next(None)
                raise
            run.process.stop(run, self._grace_s)
            return True
        finally:
            timer.cancel()

    def _release(self, run: ProcessRun) -> None:
        if run in self._waiting:
            self._waiting.remove(run)
            if not run.turn.done():
                run.turn.set_result(False)

    def release_prefetched(self) -> None:
        """Release the prefetched jobs."""
        for run in list(self._waiting):
            self._release(run)

    async def close(self) -> None:
        """End all processes; return when none is left."""
        self.release_prefetched()
        for process in self._idle:
            process.idle_timer.cancel()
        self._idle.clear()
        for process in self._processes:
            process.close()
        if self._processes:
            await asyncio.wait([process.end_task for process in self._processes])
        await self._reaper.close()

    async def _free_process(self) -> WorkerProcess:
        """An idle process, or a new one. Raises OSError."""
        if self._idle:
            process = self._idle.pop()  # the newest: older ones may reach IDLE_S
            process.idle_timer.cancel()
            return process
        process = await WorkerProcess.start(self._environment, self._scratch / uuid4().hex)
        self._processes.add(process)
        process.end_task.add_done_callback(lambda _: self._discard(process))
        return process

    def _finish_job(self, process: WorkerProcess, took_s: float) -> None:
        if process.job_count > 1:  # the first job includes imports
            self._job_s = max(took_s, JOB_TIME_DECAY * (self._job_s or 0.0))
        if not process.is_usable or process.job_count >= self._jobs_max:
            process.close()
            self._start_next(None)
        elif not self._start_next(process):
            process.idle_timer = self._clock.call_later(IDLE_S, lambda: self._end_idle(process))
            self._idle.append(process)

    def _start_next(self, process: WorkerProcess | None) -> bool:
        """A job has ended: start prefetched jobs, one in *process*; whether it has one."""
        self._active -= 1
        while self._waiting and self._active < self.limit:
            run = self._waiting.popleft()
            if run.turn.done():
                continue  # its attempt is being cancelled
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
        if process in self._idle:  # it died while idle
            process.idle_timer.cancel()
            self._idle.remove(process)

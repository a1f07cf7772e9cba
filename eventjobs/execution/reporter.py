"""Sends the reports of one attempt to its job source, in order and at a limited rate."""

import asyncio
from collections import deque
from contextvars import copy_context
from itertools import count
from typing import Any

from eventjobs.clock import Timer, sleep
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import LogWritten, ProgressReported, StepCompleted
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import LogError, StaleAttempt
from eventjobs.execution.slots import Slot
from eventjobs.execution.source import RECORD_BACKOFF, JobSource
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe

_LOG = get_logger("eventjobs.runner")

#: Most reports that wait to be sent. Later ones are dropped, and a log line counts them.
WAITING_MAX = 1_000


class AttemptReporter:
    """The AttemptChannel of an attempt that runs in this process, or in one of its pool.

    A progress report waits up to *interval_s* seconds for a newer one, but not if its stage is new.
    """

    def __init__(self, source: JobSource, job: Job, slot: Slot, interval_s: float) -> None:
        self._source = source
        self._job = job
        self._slot = slot
        self._interval_s = interval_s
        self._queue: deque[Report] = deque()
        self._newest: ProgressReported | None = None
        self._stage: str | None = None
        self._timer: Timer | None = None
        self._sender: asyncio.Task[None] | None = None
        #: Steps that are being recorded.
        self._steps: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self._is_stale = False
        # Log lines of the sender task must not appear in the job's log.
        self._context = copy_context()
        self.clock = source.clock
        self.last_report_s = self.clock.monotonic_s()

    def progress(self, report: ProgressReported) -> None:
        self.last_report_s = self.clock.monotonic_s()
        new_stage = report.stage is not None and report.stage != self._stage
        if self._is_full or (self._timer is not None and not new_stage):
            self._newest = report
            if self._timer is None:
                self._timer = self.clock.call_later(self._interval_s, self._tick)
            return
        if new_stage:
            self._add_newest()  # the last report of the stage before
        self._stage = report.stage or self._stage
        self.add(report)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.clock.call_later(self._interval_s, self._tick)

    def add(self, report: Report) -> None:
        if self._is_stale:
            return
        if self._is_full:
            self._dropped += 1
            return
        self._queue.append(report)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(
                self._send(), name=f"reports {self._job.job_id}", context=self._context
            )

    async def record(self, report: Report) -> None:
        """Record *report* after all earlier ones. Raises StaleAttempt, LogError.

        A completed step is retried until the log accepts it, also when the caller is cancelled:
        else its work would be repeated. *flush* waits for it.
        """
        if isinstance(report, StepCompleted):
            name = f"step {self._job.job_id}"
            step = asyncio.create_task(self._record_step(report), name=name, context=self._context)
            self._steps.add(step)
            step.add_done_callback(self._on_step_recorded)
            await asyncio.shield(step)
        else:
            await self._flush_queue()
            await self._source.report(self._job, report)

    async def _record_step(self, step: StepCompleted) -> None:
        await self._flush_queue()
        for tries in count(1):
            try:
                await self._source.report(self._job, step)
                return
            except LogError as error:
                _LOG.warning(
                    "step waits", job_id=self._job.job_id, step=step.name, error=error.code
                )
                await sleep(self.clock, RECORD_BACKOFF.delay_s(tries))

    def _on_step_recorded(self, step: asyncio.Task[None]) -> None:
        self._steps.discard(step)
        if not step.cancelled():
            step.exception()  # the caller may be gone: asyncio would log it as never retrieved

    async def steps(self) -> dict[str, Any]:
        """The stored results of completed steps, by name, in order of completion."""
        return await self._source.steps(self._job)

    async def submit_child(self, name: str, spec: JobSpec) -> str:
        """Submit the child *name*, unless it exists; its id."""
        return await self._source.submit_child(self._job, name, spec)

    async def wait_for_job(self, child_id: str) -> dict[str, Any]:
        """Lend the slot and wait until a job has ended; its `status`, `result`, `error`, `file`."""
        async with self._slot.released_while_waiting():
            self._source.interrupt_wait()
            return await self._source.wait_for_job(self._job, child_id)

    async def flush(self) -> None:
        """Wait until all reports so far are recorded, the newest progress too."""
        await self._flush_queue()
        if self._steps:
            await asyncio.wait(self._steps)

    def close(self) -> None:
        """Record no more steps: the log accepts nothing."""
        for step in self._steps:
            step.cancel()

    async def _flush_queue(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._wait_sent()  # the queue may be full until then
        self._add_newest()
        await self._wait_sent()

    async def _wait_sent(self) -> None:
        # Shielded: a handler that is cancelled here must not cancel the sender.
        if self._sender is not None:
            await asyncio.shield(self._sender)

    @property
    def _is_full(self) -> bool:
        return len(self._queue) >= WAITING_MAX

    def _tick(self) -> None:
        self._timer = None
        if self._newest is not None:
            if not self._is_full:
                self._add_newest()
            self._timer = self.clock.call_later(self._interval_s, self._tick)

    def _add_newest(self) -> None:
        if self._newest is not None:
            pending, self._newest = self._newest, None
            self._stage = pending.stage or self._stage
            self.add(pending)

    async def _send(self) -> None:
        while self._queue and not self._is_stale:
            report = self._queue.popleft()
            try:
                await self._source.report(self._job, report)
                if self._dropped and not self._queue:
                    lost, self._dropped = self._dropped, 0
                    text = f"{lost} earlier reports were dropped: they came too fast"
                    self._queue.append(LogWritten(report.attempt, "warning", text))
            except StaleAttempt:
                self._is_stale = True
                self._queue.clear()
            except Exception as error:  # noqa: BLE001
                # A lost report does not fail the job. Its outcome waits for the disk instead.
                _LOG.warning("report lost", job_id=self._job.job_id, error=describe(error))

"""What one attempt tells while it runs, on its way into the log: in order, at a set rate."""

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from eventjobs.clock import Timer, sleep
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import LogWritten, ProgressReported, StepCompleted
from eventjobs.domain.job import Job
from eventjobs.domain.spec import JobSpec
from eventjobs.errors import LogError, StaleAttempt
from eventjobs.observability.logging import get_logger
from eventjobs.observability.tracebacks import describe

if TYPE_CHECKING:
    from eventjobs.execution.slots import Slot
    from eventjobs.execution.source import JobSource

_LOG = get_logger("eventjobs.runner")

#: Lines that may wait for the log; later ones are dropped, and their number is told.
WAITING_MAX = 1_000


class AttemptReporter:
    """A progress report waits up to *interval_s* for a newer one; a new stage never waits."""

    def __init__(self, desk: "JobSource", job: Job, slot: "Slot", interval_s: float) -> None:
        self._desk = desk
        self._job = job
        self._slot = slot
        self._interval_s = interval_s
        self._waiting: deque[Report] = deque()
        self._pending: ProgressReported | None = None
        self._stage: str | None = None
        self._timer: Timer | None = None
        self._sender: asyncio.Task[None] | None = None
        self._dropped = 0
        self._stale = False
        # What is sent is no doing of the handler's: it must not be told as that in its log.
        self._context = copy_context()
        self.clock = desk.clock
        self.last_report_s = self.clock.monotonic_s()

    def progress(self, report: ProgressReported) -> None:
        self.last_report_s = self.clock.monotonic_s()
        new_stage = report.stage is not None and report.stage != self._stage
        if self._full or (self._timer is not None and not new_stage):
            self._pending = report
            if self._timer is None:
                self._timer = self.clock.call_later(self._interval_s, self._tick)
            return
        if new_stage:
            self._add_pending()  # the last word of the stage before
        self._stage = report.stage or self._stage
        self.add(report)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.clock.call_later(self._interval_s, self._tick)

    def add(self, report: Report) -> None:
        if self._stale:
            return
        if self._full:
            self._dropped += 1
            return
        self._waiting.append(report)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(
                self._send(), name=f"reports {self._job.job_id}", context=self._context
            )

    async def record(self, report: Report) -> None:
        """Record *report* after all that was told before it. Raises StaleAttempt, LogError.

        A step waits for a log that takes no writes: its work is done, and would be done again.
        """
        await self.flush()
        delay_s = 0.1
        while True:
            try:
                return await self._desk.report(self._job, report)
            except LogError as error:
                if not isinstance(report, StepCompleted):
                    raise
                _LOG.warning(
                    "step waits", job_id=self._job.job_id, step=report.name, error=error.code
                )
                await sleep(self._desk.clock, delay_s)
                delay_s = min(delay_s * 2, 5.0)

    async def steps(self) -> dict[str, Any]:
        """What the steps came to that need no repeating, in order, by name."""
        return await self._desk.steps(self._job)

    async def submit_child(self, name: str, spec: JobSpec) -> str:
        """Submit the child *name*, unless it is there; its id."""
        return await self._desk.submit_child(self._job, name, spec)

    async def wait_for_job(self, child_id: str) -> dict[str, Any]:
        """Status, result and error of a job, once it has ended. Meanwhile others may run."""
        async with self._slot.released_while_waiting():
            self._desk.interrupt_wait()
            return await self._desk.wait_for_job(self._job, child_id)

    async def flush(self) -> None:
        """Return when everything told so far is in the log, the last progress too."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._sent()  # only then there is room for the last progress
        self._add_pending()
        await self._sent()

    async def _sent(self) -> None:
        # A handler cancelled in here must not take the sender with it, and what waits to be sent.
        if self._sender is not None:
            await asyncio.shield(self._sender)

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= WAITING_MAX

    def _tick(self) -> None:
        self._timer = None
        if self._pending is not None:
            if not self._full:
                self._add_pending()
            self._timer = self.clock.call_later(self._interval_s, self._tick)

    def _add_pending(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._stage = pending.stage or self._stage
            self.add(pending)

    async def _send(self) -> None:
        while self._waiting and not self._stale:
            report = self._waiting.popleft()
            try:
                await self._desk.report(self._job, report)
                if self._dropped and not self._waiting:
                    lost, self._dropped = self._dropped, 0
                    text = f"{lost} earlier reports were dropped: they came too fast"
                    self._waiting.append(LogWritten(report.attempt, "warning", text))
            except StaleAttempt:
                self._stale = True
                self._waiting.clear()
            except Exception as error:  # noqa: BLE001
                # A report is not worth holding a job up: the outcome is what waits for the disk.
                _LOG.warning("report lost", job_id=self._job.job_id, error=describe(error))

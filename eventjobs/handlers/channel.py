"""The channel of an attempt: how a context reports to its service and sends it requests."""

from typing import Any, Protocol

from eventjobs.clock import Clock
from eventjobs.domain.decisions import Report
from eventjobs.domain.events import ProgressReported
from eventjobs.domain.spec import JobSpec


class AttemptChannel(Protocol):
    """Reports of one attempt, in order, and its requests to the service."""

    @property
    def clock(self) -> Clock: ...

    def progress(self, report: ProgressReported) -> None:
        """Report progress. A newer report may replace it before it is recorded."""

    def add(self, report: Report) -> None:
        """Record *report* soon. Never blocks; beyond a bound, reports are dropped and counted."""

    async def record(self, report: Report) -> None:
        """Record *report* after all earlier ones. Raises StaleAttempt, LogError."""

    async def steps(self) -> dict[str, Any]:
        """The stored results of completed steps, by name, in order of completion."""

    async def submit_child(self, name: str, spec: JobSpec) -> str:
        """Submit the child *name*, unless it exists, and return its id."""

    async def wait_for_job(self, child_id: str) -> dict[str, Any]:
        """Wait until a job has ended; its `status`, `result`, `error` and `file`."""

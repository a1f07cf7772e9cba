"""What the events of one job add up to; see job.py for how."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from eventjobs.done import Step
from eventjobs.errors import JobUnreadable
from eventjobs.events import JSON, Artifact, JobSpec
from eventjobs.plain import json_fields


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


DEFAULT_QUEUE = "default"
FINISHED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


@json_fields("result", "issues", "error")
@dataclass(frozen=True)
class Job:
    """What the events of one job add up to. Made by evolve alone.

    What is as it was in the beginning is not in its `__dict__`, where reading finds the default
    below: so most of a job need not be copied at each change, nor written with it.
    """

    job_id: str
    spec: JobSpec
    #: position of the job's first event: its place in time order
    born: int
    created_us: int
    version: int
    position: int
    updated_us: int
    status: str = Status.QUEUED
    #: when it may start; past or present unless it is scheduled or waits to be retried
    due_us: int = 0
    #: runs so far; the number of the newest one, and its fencing token
    attempt: int = 0
    #: runs that count against max_attempts: not those released, nor those before a manual retry
    tries: int = 0
    worker: str | None = None
    #: how often the worker must be heard from; None while it is this process, or there is none
    lease_s: float | None = None
    #: how long the external service that has it may be silent; None while none has it
    silence_s: float | None = None
    started_us: int | None = None
    finished_us: int | None = None
    cancel_requested_us: int | None = None
    expired_us: int | None = None
    result: JSON = None
    issues: JSON = None
    #: {"code", "class", "message", "retryable"} of the newest failed attempt, until one succeeds
    error: dict[str, Any] | None = None
    artifacts: tuple[Artifact, ...] = ()
    #: in the order in which the handler comes to them
    steps: tuple[Step, ...] = ()
    #: written to its log
    lines: int = 0
    #: (attempt, report) of the late reports that are on record
    late: tuple[tuple[int, str], ...] = ()
    #: {"position", "why"} of its first event that cannot be read; the job is hidden since
    parked: dict[str, Any] | None = None

    @property
    def queue(self) -> str:
        return self.spec.queue or DEFAULT_QUEUE

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def can_retry(self) -> bool:
        return self.expired_us is None and self.status in (Status.FAILED, Status.CANCELLED)


def readable(job: Job) -> Job:
    """Raises JobUnreadable for a job that is parked."""
    if job.parked is not None:
        position, why = job.parked["position"], job.parked["why"]
        raise JobUnreadable(f"event {position} of this job cannot be read: {why}")
    return job

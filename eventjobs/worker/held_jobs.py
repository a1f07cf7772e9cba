"""The jobs that a worker holds, and the files that it has fetched for them."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from eventjobs.domain.job import Job
from eventjobs.errors import StaleAttempt
from eventjobs.execution.source import WithdrawReason
from eventjobs.observability.logging import get_logger
from eventjobs.storage.artifacts import Artifacts
from eventjobs.worker.wire import ClaimedJob

#: Called with (job id, attempt, reason) when a running attempt has to stop.
Stop = Callable[[str, int, WithdrawReason], object]


@dataclass(eq=False)
class HeldJob:
    """A job from its claim until its outcome is accepted or its attempt is lost."""

    claimed: ClaimedJob
    #: sha256 of the files that it uses here.
    files: set[str] = field(default_factory=set)
    #: Its outcome is being sent. A heartbeat that is refused then does not mean that it is lost.
    ending: bool = False

    @property
    def job(self) -> Job:
        return self.claimed.job


class HeldJobs:
    """The held jobs, by id. A file in *files* is removed with the last job that uses it."""

    def __init__(self, files: Artifacts) -> None:
        self._files = files
        self._held: dict[str, HeldJob] = {}
        self._added = asyncio.Event()
        self._stop: Stop = lambda job_id, attempt, reason: None
        self._log = get_logger("eventjobs.worker")

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[HeldJob]:
        return iter(list(self._held.values()))

    def on_stop(self, stop: Stop) -> None:
        self._stop = stop

    def add(self, claimed: ClaimedJob) -> bool:
        """Hold a claimed job. False if its attempt is held already."""
        job = claimed.job
        if (held := self._held.get(job.job_id)) is not None:
            if held.job.attempt == job.attempt:
                return False
            self.lose(held)
        self._held[job.job_id] = HeldJob(claimed)
        self._added.set()
        return True

    async def wait_for_any(self) -> None:
        while not self._held:
            self._added.clear()
            await self._added.wait()

    def find(self, claimed: ClaimedJob) -> HeldJob | None:
        held = self._held.get(claimed.job.job_id)
        return held if held is not None and held.claimed is claimed else None

    def require(self, job: Job) -> HeldJob:
        """Raises StaleAttempt when *job*'s attempt is not held any more."""
        held = self._held.get(job.job_id)
        if held is None or held.job.attempt != job.attempt:
            raise StaleAttempt(f"attempt {job.attempt} is lost")
        return held

    def cancel(self, job: Job) -> None:
        """Stop *job*'s attempt, which the service has cancelled."""
        self._stop(job.job_id, job.attempt, "cancelled")

    def lose(self, held: HeldJob) -> None:
        """Stop an attempt that does not hold its job any more. Nothing of it is reported."""
        job = held.job
        if self._held.get(job.job_id) is held:
            self._log.warning("attempt lost", job_id=job.job_id, attempt=job.attempt)
            self.drop(job)
            self._stop(job.job_id, job.attempt, "lost")

    def drop(self, job: Job) -> None:
        """Forget *job*, and remove the files that no other held job uses."""
        held = self._held.pop(job.job_id, None)
        if held is not None and held.files:  # most jobs have none, and many may be held
            used = {sha256 for other in self._held.values() for sha256 in other.files}
            for sha256 in held.files - used:
                remove = partial(self._files.path(sha256).unlink, missing_ok=True)
                asyncio.get_running_loop().run_in_executor(None, remove)

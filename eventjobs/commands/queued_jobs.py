"""The number of queued jobs of each owner, and its limit."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence

from eventjobs.commands.command_queue import CommandResult
from eventjobs.domain.ids import is_of_service
from eventjobs.domain.job import Job
from eventjobs.errors import LogUnavailable, OwnerLimit
from eventjobs.projections import JobChange, Views


class QueuedJobs:
    """Counts as the views do, plus the jobs that are being queued and that they do not show yet.

    So no owner ever has more than *limit* queued jobs; None is no limit. Jobs without an owner are
    not counted. The service's own jobs and the children of running ones are never refused.
    """

    def __init__(self, views: Views, limit: int | None) -> None:
        self._views = views
        self._limit = limit
        #: As of the position that they were loaded at, and changed since by each batch.
        self._counts: Counter[str] = Counter()
        self._loaded_at: int | None = None
        self._changes: list[JobChange] = []  # until they are loaded
        self._reserved: defaultdict[str, set[str]] = defaultdict(set)
        if limit is not None:
            views.listen(self._apply)

    async def load(self) -> None:
        """Count the queued jobs. Until then none can be queued."""
        if self._limit is None or self._loaded_at is not None:
            return
        self._loaded_at, counts = await self._views.queued_by_owner()
        self._counts.update(counts)
        changes, self._changes = self._changes, []
        self._apply(changes)

    async def queue(
        self, owner: str | None, job_id: str, command: Callable[[], Awaitable[CommandResult]]
    ) -> CommandResult:
        """The result of *command*, which queues this job of *owner*.

        Raises OwnerLimit without calling it when the owner has too many, LogUnavailable before
        they are counted, and what *command* raises.
        """
        is_new = self.reserve(owner, job_id)
        try:
            result = await command()
        except BaseException:
            self.release(owner, job_id, is_new=is_new)
            raise
        if not result.changed:
            self.release(owner, job_id, is_new=is_new)
        return result

    def reserve(self, owner: str | None, job_id: str) -> bool:
        """Reserve until the views show the job. False when there is nothing to release.

        Raises OwnerLimit, LogUnavailable as *queue* does.
        """
        if owner is None or self._limit is None or is_of_service(job_id):
            return False
        if self._loaded_at is None:
            raise LogUnavailable("the service is starting; nothing was written")
        reserved = self._reserved[owner]
        if job_id in reserved:
            return False  # a concurrent command has done that
        if self._counts[owner] + len(reserved) >= self._limit:
            self._drop_empty(owner)
            raise OwnerLimit(f"an owner has at most {self._limit} queued jobs")
        reserved.add(job_id)
        return True

    def release(self, owner: str | None, job_id: str, *, is_new: bool) -> None:
        """The command, whose *reserve* returned *is_new*, queued nothing."""
        if is_new and owner is not None:
            self._release(owner, job_id)

    def _release(self, owner: str, job_id: str) -> None:
        self._reserved[owner].discard(job_id)
        self._drop_empty(owner)

    def _drop_empty(self, owner: str) -> None:
        if not self._reserved[owner]:
            del self._reserved[owner]
        if not self._counts[owner]:
            del self._counts[owner]

    def _apply(self, changes: Sequence[JobChange]) -> None:
        """Count the changes of a batch, which the views show from now on."""
        if self._loaded_at is None:
            self._changes += changes
            return
        for change in changes:
            owner = change.after.spec.owner
            if owner is None or change.events[-1].position <= self._loaded_at:
                continue
            self._counts[owner] += _is_queued(change.after) - _is_queued(change.before)
            self._release(owner, change.after.job_id)


def _is_queued(job: Job | None) -> bool:
    return job is not None and job.waits

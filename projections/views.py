"""Views: the read models, kept beside the log and never the truth.

*Views* follows a log and keeps every projection in one file, `views.db`, which can be deleted at
any time. A new projection is a module with NAME, VERSION, SCHEMA and a pure *apply*, and one more
name in store.PROJECTIONS.
"""

from collections.abc import AsyncGenerator, Collection, Iterable
from typing import Any, NamedTuple

import orjson

from eventjobs.domain.job import Job, Status
from eventjobs.errors import JobNotFound
from eventjobs.projections import breakers, progress, queue, status
from eventjobs.projections import dependencies as ties
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.dependencies import CancelCause
from eventjobs.projections.follower import Log, _Live
from eventjobs.projections.progress import Estimate
from eventjobs.projections.queue import NO_FULL_LIMITS, DueJob, FullLimits
from eventjobs.projections.store import StaleViews, Store

__all__ = ["CancelCause", "JobView", "Log", "StaleViews", "Store", "Views"]


class JobView(NamedTuple):
    """A job as the views show it. *estimate* is of this moment; the rest is of job.position."""

    job: Job
    progress: Progress | None
    estimate: Estimate | None


class Views(_Live):
    """What is asked of the views: as of *position*."""

    async def job(self, job_id: str) -> JobView | None:
        async def look(store: Store) -> JobView | None:
            kept = await store.get(job_id)
            return None if kept is None else (await self._viewed(store, [kept]))[0]

        return await self._read(look)

    async def watch(self, job_id: str) -> AsyncGenerator[JobView, None]:
        """The job as it is now, and again after it changed, until it has ended or is hidden.

        The last one is the end; of changes in quick succession, those between may be left out.
        Raises JobNotFound, and LogUnavailable once the log is closed.
        """
        seen = 0
        while True:
            head = self._events.head  # what comes from here on ends the wait below
            await self.reached(head)
            view = await self.job(job_id)
            if view is None and not seen:
                raise JobNotFound
            if view is None or view.job.expired_us is not None:
                return
            if view.job.position > seen:
                seen = view.job.position
                yield view
            if view.job.finished:
                return
            await self._events.wait(head, job_id)

    def cached_job(self, job_id: str) -> Job | None:
        """The job, if it is in memory: costs nothing."""
        kept = self._store.cached(job_id) if self._opened else None
        return kept and kept[0]

    async def jobs(
        self, filters: dict[str, Any], *, order: str, cursor: int | None, limit: int
    ) -> list[JobView]:
        """A page of jobs that match *filters*, *cursor* being the last one's `born`."""
        if cursor is None:
            cursor = 0 if order == "oldest" else 2**62

        async def look(store: Store) -> list[JobView]:
            both = filters.get("type") is not None and filters.get("status") is not None
            counts = await store.read(status.SELECT_COUNTS) if both else ()
            sql, bound = status.list_statement(filters, order, counts)
            found = await store.read_list(sql, bound | {"cursor": cursor, "limit": limit})
            jobs = [status.job_from_row(row) for row in found]
            told = await store.progress_of(jobs) if jobs else {}
            return await self._viewed(store, [(job, told.get(job.job_id)) for job in jobs])

        return await self._read(look)

    async def counts(self) -> dict[str, dict[str, int]]:
        """Jobs by type and status: kept, not counted."""
        counted: dict[str, dict[str, int]] = {}
        for type, which, jobs in await self.query(status.SELECT_COUNTS):
            counted.setdefault(type, {})[which] = jobs
        return counted

    async def running(self) -> list[str]:
        found: list[str] = await self.query(status.SELECT_RUNNING)
        return found

    async def breakers(self) -> list[breakers.LastBreakerChange]:
        """The circuit breakers that ever opened, by name, as they were changed last."""
        return [
            breakers.LastBreakerChange(*row) for row in await self.query(breakers.SELECT_BREAKERS)
        ]

    async def due(
        self,
        now_us: int,
        types: Iterable[str],
        taken: Collection[str],
        limit: int,
        *,
        held: FullLimits = NO_FULL_LIMITS,
        key_max: int = 1,
        children_only: bool = False,
    ) -> list[DueJob]:
        """Up to *limit* jobs that may start, best first, *key_max* of a type with one key.

        With *children_only* those that have a parent, and first whose parent is the newest. None
        of them is in *taken*, waits in or for what is *held*, or is of what is paused.
        """
        bound = queue.due_parameters(now_us, types, taken, held, limit, key_max)
        asked = queue.SELECT_DUE_CHILDREN if children_only else queue.SELECT_DUE
        return [
            DueJob(*row) for row in await self._read(lambda store: store.read_named(asked, bound))
        ]

    async def next_due_us(self, now_us: int) -> int | None:
        """When the first of the jobs scheduled for later becomes due."""
        bound = {"1": now_us}
        found: int | None = await self._read(
            lambda store: store.read_named(queue.SELECT_NEXT_DUE_TIME, bound)
        )
        return found

    async def newest_us(self) -> int:
        """The highest time that an event has; 0 without any."""
        found: int = await self.query(queue.SELECT_NEWEST_TIME)
        return found

    async def newest_tagged(self, tag: str) -> str | None:
        """The newest job that carries *tag*, also when it is hidden."""
        found: str | None = await self.query(status.SELECT_NEWEST_TAGGED, tag)
        return found

    async def unmet_dependencies(self, job_id: str) -> list[tuple[str, str | None]]:
        """The (id, status) of the jobs that *job_id* waits for; that is why it does not start."""
        return [(other, status) for other, status in await self.query(ties.SELECT_UNMET, job_id)]

    async def jobs_to_cancel(self, limit: int) -> list[CancelCause]:
        """Up to *limit* unfinished jobs that are to be cancelled because of another one."""
        return [CancelCause(*each) for each in await self.query(ties.SELECT_TO_CANCEL, limit)]

    async def expiring(
        self,
        now_us: int,
        ended_us: int,
        limit: int,
        *,
        after_us: int = -1,
        ended_after_us: int = -1,
    ) -> list[str]:
        """Jobs that expire by themselves at *now_us*, or say nothing and ended by *ended_us*; but
        not those that did so by the *after* times.
        """
        bound = {"now_us": now_us, "ended_us": ended_us, "limit": limit}
        bound |= {"after_us": after_us, "ended_after_us": ended_after_us}
        found: list[str] = await self._read(
            lambda store: store.read_named(status.SELECT_EXPIRING, bound)
        )
        return found

    async def _viewed(
        self, store: Store, found: list[tuple[Job, Progress | None]]
    ) -> list[JobView]:
        types = {job.spec.type for job, _ in found if job.status == Status.RUNNING}
        times: dict[str, dict[str, progress.UsualDuration]] = {}
        if types:
            listed = orjson.dumps(sorted(types)).decode()
            times = progress.usual_durations(await store.read(progress.SELECT_DURATIONS, listed))
        now_us = self._clock.now_us()
        return [
            JobView(job, told, progress.estimate(job, told, times.get(job.spec.type, {}), now_us))
            for job, told in found
        ]

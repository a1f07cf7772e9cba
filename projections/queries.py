"""The queries of the views, apart from how their file is kept current."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, NamedTuple, TypeVar

import orjson

from eventjobs.clock import Clock
from eventjobs.domain.job import Job, Status
from eventjobs.projections import (
    breakers,
    dependencies,
    event_pages,
    files,
    hooks,
    parked_events,
    progress,
    queue,
    status,
)
from eventjobs.projections.attempt_progress import Progress
from eventjobs.projections.breakers import LastBreakerChange
from eventjobs.projections.dependencies import CancelCause
from eventjobs.projections.hooks import PendingHook
from eventjobs.projections.parked_events import ParkedEvent
from eventjobs.projections.progress import Estimate
from eventjobs.projections.store import Store

T = TypeVar("T")


class JobView(NamedTuple):
    """A job as the views show it. *estimate* is as of now, the rest as of job.position."""

    job: Job
    progress: Progress | None
    estimate: Estimate | None


class ViewQueries(ABC):
    """Each query is answered as of the position of the views."""

    _clock: Clock

    @abstractmethod
    async def _read(self, lookup: Callable[[Store], Awaitable[T]]) -> T:
        """The result of *lookup*, called with the store once it can be read."""

    async def query(self, sql: str, *parameters: Any) -> Any:
        """The JSON value of *sql*, a query of a projection that returns one row of one column."""
        return await self._read(lambda store: store.read(sql, *parameters))

    async def job(self, job_id: str) -> JobView | None:
        """The job; None when the views have none of that id."""

        async def lookup(store: Store) -> JobView | None:
            job = await store.get(job_id)
            return None if job is None else (await self._with_estimates(store, [job]))[0]

        return await self._read(lookup)

    async def jobs(
        self, filters: dict[str, Any], *, order: str, cursor: int | None, limit: int
    ) -> list[JobView]:
        """A page of jobs that match *filters*, by *order*: "newest" or "oldest" first.

        *cursor* is the `born` of the last job of the page before.
        """
        if cursor is None:
            cursor = 0 if order == "oldest" else 2**62

        async def lookup(store: Store) -> list[JobView]:
            both = filters.get("type") is not None and filters.get("status") is not None
            counts = await store.read(status.SELECT_COUNTS) if both else ()
            sql, parameters = status.list_statement(filters, order, counts)
            rows = await store.read_list(sql, parameters | {"cursor": cursor, "limit": limit})
            jobs = [status.job_from_row(row) for row in rows]
            progress_of = await store.progress_of(jobs) if jobs else {}
            page = [(job, progress_of.get(job.job_id)) for job in jobs]
            return await self._with_estimates(store, page)

        return await self._read(lookup)

    async def listed_ids(
        self, owner: str | None, *, cursor: int, limit: int
    ) -> tuple[list[str], int]:
        """A page of the ids of the jobs that lists have, the oldest first; None is all owners.

        *cursor* is the `born` of the last job of the page before; that of this page is returned.
        """
        sql = status.SELECT_LISTED_IDS if owner is None else status.SELECT_LISTED_IDS_OF_OWNER
        parameters = {"owner": owner, "cursor": cursor, "limit": limit}
        ids, last = await self._read(lambda store: store.read_list(sql, parameters))
        return ids, last or cursor

    async def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of jobs by type and status."""
        return _by_type(await self.query(status.SELECT_COUNTS))

    async def counts_of(self, owner: str) -> dict[str, dict[str, int]]:
        """Numbers of the jobs of *owner* by type and status."""
        return _by_type(await self.query(status.SELECT_OWNER_COUNTS, owner))

    async def queued_by_owner(self) -> tuple[int, dict[str, int]]:
        """A position of the views, and the numbers of queued jobs at it, by owner."""
        position, counts = await self.query(status.SELECT_QUEUED_BY_OWNER)
        return position or 0, counts

    async def running(self) -> list[str]:
        """The ids of running jobs."""
        ids: list[str] = await self.query(status.SELECT_RUNNING)
        return ids

    async def open_breakers(self) -> list[tuple[str, int, int]]:
        """Of the breakers that are open: name, open since, open until, in µs."""
        return [
            (each.name, each.changed_us or 0, each.until_us)
            for each in await self.breakers()
            if each.until_us
        ]

    async def breakers(self) -> list[LastBreakerChange]:
        """The circuit breakers that ever opened, by name, as they were changed last."""
        return [LastBreakerChange(*row) for row in await self.query(breakers.SELECT_BREAKERS)]

    async def newest_us(self) -> int:
        """The highest time of an event; 0 without events."""
        newest_us: int = await self.query(queue.SELECT_NEWEST_TIME)
        return newest_us

    async def owns_file(self, owner: str, sha256: str) -> bool:
        """Whether a job of *owner*, hidden or not, has or had this file."""
        owned: bool = await self.query(files.SELECT_OWNED, owner, sha256)
        return owned

    async def newest_tagged(self, tag: str) -> str | None:
        """The id of the newest job with *tag*, hidden or not."""
        job_id: str | None = await self.query(status.SELECT_NEWEST_TAGGED, tag)
        return job_id

    async def unmet_dependencies(self, job_id: str) -> list[tuple[str, str | None]]:
        """The (id, status) of the jobs that must end before *job_id* may start."""
        rows = await self.query(dependencies.SELECT_UNMET, job_id)
        return [(other, other_status) for other, other_status in rows]

    async def jobs_to_cancel(self, limit: int) -> list[CancelCause]:
        """Up to *limit* unfinished jobs that must be cancelled because of another one."""
        return [CancelCause(*row) for row in await self.query(dependencies.SELECT_TO_CANCEL, limit)]

    async def pending_hooks(self, limit: int) -> list[PendingHook]:
        """Up to *limit* completion hooks whose job has to be submitted, or has ended."""
        return [PendingHook(*row) for row in await self.query(hooks.SELECT_HOOKS, limit)]

    async def expiring(
        self,
        now_us: int,
        ended_us: int,
        limit: int,
        *,
        after_us: int = -1,
        ended_after_us: int = -1,
    ) -> list[str]:
        """Ids of jobs whose own time to live ended by *now_us*, or that have none and ended by
        *ended_us*. Those for which this was so by the *after* times are left out.
        """
        parameters = {
            "now_us": now_us,
            "ended_us": ended_us,
            "limit": limit,
            "after_us": after_us,
            "ended_after_us": ended_after_us,
        }
        ids: list[str] = await self._read_named(status.SELECT_EXPIRING, parameters)
        return ids

    async def skip_events(
        self, after: int, types: Collection[str] | None, owner: str | None
    ) -> int:
        """A position from *after* on, such that all events in between are of jobs of other types,
        or of another *owner*. None is any. It is at most the position of the views.
        """
        if types is None and owner is None:
            return after
        parameters = {
            "page": event_pages.page_of(after + 1),
            "types": None if types is None else orjson.dumps(sorted(types)).decode(),
            "owner": owner,
        }
        sql = (
            event_pages.SELECT_PAGE_OF_TYPES if owner is None else event_pages.SELECT_PAGE_OF_OWNER
        )
        position, page = await self._read_named(sql, parameters)
        if page is not None:
            position = min(position or 0, page * event_pages.PAGE_EVENTS)
        return max(after, position or 0)

    async def parked_events(self, limit: int) -> tuple[int, list[ParkedEvent]]:
        """How many events could not be applied, and the first *limit* of them."""
        count, rows = await self.query(parked_events.SELECT_PARKED, limit)
        return count, [ParkedEvent(*row) for row in rows]

    async def _read_named(self, sql: str, parameters: dict[str, Any]) -> Any:
        return await self._read(lambda store: store.read_named(sql, parameters))

    async def _with_estimates(
        self, store: Store, jobs: list[tuple[Job, Progress | None]]
    ) -> list[JobView]:
        types = {job.spec.type for job, _ in jobs if job.status == Status.RUNNING}
        usual: dict[str, dict[str, progress.UsualDuration]] = {}
        if types:
            parameter = orjson.dumps(sorted(types)).decode()
            rows = await store.read(progress.SELECT_DURATIONS, parameter)
            usual = progress.usual_durations(rows)
        now_us = self._clock.now_us()
        return [
            JobView(
                job,
                attempt,
                progress.estimate(job, attempt, usual.get(job.spec.type, {}), now_us),
            )
            for job, attempt in jobs
        ]


def _by_type(rows: Iterable[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for type, job_status, jobs in rows:
        counts.setdefault(type, {})[job_status] = jobs
    return counts

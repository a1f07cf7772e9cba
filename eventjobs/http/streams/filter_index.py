"""Filters by what a job must have to match them, so that an event is compared with few of them."""

from collections.abc import Iterator

from eventjobs.domain.job import Job
from eventjobs.http.streams.job_filter import JobFilter

#: A field of a job, and its value.
Key = tuple[str, str]


class FilterIndex:
    """Finds each filter by one of its fields, which is likely to match the fewest jobs."""

    def __init__(self) -> None:
        self._by_key: dict[Key, set[JobFilter]] = {}
        #: Those without such a field.
        self._others: set[JobFilter] = set()

    def add(self, job_filter: JobFilter) -> None:
        if not (keys := _keys_of_filter(job_filter)):
            self._others.add(job_filter)
        for key in keys:
            self._by_key.setdefault(key, set()).add(job_filter)

    def discard(self, job_filter: JobFilter) -> None:
        self._others.discard(job_filter)
        for key in _keys_of_filter(job_filter):
            filters = self._by_key.get(key, set())
            filters.discard(job_filter)
            if not filters:
                self._by_key.pop(key, None)

    def candidates(self, job_id: str, job: Job | None) -> set[JobFilter]:
        """The filters that may match *job*. Without a *job*, those that name it, or need none."""
        candidates = self._others.copy()
        if self._by_key:
            for key in _keys_of_job(job_id, job):
                if filters := self._by_key.get(key):
                    candidates |= filters
        return candidates


def _keys_of_filter(job_filter: JobFilter) -> list[Key]:
    if job_filter.ids is not None:
        return [("id", each) for each in job_filter.ids]
    for field in ("parent", "tag", "owner", "queue"):
        if (value := getattr(job_filter, field)) is not None:
            return [(field, value)]
    return [("type", each) for each in job_filter.type or ()]


def _keys_of_job(job_id: str, job: Job | None) -> Iterator[Key]:
    yield "id", job_id
    if job is not None:
        spec = job.spec
        yield "type", spec.type
        yield "queue", job.queue
        if spec.owner is not None:
            yield "owner", spec.owner
        if spec.parent is not None:
            yield "parent", spec.parent
        for each in spec.tags:
            yield "tag", each

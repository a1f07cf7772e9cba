"""Which jobs a list or a stream is about."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eventjobs.auth.principals import LOCAL, Principal
from eventjobs.domain.events import SERVICE_EVENTS, LogWritten, is_own
from eventjobs.domain.job import Job
from eventjobs.domain.mask import UNKNOWN, Mask
from eventjobs.domain.recorded import Recorded
from eventjobs.http.auth import restrict_owner


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Named jobs, or all that match. A field that is None does not limit."""

    ids: frozenset[str] | None = None
    type: frozenset[str] | None = None
    owner: str | None = None
    queue: str | None = None
    parent: str | None = None
    tag: str | None = None
    status: frozenset[str] | None = None
    #: Of the events, only the lines of the jobs' logs.
    logs: bool = False
    #: The owner who reads, and from whom the sensitive fields of others are hidden; "" for no
    #: owner. None: nothing is hidden.
    reader: str | None = None

    @property
    def matches_everything(self) -> bool:
        limits = (self.ids, self.type, self.owner, self.queue, self.parent, self.tag, self.status)
        return not self.logs and all(each is None for each in limits)

    @property
    def _includes_internal_jobs(self) -> bool:
        """The service's own jobs are shown only to those who name them, as in lists."""
        return self.ids is not None or self.type is not None

    def for_views(self) -> dict[str, Any]:
        """The filters of Views.jobs. *ids* is not among them."""
        return {
            "type": self.type and sorted(self.type),
            "status": self.status and sorted(self.status),
            "owner": self.owner,
            "queue": self.queue,
            "parent": self.parent,
            "tag": self.tag,
        }

    def matches(self, job: Job | None) -> bool:
        """Whether the events of *job* match.

        Only what never changes about a job counts, so that a second reading has the same events.
        """
        return (
            job is not None
            and (self.ids is None or job.job_id in self.ids)
            and (self.type is None or job.spec.type in self.type)
            and (self.owner is None or job.spec.owner == self.owner)
            and (self.queue is None or job.queue == self.queue)
            and (self.parent is None or job.spec.parent == self.parent)
            and (self.tag is None or self.tag in job.spec.tags)
        )

    def matches_change(self, job: Job, statuses: Iterable[str] | None = None) -> bool:
        """Whether a change of *job*, hidden or not, matches.

        With *statuses*, those of the job before and after, one of them must match: so a job that
        leaves the filter is shown once more.
        """
        return (
            self.matches(job)
            and (self._includes_internal_jobs or not is_own(job.spec.type))
            and (self.status is None or statuses is None or not self.status.isdisjoint(statuses))
        )

    def among(self, jobs: Iterable[Job]) -> "JobFilter":
        """The same filter for the named *jobs*: the ids that the other fields leave."""
        if self.ids is None:
            return self
        ids = frozenset(job.job_id for job in jobs if self.matches(job))
        return JobFilter(ids=ids, status=self.status, logs=self.logs, reader=self.reader)

    def select(self, events: list[Recorded]) -> list[Recorded]:
        """Those of the *events* of matching jobs that the stream has."""
        if not self.logs:
            return events
        return [each for each in events if isinstance(each.event, LogWritten)]

    def mask_of(self, job: Job) -> Mask | None:
        """The mask through which the reader sees *job*; None where nothing is hidden."""
        if self.reader is None or not job.spec.sensitive or job.spec.owner == self.reader:
            return None
        return Mask.of(job.spec)

    def hide(self, events: list[Recorded], jobs: Mapping[str, Job | None]) -> list[Recorded]:
        """*events* of *jobs* as the reader may see them."""
        if self.reader is None:
            return events
        return [self._hide(each, jobs.get(each.job_id)) for each in events]

    def _hide(self, recorded: Recorded, job: Job | None) -> Recorded:
        if job is not None:
            mask = self.mask_of(job)
        else:  # the event is about the service, or the first event of the job cannot be read
            mask = None if type(recorded.event) in SERVICE_EVENTS else UNKNOWN
        return recorded if mask is None else mask.event(recorded)


def restrict_filter(principal: Principal, job_filter: JobFilter) -> JobFilter:
    """*job_filter* for the jobs that *principal* may see, and for what it may read of them. Named
    jobs are checked one by one instead. Raises as *restrict_owner*.
    """
    if principal is LOCAL:
        return job_filter
    reader = principal.owner or ""
    if job_filter.ids is not None:
        return replace(job_filter, reader=reader)
    owner = restrict_owner(principal, job_filter.owner)
    return replace(job_filter, owner=owner, reader=None if owner == reader else reader)

"""A webhook: a subscription to events, and which events match it."""

from collections.abc import Sequence
from typing import NamedTuple

from eventjobs.domain.events import JobEvent, ends_job, is_own
from eventjobs.domain.job import Job
from eventjobs.domain.recorded import Recorded

#: The event types that a webhook can subscribe to: every event of a job.
EVENT_TYPES = [each.__name__ for each in JobEvent.__args__]


class Webhook(NamedTuple):
    """A subscription to the events after *position*. Messages of the events up to
    *delivered_position* are submitted as delivery jobs.
    """

    webhook_id: str
    position: int
    delivered_position: int
    added_us: int
    actor: str
    url: str | None
    events: Sequence[str]
    types: Sequence[str]
    owner: str | None

    def wants(self, recorded: Recorded, job: Job) -> bool:
        """Whether the webhook subscribed to this event of *job*. The service's own jobs match only
        a webhook that names their type.
        """
        event = recorded.event
        return (
            (type(event).__name__ in self.events if self.events else ends_job(event))
            and (job.spec.type in self.types if self.types else not is_own(job.spec.type))
            and (self.owner is None or job.spec.owner == self.owner)
        )

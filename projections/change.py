"""The change of one job by a batch of events: the input of a projection."""

from dataclasses import dataclass, field
from typing import Any

import orjson

from eventjobs.domain.events import JobImported, JobSubmitted
from eventjobs.domain.job import Job
from eventjobs.domain.json_fields import fragment_of
from eventjobs.domain.recorded import Recorded
from eventjobs.projections.attempt_progress import Progress

#: SQL and its parameters. They are one JSON array of rows, so that a batch is one statement.
Statement = tuple[str, tuple[Any, ...]]


@dataclass(slots=True)
class JobChange:
    """A job before and after a batch of events; *before* is None for a new job."""

    before: Job | None
    after: Job
    progress_before: Progress | None
    progress: Progress | None
    events: list[Recorded] = field(default_factory=list)
    #: Bytes of the facts and bodies of *events*.
    size: int = 0

    def followed_by(self, later: "JobChange") -> "JobChange":
        """This change and the next one of the job, as one."""
        return JobChange(
            self.before,
            later.after,
            self.progress_before,
            later.progress,
            self.events + later.events,
            self.size + later.size,
        )

    @property
    def submission(self) -> orjson.Fragment:
        """The specification as it was recorded. For a job that is new in this batch."""
        first = self.events[0]
        if isinstance(first.event, JobImported):
            spec = self.after.spec
            fields = {"type": spec.type, "owner": spec.owner}
            return orjson.Fragment(
                orjson.dumps({**fields, "payload": fragment_of(spec, "payload")})
            )
        assert isinstance(first.event, JobSubmitted)
        return orjson.Fragment(first.data)


def rows(values: list[Any]) -> tuple[str]:
    """*values*, the rows of a Statement, as its parameters."""
    return (orjson.dumps(values).decode(),)
